//! From packages to a bootable disk image, without privileges: mmdebstrap in a user namespace, `mke2fs -d` inside it,
//! GRUB written as bytes, qcow2 at the end. Everything happens in a directory of its own that is removed afterwards.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::overlay;
use super::sources::Mirror;
use super::workdir::WorkDir;
use crate::exec::{self, ExecError};
use crate::progress::Progress;
use crate::signals::Interrupt;

/// A template that was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Root builds nothing: the packages' scripts would run as root.
    #[error("do not build as root: runuser -u blockhost -- blockhost-build-template")]
    Root,
    /// The user has no subordinate ids.
    #[error(
        "user {user} has no range of 65536 subordinate ids in {file}; as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    )]
    NoSubids {
        /// The user.
        user: String,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
    },
    /// A program failed or is missing.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A file could not be made.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The boot sector.
    #[error(transparent)]
    Boot(#[from] super::boot::BootError),
}

/// What a template is made of. The same inputs give the same template.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The release.
    pub suite: String,
    /// Its mirrors.
    pub mirrors: Vec<Mirror>,
    /// Packages beyond the fixed ones.
    pub packages: Vec<String>,
    /// Package files of the operator.
    pub debs: Vec<PathBuf>,
    /// Virtual size; guests grow it to their disk.
    pub size_mib: u32,
}

impl Inputs {
    /// A digest of everything that decides what comes out, in hexadecimal. Package versions at the mirrors do not: a
    /// template is rebuilt for those with `--force`.
    ///
    /// # Errors
    /// [`BuildError::File`] when a package file cannot be read.
    pub fn digest(&self) -> Result<String, BuildError> {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for (path, mode, contents) in overlay::FILES {
            add(path.as_bytes());
            add(&mode.to_le_bytes());
            add(contents.as_bytes());
        }
        add(overlay::CUSTOMIZE.as_bytes());
        add(overlay::GRUB_EARLY.as_bytes());
        let words = overlay::PACKAGES.iter().chain(overlay::EXCLUDED).copied();
        for word in words.chain(self.packages.iter().map(String::as_str)) {
            add(word.as_bytes());
        }
        for mirror in &self.mirrors {
            add(mirror.to_line().as_bytes());
        }
        for deb in &self.debs {
            add(&std::fs::read(deb).map_err(file_error(deb))?);
        }
        add(&self.size_mib.to_le_bytes());
        Ok(blockhost_proto::escape::hex(&hash.finalize()))
    }
}

pub(super) fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::File { path, source }
}

/// Checks what has to be there before anything is downloaded.
///
/// # Errors
/// [`BuildError::Root`], [`BuildError::NoSubids`], [`ExecError::NotFound`].
pub fn check_host() -> Result<(), BuildError> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Err(BuildError::Root);
    }
    for (program, hint) in PROGRAMS {
        exec::find(program, hint)?;
    }
    let boot_image = Path::new(GRUB_DIRECTORY).join("boot.img");
    std::fs::metadata(&boot_image).map_err(|_| ExecError::NotFound {
        name: boot_image.display().to_string(),
        hint: "install the package grub-pc-bin",
    })?;
    let user = user_name(uid.as_raw());
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if !has_range(&text, &user, uid.as_raw()) {
            return Err(BuildError::NoSubids { user, file });
        }
    }
    Ok(())
}

const GRUB_DIRECTORY: &str = "/usr/lib/grub/i386-pc";
const PROGRAMS: [(&str, &str); 5] = [
    ("mmdebstrap", "install the package mmdebstrap"),
    ("newuidmap", "install the package uidmap"),
    ("mke2fs", "install the package e2fsprogs"),
    ("grub-mkimage", "install the package grub-common"),
    ("qemu-img", "install the package qemu-utils"),
];

fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|f| f.get(2) == Some(&uid.to_string().as_str()));
    entry.map_or_else(|| uid.to_string(), |fields| fields[0].to_owned())
}

fn has_range(text: &str, user: &str, uid: u32) -> bool {
    let uid = uid.to_string();
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .any(|fields| {
            let [name, _, count] = fields[..] else {
                return false;
            };
            (name == user || name == uid)
                && count
                    .trim()
                    .parse::<u64>()
                    .is_ok_and(|count| count >= 65_536)
        })
}

/// How many steps [`build`] reports.
pub const STEPS: usize = 4;

/// Builds the image at `output`, which appears only when it is whole.
///
/// # Errors
/// [`BuildError`].
pub fn build(
    inputs: &Inputs,
    output: &Path,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> Result<(), BuildError> {
    check_host()?;
    let mmdebstrap = exec::find("mmdebstrap", PROGRAMS[0].1)?;
    let work = WorkDir::make()?;
    let directory = work.namespace_directory(&mmdebstrap)?;
    let disk = directory.join("disk.raw");
    let uuid = random_uuid()?;

    progress.step(format!("install Debian {} packages", inputs.suite));
    prepare(&work, inputs)?;
    let args = mmdebstrap_args(&work, inputs, &disk, &uuid);
    let env = [("TMPDIR", work.path.as_os_str())];
    let proxies: Vec<(&str, std::ffi::OsString)> = PROXY_VARIABLES
        .iter()
        .filter_map(|name| Some((*name, std::env::var_os(name)?)))
        .collect();
    let env: Vec<(&str, &OsStr)> = env
        .into_iter()
        .chain(
            proxies
                .iter()
                .map(|(name, value)| (*name, value.as_os_str())),
        )
        .collect();
    let mut made_file_system = false;
    exec::run_watched(&mmdebstrap, &args, &env, interrupt, |line| {
        if line == "blockhost: make the file system" && !made_file_system {
            made_file_system = true;
            progress.step("make the file system");
        } else {
            progress.detail(line.chars().take(60).collect::<String>().as_str());
        }
    })?;

    progress.step("make it bootable");
    let core = work.join("core.img");
    let early = work.join("grub-early.cfg");
    std::fs::write(&early, overlay::GRUB_EARLY).map_err(file_error(&early))?;
    let grub = exec::find("grub-mkimage", PROGRAMS[3].1)?;
    let modules = [
        "biosdisk",
        "part_msdos",
        "ext2",
        "linux16",
        "normal",
        "configfile",
        "echo",
        "ls",
    ];
    let mut grub_args: Vec<&OsStr> = ["-O", "i386-pc", "-p", "/boot/grub", "-c"]
        .iter()
        .map(OsStr::new)
        .collect();
    grub_args.extend([early.as_os_str(), "-o".as_ref(), core.as_os_str()]);
    grub_args.extend(modules.iter().map(OsStr::new));
    exec::run(&grub, &grub_args, None)?;
    // The image belongs to the namespace; what is made of it is ours.
    let ours = work.join("disk.raw");
    copy_sparse(&disk, &ours)?;
    super::boot::install(&ours, &Path::new(GRUB_DIRECTORY).join("boot.img"), &core)?;

    progress.step("convert to qcow2");
    let temporary = output.with_extension("qcow2.new");
    let qemu_img = exec::find("qemu-img", PROGRAMS[4].1)?;
    let convert: Vec<&OsStr> = ["convert", "-f", "raw", "-O", "qcow2"]
        .iter()
        .map(OsStr::new)
        .chain([ours.as_os_str(), temporary.as_os_str()])
        .collect();
    if let Err(e) = exec::run(&qemu_img, &convert, None) {
        let _ = std::fs::remove_file(&temporary);
        return Err(e.into());
    }
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o640))
        .map_err(file_error(&temporary))?;
    std::fs::rename(&temporary, output).map_err(file_error(output))?;
    progress.finish();
    Ok(())
}

const PROXY_VARIABLES: [&str; 3] = ["http_proxy", "https_proxy", "no_proxy"];

fn random_uuid() -> Result<String, BuildError> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    Ok(std::fs::read_to_string(path)
        .map_err(file_error(path))?
        .trim()
        .to_owned())
}

fn prepare(work: &WorkDir, inputs: &Inputs) -> Result<(), BuildError> {
    let overlay = work.join("overlay");
    overlay::write(&overlay).map_err(file_error(&overlay))?;
    let script = work.join("customize.sh");
    std::fs::write(&script, overlay::CUSTOMIZE).map_err(file_error(&script))?;
    let debs = work.join("debs");
    std::fs::create_dir(&debs).map_err(file_error(&debs))?;
    for (index, deb) in inputs.debs.iter().enumerate() {
        std::fs::copy(deb, debs.join(format!("{index}.deb"))).map_err(file_error(deb))?;
    }
    // The namespace's root is "others" here, whatever the umask is.
    open_to_others(&work.path).map_err(file_error(&work.path))
}

fn open_to_others(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = std::fs::symlink_metadata(&path)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            continue;
        }
        let extra = if metadata.is_dir() { 0o055 } else { 0o044 };
        std::fs::set_permissions(
            &path,
            std::fs::Permissions::from_mode(metadata.mode() | extra),
        )?;
        if metadata.is_dir() {
            open_to_others(&path)?;
        }
    }
    Ok(())
}

/// Every path in it is one of ours, made of letters, digits, `/`, `.` and `-`: nothing needs quoting in the hooks.
fn mmdebstrap_args(work: &WorkDir, inputs: &Inputs, disk: &Path, uuid: &str) -> Vec<String> {
    let place = work.path.display();
    let packages: Vec<&str> = overlay::PACKAGES
        .iter()
        .copied()
        .chain(inputs.packages.iter().map(String::as_str))
        .collect();
    let mut args: Vec<String> = [
        "--mode=unshare",
        "--variant=apt",
        "--format=null",
        "--skip=cleanup",
        "--components=main",
        "--verbose",
    ]
    .map(str::to_owned)
    .into();
    args.push(format!("--include={}", packages.join(",")));
    args.extend(
        overlay::EXCLUDED
            .iter()
            .map(|option| format!("--dpkgopt={option}")),
    );
    args.push("--dpkgopt=force-unsafe-io".into());
    args.push("--aptopt=APT::Install-Recommends \"false\"".into());
    args.push("--aptopt=Acquire::Languages \"none\"".into());
    args.push(format!(
        "--setup-hook=cp -R --preserve=mode {place}/overlay/. \"$1\"/"
    ));
    args.push(format!(
        "--customize-hook=sh {place}/customize.sh \"$1\" {} {} {uuid} {place}/debs",
        disk.display(),
        inputs.size_mib
    ));
    args.extend([inputs.suite.clone(), "/dev/null".to_owned()]);
    args.extend(inputs.mirrors.iter().map(Mirror::to_line));
    args
}

/// Holes stay holes: the image is mostly empty.
fn copy_sparse(from: &Path, to: &Path) -> Result<(), BuildError> {
    let cp = exec::find("cp", "install the package coreutils")?;
    exec::run(
        &cp,
        &[
            "--sparse=always".as_ref(),
            "--".as_ref(),
            from.as_os_str(),
            to.as_os_str(),
        ] as &[&OsStr],
        None,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_subordinate_ids_is_told_the_command() {
        assert!(!has_range("other:100000:65536\n", "blockhost", 999));
        assert!(!has_range("blockhost:100000:1000\n", "blockhost", 999));
        assert!(has_range(
            "x:1:1\nblockhost:100000:65536\n",
            "blockhost",
            999
        ));
        assert!(has_range("999:100000:65536\n", "blockhost", 999));
        let error = BuildError::NoSubids {
            user: "u".into(),
            file: "/etc/subuid",
        }
        .to_string();
        assert!(error.contains("usermod --add-subuids"));
    }

    #[test]
    fn the_same_inputs_have_the_same_digest_and_others_another() {
        let inputs = |size_mib| Inputs {
            suite: "s".into(),
            mirrors: vec![],
            packages: vec![],
            debs: vec![],
            size_mib,
        };
        assert_eq!(inputs(1).digest().unwrap(), inputs(1).digest().unwrap());
        assert_ne!(inputs(1).digest().unwrap(), inputs(2).digest().unwrap());
    }
}
