//! Process 1 of a private Debian with a real systemd: puts an overlay over the whole host, mounts what a booted system
//! has, and becomes systemd. Started inside fresh namespaces by `blockhost_tests::systemd` only.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use blockhost_tests::command::command;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, mount_remount, unmount,
};

type Step = Result<(), String>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(scratch), Some(installed)) = (arguments.next(), arguments.next()) else {
        eprintln!("blockhost-systemd-init: started by the tests only");
        return ExitCode::from(64);
    };
    match prepare(Path::new(&scratch), Path::new(&installed)) {
        Ok(()) => {
            let error = command("/lib/systemd/systemd")
                .args([
                    "--system",
                    "--unit=multi-user.target",
                    "--show-status=no",
                    "--log-target=journal",
                ])
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("container", "blockhost")
                .env("SYSTEMD_UNIT_PATH", "/units")
                .env("SYSTEMD_GENERATOR_PATH", "/nonexistent")
                .exec();
            eprintln!("blockhost-systemd-init: cannot become systemd: {error}");
        }
        Err(error) => eprintln!("blockhost-systemd-init: {error}"),
    }
    ExitCode::FAILURE
}

fn prepare(scratch: &Path, installed: &Path) -> Step {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|error| format!("private mounts: {error}"))?;
    fresh("tmpfs", scratch)?;
    let layer = |name: &str| scratch.join(name);
    for name in ["upper", "work", "root"] {
        fs::create_dir(layer(name)).map_err(|error| format!("{name}: {error}"))?;
    }
    let root = layer("root");
    let options = format!(
        "lowerdir=/,upperdir={},workdir={}",
        layer("upper").display(),
        layer("work").display()
    );
    let options = CString::new(options).map_err(|error| error.to_string())?;
    mount(
        c"overlay",
        &root,
        c"overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .map_err(|error| format!("overlay: {error}"))?;
    fresh("proc", &root.join("proc"))?;
    for shared in ["sys", "dev"] {
        mount_bind_recursive(Path::new("/").join(shared), root.join(shared))
            .map_err(|error| format!("/{shared}: {error}"))?;
    }
    let groups = root.join("sys/fs/cgroup");
    unmount(&groups, UnmountFlags::DETACH).map_err(|error| format!("cgroups: {error}"))?;
    fresh("cgroup2", &groups)?;
    // Nothing of the host's own state, and no trace of what happens here.
    for own in ["run", "tmp", "var/lib", "var/log"] {
        fresh("tmpfs", &root.join(own))?;
    }
    // Except what is installed: supermin looks it up. Read, never written.
    let packages = root.join("var/lib/dpkg");
    fs::create_dir(&packages).map_err(|error| format!("/var/lib/dpkg: {error}"))?;
    mount_bind("/var/lib/dpkg", &packages)
        .and_then(|()| mount_remount(&packages, MountFlags::BIND | MountFlags::RDONLY, c""))
        .map_err(|error| format!("/var/lib/dpkg: {error}"))?;
    install(installed, &root)?;
    std::env::set_current_dir(&root).map_err(|error| error.to_string())?;
    fs::create_dir("old").map_err(|error| format!("old root: {error}"))?;
    rustix::process::pivot_root(".", "old").map_err(|error| format!("pivot_root: {error}"))?;
    unmount("/old", UnmountFlags::DETACH).map_err(|error| format!("old root: {error}"))?;
    run("ip", &["link", "set", "lo", "up"])?;
    run("systemd-sysusers", &["blockhost.conf"])?;
    run("systemd-tmpfiles", &["--create", "blockhost.conf"])
}

fn fresh(kind: &str, place: &Path) -> Step {
    let options = if kind == "tmpfs" { c"mode=0755" } else { c"" };
    mount(kind, place, kind, MountFlags::empty(), options)
        .map_err(|error| format!("{kind} on {}: {error}", place.display()))
}

/// Copies a tree over the new root; links stay links.
fn install(from: &Path, to: &Path) -> Step {
    run(
        "cp",
        &[
            "-a",
            &format!("{}/.", from.display()),
            &to.display().to_string(),
        ],
    )
}

fn run(program: &str, arguments: &[&str]) -> Step {
    match command(program).args(arguments).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
