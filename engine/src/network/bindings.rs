//! Which interface of which container hangs where, as files for Proxmox's side and for people:
//! `/var/lib/blockhost/bindings/vm-<vmid>/vi<vmid>.conf` and a link of the same name into `/sys/class/net`. Written whole or
//! not at all, without privileges. The truth is the switch; these files say what was made through the bus service.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use blockhost_proto::layout::Layout;
use blockhost_proto::value::{EventName, IfIndex, SwitchIfName, Vmid};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// A binding's file is shorter; a longer one is not of ours.
const MAX_BYTES: u64 = 4096;

/// One interface of a container and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The container.
    pub vmid: Vmid,
    /// Which of its interfaces; the first is 0.
    pub index: IfIndex,
    /// The host's end, by its first name: `veth100i0`.
    pub device: SwitchIfName,
    /// The bridge.
    pub bridge: SwitchIfName,
    /// What the container is called.
    pub container: EventName,
    /// When it was made, RFC 3339 in whole seconds.
    pub created: String,
}

/// What could not be done with which file.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {errno}; see that the directory belongs to the user that runs this", path.display())]
pub struct BindingError {
    doing: &'static str,
    path: PathBuf,
    errno: Errno,
}

/// `vi<vmid>`, or `vi<vmid>_<index>` for all but the first: the name that people and Proxmox know an interface by.
#[must_use]
pub fn interface_name(vmid: Vmid, index: IfIndex) -> String {
    match index.get() {
        0 => format!("vi{vmid}"),
        index => format!("vi{vmid}_{index}"),
    }
}

impl Binding {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        interface_name(self.vmid, self.index)
    }

    /// The file's text. Every value is of a type that has no newline.
    #[must_use]
    pub fn text(&self) -> String {
        let (name, vmid) = (self.name(), self.vmid);
        let mut text =
            format!("# Interface {name} of container {vmid}, written by blockhost-bus\n");
        let _ = writeln!(text, "[interface.{name}]\ntype: veth");
        for (key, value) in [
            ("bridge", self.bridge.as_str()),
            ("container", self.container.as_str()),
            ("proxmox-veth", self.device.as_str()),
            ("ovs-interface", self.device.as_str()),
            ("created", &self.created),
        ] {
            let _ = writeln!(text, "{key}: {value}");
        }
        text
    }

    /// Reads a file back; `None` for what this module would not have written.
    #[must_use]
    pub fn read(name: &str, text: &str) -> Option<Self> {
        let (vmid, index) = parse_name(name)?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        };
        let created = value("created")?;
        let dated = created.len() <= 40 && created.bytes().all(|b| b.is_ascii_graphic());
        dated.then_some(())?;
        Some(Self {
            vmid,
            index,
            device: value("ovs-interface")?.parse().ok()?,
            bridge: value("bridge")?.parse().ok()?,
            container: value("container")?.parse().ok()?,
            created: created.to_owned(),
        })
    }
}

/// What `vi<vmid>` or `vi<vmid>_<index>` names; in the one form that [`interface_name`] gives.
#[must_use]
pub fn parse_name(name: &str) -> Option<(Vmid, IfIndex)> {
    use blockhost_proto::value::Integer as _;
    let (vmid, index) = match name.strip_prefix("vi")?.split_once('_') {
        Some((vmid, index)) => (vmid, IfIndex::from_decimal(index)?),
        None => (name.strip_prefix("vi")?, IfIndex::from_checked(0)?),
    };
    let vmid = Vmid::from_decimal(vmid)?;
    (interface_name(vmid, index) == name).then_some((vmid, index))
}

/// `/var/lib/blockhost/bindings`.
#[must_use]
pub fn directory(layout: &Layout) -> PathBuf {
    layout.state().join("bindings")
}

/// An open directory and its path for messages. Everything below it is opened relative to it and no link is followed.
struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Dir {
    fn top(layout: &Layout) -> Result<Option<Self>, BindingError> {
        let path = directory(layout);
        match rustix::fs::openat(CWD, &path, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(BindingError {
                doing: "opening",
                path,
                errno,
            }),
        }
    }

    fn make_top(layout: &Layout) -> Result<Self, BindingError> {
        if let Some(top) = Self::top(layout)? {
            return Ok(top);
        }
        let path = directory(layout);
        match rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                return Err(BindingError {
                    doing: "making",
                    path,
                    errno,
                });
            }
        }
        Self::top(layout)?.ok_or(BindingError {
            doing: "opening",
            path,
            errno: Errno::NOENT,
        })
    }

    fn error(&self, doing: &'static str, name: &str) -> impl FnOnce(Errno) -> BindingError {
        let path = self.path.join(name);
        move |errno| BindingError { doing, path, errno }
    }

    fn sub(&self, name: &str) -> Result<Option<Self>, BindingError> {
        match rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Some(Self {
                fd,
                path: self.path.join(name),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error("opening", name)(errno)),
        }
    }

    fn make_sub(&self, name: &str) -> Result<Self, BindingError> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.error("making", name)(errno)),
        }
        self.sub(name)?
            .ok_or_else(|| self.error("opening", name)(Errno::NOENT))
    }

    /// Removes a file or link; whether there was one.
    fn remove(&self, name: &str) -> Result<bool, BindingError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.error("removing", name)(errno)),
        }
    }

    /// Puts what `make` makes under a passing name in the place of `name`.
    fn replace(
        &self,
        name: &str,
        make: impl FnOnce(&str) -> Result<(), Errno>,
    ) -> Result<(), BindingError> {
        let passing = format!(".{name}.new");
        // Of a writer that was killed.
        self.remove(&passing)?;
        let made =
            make(&passing).and_then(|()| rustix::fs::renameat(&self.fd, &passing, &self.fd, name));
        made.map_err(|errno| {
            // A full disk leaves nothing lying about.
            let _ = self.remove(&passing);
            self.error("writing", name)(errno)
        })
    }

    fn sync(&self) -> Result<(), BindingError> {
        rustix::fs::fsync(&self.fd).map_err(self.error("making durable", "."))
    }

    fn names(&self) -> Result<Vec<String>, BindingError> {
        let entries = rustix::fs::Dir::read_from(&self.fd).map_err(self.error("listing", "."))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(self.error("listing", "."))?;
            // Names of ours are plain.
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }
}

fn write_file(dir: impl AsFd, name: &str, text: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Writes a binding: the file first, then the link. Again with the same changes nothing; killed in between, the next one
/// completes it.
///
/// # Errors
/// [`BindingError`]; what was there before is there still.
pub fn write(layout: &Layout, binding: &Binding) -> Result<(), BindingError> {
    let top = Dir::make_top(layout)?;
    let dir = top.make_sub(&format!("vm-{}", binding.vmid))?;
    let name = binding.name();
    let text = binding.text();
    dir.replace(&format!("{name}.conf"), |passing| {
        write_file(&dir.fd, passing, &text)
    })?;
    let target = format!("/sys/class/net/{}", binding.device);
    dir.replace(&name, |passing| {
        rustix::fs::symlinkat(&target, &dir.fd, passing)
    })?;
    dir.sync()?;
    top.sync()
}

/// Removes a binding: the link first, so that nothing points nowhere. Whether there was one.
///
/// # Errors
/// [`BindingError`].
pub fn remove(layout: &Layout, vmid: Vmid, index: IfIndex) -> Result<bool, BindingError> {
    let Some(top) = Dir::top(layout)? else {
        return Ok(false);
    };
    let of = format!("vm-{vmid}");
    let Some(dir) = top.sub(&of)? else {
        return Ok(false);
    };
    let name = interface_name(vmid, index);
    let link = dir.remove(&name)?;
    let file = dir.remove(&format!("{name}.conf"))?;
    dir.sync()?;
    // Others of the same container keep it.
    match rustix::fs::unlinkat(&top.fd, &of, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
        Err(errno) => return Err(top.error("removing", &of)(errno)),
    }
    top.sync()?;
    Ok(link || file)
}

/// All bindings, by container and interface. Files that are not of this form are passed over.
///
/// # Errors
/// [`BindingError`] where the directory cannot be read.
pub fn list(layout: &Layout) -> Result<Vec<Binding>, BindingError> {
    let Some(top) = Dir::top(layout)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for of in top.names()?.iter().filter(|name| name.starts_with("vm-")) {
        let Ok(Some(dir)) = top.sub(of) else {
            continue;
        };
        for name in dir.names()? {
            let Some(name) = name.strip_suffix(".conf") else {
                continue;
            };
            let binding = read_file(&dir, name).and_then(|text| Binding::read(name, &text));
            found.extend(binding.filter(|binding| *of == format!("vm-{}", binding.vmid)));
        }
    }
    found.sort_by_key(|binding| (binding.vmid, binding.index));
    Ok(found)
}

fn read_file(dir: &Dir, name: &str) -> Option<String> {
    // A pipe in its place must not hold us up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&dir.fd, format!("{name}.conf"), flags, Mode::empty()).ok()?;
    let mut text = String::new();
    std::fs::File::from(fd)
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .ok()
        .filter(|read| *read as u64 <= MAX_BYTES)?;
    Some(text)
}

/// The binding whose interface or device has this name.
///
/// # Errors
/// [`BindingError`].
pub fn find(layout: &Layout, name: &str) -> Result<Option<Binding>, BindingError> {
    Ok(list(layout)?
        .into_iter()
        .find(|binding| binding.name() == name || binding.device.as_str() == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn world() -> (tempfile::TempDir, Layout) {
        let root = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(root.path());
        std::fs::create_dir_all(layout.state()).expect("a directory");
        (root, layout)
    }

    fn number<T: TryFrom<u64>>(number: u64) -> T
    where
        T::Error: std::fmt::Debug,
    {
        T::try_from(number).expect("in range")
    }

    fn binding(index: u64) -> Binding {
        Binding {
            vmid: number(100),
            index: number(index),
            device: format!("veth100i{index}").parse().expect("a name"),
            bridge: "ovsbr0".parse().expect("a name"),
            container: "web-1".parse().expect("a name"),
            created: "2026-11-28T10:00:00Z".to_owned(),
        }
    }

    #[test]
    fn a_binding_is_a_file_and_a_link_into_sys_and_reads_back() {
        let (_root, layout) = world();
        write(&layout, &binding(0)).expect("written");
        write(&layout, &binding(0)).expect("again");
        write(&layout, &binding(2)).expect("a second interface");
        let place = directory(&layout).join("vm-100");
        let target = std::fs::read_link(place.join("vi100")).expect("a link");
        assert_eq!(target, Path::new("/sys/class/net/veth100i0"));
        let text = std::fs::read_to_string(place.join("vi100_2.conf")).expect("a file");
        assert!(
            text.contains("[interface.vi100_2]\ntype: veth\nbridge: ovsbr0\n"),
            "{text}"
        );
        assert_eq!(list(&layout).expect("read"), [binding(0), binding(2)]);
        let by_device = find(&layout, "veth100i2").expect("read");
        assert_eq!(by_device, Some(binding(2)));

        assert!(remove(&layout, number(100), number(0)).expect("removed"));
        assert!(!remove(&layout, number(100), number(0)).expect("nothing left"));
        assert_eq!(list(&layout).expect("read"), [binding(2)]);
        assert!(remove(&layout, number(100), number(2)).expect("removed"));
        assert!(!place.exists(), "the last one takes the directory along");
    }

    #[test]
    fn a_half_written_binding_of_a_killed_writer_is_no_binding_and_in_nobodys_way() {
        let (_root, layout) = world();
        let place = directory(&layout).join("vm-100");
        std::fs::create_dir_all(&place).expect("a directory");
        std::fs::write(place.join(".vi100.conf.new"), "[interface.vi1").expect("half a file");
        std::os::unix::fs::symlink("/nowhere", place.join(".vi100.new")).expect("half a link");
        assert_eq!(list(&layout).expect("read"), []);
        write(&layout, &binding(0)).expect("written");
        assert_eq!(list(&layout).expect("read"), [binding(0)]);
        let left = std::fs::read_dir(&place).expect("a directory").count();
        assert_eq!(left, 2, "only the file and its link");
    }

    #[test]
    fn links_pipes_and_foreign_texts_are_neither_followed_nor_taken_for_bindings() {
        let (root, layout) = world();
        let place = directory(&layout).join("vm-100");
        std::fs::create_dir_all(&place).expect("a directory");
        let elsewhere = root.path().join("elsewhere");
        std::fs::write(&elsewhere, binding(0).text()).expect("a file");
        std::os::unix::fs::symlink(&elsewhere, place.join("vi100.conf")).expect("a link");
        rustix::fs::mknodat(
            CWD,
            place.join("vi100_1.conf"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a pipe");
        std::fs::write(place.join("vi100_3.conf"), "x".repeat(1 << 20)).expect("a file");
        std::fs::write(place.join("vi101.conf"), binding(0).text()).expect("another's number");
        let forged = binding(0).text().replace("ovsbr0", "../../etc");
        std::fs::write(place.join("vi100_4.conf"), forged).expect("a file");
        assert_eq!(list(&layout).expect("read"), []);

        // A directory that is a link leads nowhere.
        std::fs::remove_dir_all(&place).expect("removed");
        let outside = root.path().join("outside");
        std::fs::create_dir(&outside).expect("a directory");
        std::os::unix::fs::symlink(&outside, &place).expect("a link");
        write(&layout, &binding(0)).expect_err("not through a link");
        assert_eq!(std::fs::read_dir(&outside).expect("a directory").count(), 0);
    }

    #[test]
    fn only_the_one_form_of_a_name_is_a_name() {
        let parsed = |name| parse_name(name).map(|(vmid, index)| (vmid.get(), index.get()));
        assert_eq!(parsed("vi100"), Some((100, 0)));
        assert_eq!(parsed("vi999999_31"), Some((999_999, 31)));
        for bad in [
            "vi",
            "vi99",
            "vi0100",
            "vi100_0",
            "vi100_32",
            "vi100_01",
            "vi100_",
            "veth100i0",
            "vi100\n",
            "vi+100",
        ] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }
}
