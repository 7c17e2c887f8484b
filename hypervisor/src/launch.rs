//! From a configuration to a QEMU command line. QEMU gets every file, tap and socket as an open descriptor: it runs as
//! the machine user, in a seccomp sandbox, and needs no right on any path of ours.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;
use serde_json::{Value, json};

use crate::accel::{self, Kind};
use crate::config::{Props, VmConfig};
use crate::error::{Error, IoContext, Result};
use crate::exec::fd_number;
use crate::host::Host;
use crate::machine::Vmid;
use crate::storage::{Storages, Volume};
use crate::{cloudinit, console, hardware, limits, monitor, net, options};

/// QEMU's program.
pub const QEMU: &str = "qemu-system-x86_64";

/// What a command line refers to: real descriptors for a start, names for `showcmd`.
enum Files {
    Open,
    Show,
}

/// A QEMU command line with the descriptors it refers to.
pub struct Plan {
    /// Arguments after the program name.
    pub args: Vec<String>,
    /// What must be open in QEMU, under the same numbers.
    pub held: Vec<OwnedFd>,
    files: Files,
    sets: u32,
}

impl Plan {
    /// The command line as `showcmd` prints it: paths in place of descriptors, nothing opened or created.
    ///
    /// # Errors
    /// When the configuration cannot be run on this host.
    pub fn show(host: &Host, vmid: Vmid, config: &VmConfig, kind: Kind) -> Result<Self> {
        let mut plan = Plan {
            args: Vec::new(),
            held: Vec::new(),
            files: Files::Show,
            sets: 0,
        };
        plan.build(host, vmid, config, kind)?;
        Ok(plan)
    }

    /// The command line for a start: files opened, sockets listening, taps in their bridges, the seed written.
    ///
    /// # Errors
    /// When any of that fails; what was made goes away with the descriptors.
    pub fn open(host: &Host, vmid: Vmid, config: &VmConfig, kind: Kind) -> Result<Self> {
        let mut plan = Plan {
            args: Vec::new(),
            held: Vec::new(),
            files: Files::Open,
            sets: 0,
        };
        plan.build(host, vmid, config, kind)?;
        Ok(plan)
    }

    fn arg(&mut self, option: &str, value: impl Into<String>) {
        self.args.push(option.to_owned());
        self.args.push(value.into());
    }

    fn hold(&mut self, fd: OwnedFd) -> i32 {
        let number = fd_number(&fd);
        self.held.push(fd);
        number
    }

    /// A name under which QEMU can open this file: `/dev/fdset/N`, or the path when only showing.
    fn file(&mut self, path: &Path, open: impl FnOnce() -> Result<OwnedFd>) -> Result<String> {
        match self.files {
            Files::Show => Ok(path.display().to_string()),
            Files::Open => {
                let fd = self.hold(open()?);
                self.sets += 1;
                let set = self.sets;
                self.arg("-add-fd", format!("fd={fd},set={set}"));
                Ok(format!("/dev/fdset/{set}"))
            }
        }
    }

    /// A `chardev` server on a socket of the run directory.
    fn socket(&mut self, host: &Host, vmid: Vmid, id: &str, name: &str, extra: &str) -> Result<()> {
        let place = match self.files {
            Files::Show => format!("path={}", host.machine_run_dir(vmid).join(name).display()),
            Files::Open => format!(
                "fd={}",
                self.hold(monitor::listen(host, vmid, name)?.into())
            ),
        };
        self.arg(
            "-chardev",
            format!("socket,id={id},{place},server=on,wait=off{extra}"),
        );
        Ok(())
    }

    fn build(&mut self, host: &Host, vmid: Vmid, config: &VmConfig, kind: Kind) -> Result<()> {
        hardware::check_stored(config)?;
        let storages = Storages::load(host)?;
        self.arg(
            "-name",
            format!(
                "guest={},debug-threads=on",
                config.get("name").unwrap_or("VM")
            ),
        );
        self.args
            .extend(["-nodefaults", "-no-user-config"].map(str::to_owned));
        self.arg("-display", "none");
        self.arg(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
        self.machine(config, kind)?;
        self.socket(host, vmid, "qmp", monitor::QMP_SOCKET, "")?;
        self.arg("-mon", "chardev=qmp,mode=control");
        self.console(host, vmid, config)?;
        self.arg("-object", "rng-builtin,id=rng0");
        self.arg("-device", "virtio-rng-pci,rng=rng0");
        if hardware::agent_enabled(config) {
            self.socket(host, vmid, "qga0", monitor::AGENT_SOCKET, "")?;
            self.arg("-device", "virtio-serial-pci,id=qga0-bus");
            self.arg(
                "-device",
                "virtserialport,bus=qga0-bus.0,chardev=qga0,name=org.qemu.guest_agent.0",
            );
        }
        self.drives(host, &storages, vmid, config)?;
        self.cards(vmid, config)
    }

    fn machine(&mut self, config: &VmConfig, kind: Kind) -> Result<()> {
        let machine = match config.get("machine") {
            None | Some("pc") => "pc".to_owned(),
            Some(other) => other.to_owned(),
        };
        // Devices that nobody uses but the firmware and the kernel spend time on.
        let machine =
            format!("{machine},hpet=off,vmport=off,graphics=off,usb=off,dump-guest-core=off");
        self.arg("-machine", machine);
        if config.get("bios").is_some_and(|bios| bios != "seabios") {
            return Err(Error::option(
                "bios",
                "only seabios is supported by this backend",
            ));
        }
        self.accelerator(config, kind)?;
        let (sockets, cores) = (config.number("sockets", 1), config.number("cores", 1));
        self.arg(
            "-smp",
            format!("{},sockets={sockets},cores={cores}", sockets * cores),
        );
        self.arg("-m", format!("{}M", config.number("memory", 512)));
        if let Some(uuid) = config
            .get("smbios1")
            .map(Props::parse)
            .and_then(|props| props.get("uuid").map(str::to_owned))
        {
            self.arg("-smbios", format!("type=1,uuid={uuid}"));
        }
        self.arg("-boot", "menu=off,strict=on,reboot-timeout=1000");
        self.arg("-rtc", "base=utc");
        match config.get("vga") {
            Some("std") => self.arg("-device", "VGA"),
            Some("cirrus") => self.arg("-device", "cirrus-vga"),
            Some("virtio") => self.arg("-device", "virtio-vga"),
            Some("vmware") => self.arg("-device", "vmware-svga"),
            Some("qxl") => {
                return Err(Error::option(
                    "vga",
                    "qxl is not supported by this backend; use std or virtio",
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn accelerator(&mut self, config: &VmConfig, kind: Kind) -> Result<()> {
        let asked = config.get("cpu").map(Props::parse).unwrap_or_default();
        let model = asked.head.as_deref().or_else(|| asked.get("cputype"));
        let flags = asked
            .get("flags")
            .unwrap_or_default()
            .split(';')
            .filter(|flag| !flag.is_empty());
        let flags: String = flags
            .map(|flag| match flag.split_at_checked(1) {
                Some(("+", name)) => format!(",{name}=on"),
                Some((_, name)) => format!(",{name}=off"),
                None => String::new(),
            })
            .collect();
        let cpu = match (kind, model) {
            (Kind::Kvm, None) => "host",
            (Kind::Kvm, Some(model)) => hardware::proxmox_model(model),
            // Models that stand for "what the processor has": under TCG that is everything that can be translated.
            (
                Kind::Tcg,
                None | Some("host" | "kvm64" | "x86-64-v2-AES" | "x86-64-v3" | "x86-64-v4"),
            ) => hardware::TCG_CPU,
            (Kind::Tcg, Some(model)) => hardware::proxmox_model(model),
        };
        match kind {
            Kind::Kvm => {
                let device = self.file(Path::new("/dev/kvm"), || {
                    accel::open_kvm().at("cannot open", "/dev/kvm")
                })?;
                self.arg("-accel", format!("kvm,device={device}"));
            }
            Kind::Tcg => self.arg("-accel", "tcg,thread=multi,tb-size=512"),
        }
        self.arg("-cpu", format!("{cpu}{flags}"));
        Ok(())
    }

    /// First serial port: always in the log; with `serial0: socket` also on a socket.
    fn console(&mut self, host: &Host, vmid: Vmid, config: &VmConfig) -> Result<()> {
        let log = host.machine_run_dir(vmid).join(console::LOGS[0]);
        let name = self.file(&log, || {
            console::start(host, vmid, host.machine_user()?, console::LOGS).map(|(log, _)| log)
        })?;
        if config.get("serial0").is_some() {
            let extra = format!(",logfile={name},logappend=on");
            self.socket(host, vmid, "serial0", monitor::SERIAL_SOCKET, &extra)?;
        } else {
            self.arg("-chardev", format!("file,id=serial0,path={name},append=on"));
        }
        self.arg("-device", "isa-serial,chardev=serial0");
        Ok(())
    }

    fn drives(
        &mut self,
        host: &Host,
        storages: &Storages,
        vmid: Vmid,
        config: &VmConfig,
    ) -> Result<()> {
        let drives = config.drives();
        let order = hardware::boot_order(config);
        if drives.iter().any(|(key, _)| key.starts_with("scsi")) {
            self.arg(
                "-device",
                format!("{},id=scsihw0", hardware::scsi_controller(config)?),
            );
        }
        if drives.iter().any(|(key, _)| key.starts_with("sata")) {
            self.arg("-device", "ich9-ahci,id=ahci0");
        }
        for (key, value) in &drives {
            let props = Props::parse(value);
            let volume = options::volume_of(value).ok_or_else(|| {
                Error::option(
                    key.as_str(),
                    format!("stored value '{}' names no volume", value.escape_default()),
                )
            })?;
            let boot = order
                .iter()
                .position(|name| name == key)
                .map(|at| format!(",bootindex={}", 100 + at))
                .unwrap_or_default();
            if volume.is_cloudinit() {
                self.seed(
                    host,
                    vmid,
                    config,
                    key,
                    !drives.iter().any(|(key, _)| key.starts_with("scsi")),
                )?;
            } else {
                self.disk(storages, key, &volume, &props)?;
                let device = hardware::device_of(config, key, props.get("media") == Some("cdrom"))?;
                let ssd = if props.get("ssd") == Some("1") && !key.starts_with("virtio") {
                    ",rotation_rate=1"
                } else {
                    ""
                };
                self.arg(
                    "-device",
                    format!("{device},drive=drive-{key},id={key},serial=drive-{key}{boot}{ssd}"),
                );
            }
        }
        Ok(())
    }

    /// A node of the block layer, as JSON: nothing in it can be read as another option.
    fn blockdev(&mut self, node: &serde_json::Value) {
        self.arg("-blockdev", node.to_string());
    }

    /// The chain of nodes of one disk, from the template's file up. Nothing is probed: every format is spelled out.
    fn disk(
        &mut self,
        storages: &Storages,
        key: &str,
        volume: &Volume,
        props: &Props,
    ) -> Result<()> {
        let mut backing = Value::Null;
        if let Some(base) = volume.backing() {
            let file = self.file(&storages.path(&base)?, || {
                storages.open(&base, OFlags::RDONLY)
            })?;
            let (name, below) = (format!("base-{key}"), format!("file-{key}-base"));
            self.blockdev(&json!({ "driver": "file", "node-name": below, "filename": file, "read-only": true, "auto-read-only": false }));
            self.blockdev(&json!({ "driver": "qcow2", "node-name": name, "file": below, "read-only": true, "backing": null }));
            backing = name.into();
        }
        let readonly = props.get("ro") == Some("1") || props.get("media") == Some("cdrom");
        let mode = if readonly {
            OFlags::RDONLY
        } else {
            OFlags::RDWR
        };
        let file = self.file(&storages.path(volume)?, || storages.open(volume, mode))?;
        let cache = props.get("cache");
        let shared = json!({
            "read-only": readonly,
            "cache": { "direct": matches!(cache, Some("none" | "directsync")), "no-flush": cache == Some("unsafe") },
            "discard": if props.get("discard") == Some("on") { "unmap" } else { "ignore" },
        });
        let node = |parts: Value| {
            let mut node = shared.clone();
            if let (Some(node), Value::Object(parts)) = (node.as_object_mut(), parts) {
                node.extend(parts);
            }
            node
        };
        let below = format!("file-{key}");
        self.blockdev(&node(json!({ "driver": "file", "node-name": below, "filename": file, "auto-read-only": false })));
        let (reads, writes) = (
            hardware::limit(props, "iops_rd"),
            hardware::limit(props, "iops_wr"),
        );
        if props.get("media") == Some("cdrom") {
            self.blockdev(&node(json!({ "driver": "qcow2", "node-name": format!("drive-{key}"), "file": below, "backing": backing })));
            return Ok(());
        }
        self.blockdev(&node(
            json!({ "driver": "qcow2", "node-name": format!("format-{key}"), "file": below, "backing": backing }),
        ));
        // There without limits, too (0 is none): [`crate::limits`] changes them while the machine runs.
        let group = limits::group(key);
        self.arg(
            "-object",
            format!("throttle-group,id={group},x-iops-read={reads},x-iops-write={writes}"),
        );
        self.blockdev(&json!({ "driver": "throttle", "node-name": format!("drive-{key}"), "throttle-group": group, "file": format!("format-{key}") }));
        Ok(())
    }

    /// The cloud-init drive. Whatever bus it is configured on, it is attached where Debian's cloud kernel finds it
    /// without further drivers: beside the disks on virtio-scsi, or as virtio-blk.
    fn seed(
        &mut self,
        host: &Host,
        vmid: Vmid,
        config: &VmConfig,
        key: &str,
        as_blk: bool,
    ) -> Result<()> {
        let path = host.machine_run_dir(vmid).join(cloudinit::SEED);
        let file = self.file(&path, || {
            cloudinit::write_iso(host, vmid, &cloudinit::build(host, vmid, config)?)
        })?;
        let (name, below) = (format!("drive-{key}"), format!("file-{key}"));
        self.blockdev(&json!({ "driver": "file", "node-name": below, "filename": file, "read-only": true, "auto-read-only": false }));
        self.blockdev(
            &json!({ "driver": "raw", "node-name": name, "file": below, "read-only": true }),
        );
        let device = if as_blk {
            "virtio-blk-pci"
        } else {
            "scsi-hd,bus=scsihw0.0,scsi-id=100,lun=0"
        };
        self.arg(
            "-device",
            format!("{device},drive={name},id={key},serial={name}"),
        );
        Ok(())
    }

    fn cards(&mut self, vmid: Vmid, config: &VmConfig) -> Result<()> {
        let order = hardware::boot_order(config);
        for (index, card) in net::cards(config)? {
            let key = format!("net{index}");
            let place = match self.files {
                Files::Show => format!(
                    "ifname={},script=no,downscript=no",
                    net::tap_name(vmid, index)
                ),
                Files::Open => {
                    let ip = net::addresses(config, index)?;
                    format!("fd={}", self.hold(net::plug(vmid, index, &card, ip)?))
                }
            };
            self.arg("-netdev", format!("tap,id={key},{place}"));
            let model = match card.model.as_str() {
                "virtio" => "virtio-net-pci",
                other => other,
            };
            let mac = card
                .mac
                .map(|mac| format!(",mac={mac}"))
                .unwrap_or_default();
            let boot = match order.iter().position(|name| *name == key) {
                Some(at) => format!(",bootindex={}", 100 + at),
                // Without network boot the option ROM only costs time.
                None => ",romfile=".to_owned(),
            };
            let mtu = match card.mtu {
                Some(mtu) if mtu > 1 && model == "virtio-net-pci" => format!(",host_mtu={mtu}"),
                _ => String::new(),
            };
            self.arg(
                "-device",
                format!("{model},netdev={key},id={key}{mac}{boot}{mtu}"),
            );
        }
        Ok(())
    }
}
