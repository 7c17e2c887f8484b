//! System call filters as lists. Processes that never start a program have a list of what they may call, and die at
//! the first other call; processes that do have a list of what neither they nor anything they start may call.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::calls::{
    CONNECTING, CONNECTING_OLD, Condition, ENTERING, FILES, FILES_OLD, Judged, LIFE, LIFE_OLD,
    MODEST_FILES, NAMESPACES, NETWORK_NAMESPACE, OTHERS, SERVING, SPAWNING, SPAWNING_OLD,
    TAMPERING, TAMPERING_PORTS, THREADING, THREADS, families,
};
pub use super::calls::{Call, Family, NETLINK, UNIX, UNIX_AND_INTERNET};
use crate::compartment::Backend;

/// Which sockets may be made; others are refused with `EAFNOSUPPORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Families {
    Any,
    AllBut(&'static [Family]),
    Only(&'static [Family]),
}

/// A filter before compilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    calls: Vec<Call>,
    kind: Kind,
    judged: &'static [Judged],
    families: Families,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Everything not listed kills the process.
    Only,
    /// Everything listed fails with `EPERM`.
    AllBut,
}

impl Condition {
    fn compile(self) -> Result<SeccompCondition, seccompiler::Error> {
        let (argument, comparison, value) = match self {
            Self::Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
            Self::IsNot(argument, value) => (argument, SeccompCmpOp::Ne, value),
            Self::Masked(argument, mask, value) => (argument, SeccompCmpOp::MaskedEq(mask), value),
        };
        // Each of these arguments is an int or fits one.
        Ok(SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            comparison,
            value,
        )?)
    }
}

impl Judged {
    fn compile(&self) -> Result<Vec<SeccompRule>, seccompiler::Error> {
        let rule = |case: &&[Condition]| {
            let conditions = case.iter().map(|condition| condition.compile());
            Ok(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?)
        };
        self.cases.iter().map(rule).collect()
    }
}

impl Filter {
    fn new(kind: Kind, lists: &[&[Call]]) -> Self {
        let mut calls: Vec<_> = lists.concat();
        calls.sort_unstable();
        calls.dedup();
        Self {
            calls,
            kind,
            judged: match kind {
                Kind::Only => &[],
                Kind::AllBut => OTHERS,
            },
            families: Families::Any,
        }
    }

    /// The front: connections and nothing else.
    pub fn sockets_only() -> Self {
        Self::new(Kind::Only, &[LIFE, LIFE_OLD, SERVING])
    }

    /// Ledger: files, no sockets of their own, no programs.
    pub fn files_only() -> Self {
        Self {
            judged: THREADS,
            ..Self::new(Kind::Only, &[LIFE, LIFE_OLD, FILES, FILES_OLD, THREADING])
        }
    }

    /// Keys: the same, and no file is made writable for others, a program, or another user's when it runs.
    pub fn modest_files_only() -> Self {
        const WITH_MODES: [&str; 5] = ["open", "openat", "openat2", "mkdir", "mkdirat"];
        let mut filter = Self {
            judged: MODEST_FILES,
            ..Self::files_only()
        };
        filter
            .calls
            .retain(|call| call.number != libc::SYS_fchmod && !WITH_MODES.contains(&call.name()));
        filter
    }

    /// Ovs: connections to unix sockets, no files, no programs.
    pub fn unix_clients() -> Self {
        Self {
            judged: THREADS,
            families: Families::Only(UNIX),
            ..Self::new(
                Kind::Only,
                &[LIFE, LIFE_OLD, CONNECTING, CONNECTING_OLD, THREADING],
            )
        }
    }

    /// Attach: other network namespaces and netlink in them, and nothing else. No signal either, not even to a thread of
    /// its own: where there are no Landlock scopes, that would reach others of its user.
    pub fn network_namespaces() -> Self {
        let mut filter = Self {
            judged: NETWORK_NAMESPACE,
            families: Families::Only(NETLINK),
            ..Self::new(Kind::Only, &[LIFE, LIFE_OLD, ENTERING])
        };
        filter.calls.retain(|call| call.number != libc::SYS_tgkill);
        filter
    }

    /// Net: programs, but no way to a unix socket of the host, which Landlock below ABI 9 does not guard.
    pub fn no_unix_sockets() -> Self {
        let mut filter = Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS, NAMESPACES]);
        filter.families = Families::AllBut(families![
            AF_UNIX,
            AF_VSOCK,
            AF_PACKET,
            AF_BLUETOOTH,
            AF_ALG
        ]);
        filter
    }

    /// Net where tunnels are a daemon's: its control socket is a unix socket. The agent turns its own users away, so its
    /// own socket stays closed to this process.
    pub fn unix_sockets_for_tunnels() -> Self {
        let mut filter = Self::no_unix_sockets();
        filter.families = Families::AllBut(families![AF_VSOCK, AF_PACKET, AF_BLUETOOTH, AF_ALG]);
        filter
    }

    /// A program that is run: nothing that changes the kernel, and no sockets but of these families.
    pub fn program(sockets: &'static [Family]) -> Self {
        let mut filter = Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS, NAMESPACES]);
        filter.families = Families::Only(sockets);
        filter
    }

    /// The same for a program that starts no others.
    pub fn lone_program(sockets: &'static [Family]) -> Self {
        let mut filter = Self::new(
            Kind::AllBut,
            &[
                TAMPERING,
                TAMPERING_PORTS,
                NAMESPACES,
                SPAWNING,
                SPAWNING_OLD,
            ],
        );
        filter.families = Families::Only(sockets);
        filter
    }

    /// Whether the calls named are the only ones (else: all but those), and their names.
    pub fn calls(&self) -> (bool, impl Iterator<Item = &'static str>) {
        let only = self.kind == Kind::Only;
        let judged = self.judged.iter().map(|judged| judged.name);
        (
            only,
            self.calls.iter().map(|call| call.name()).chain(judged),
        )
    }

    /// Which sockets may be made, in words.
    pub fn sockets(&self) -> String {
        let names = |list: &[Family]| {
            let names: Vec<&str> = list.iter().map(|family| family.name).collect();
            names.join(", ")
        };
        let makes = |call: &Call| call.number == libc::SYS_socket;
        let mut called = self
            .calls
            .iter()
            .chain(self.judged.iter().map(|judged| &judged.call));
        match self.families {
            _ if self.kind == Kind::Only && !called.any(makes) => "none".to_owned(),
            Families::Only([]) => "none".to_owned(),
            Families::Only(list) => format!("only {}", names(list)),
            Families::AllBut(list) => format!("any but {}", names(list)),
            Families::Any => "any".to_owned(),
        }
    }

    /// Vm: what QEMU and its helpers need stays; what changes the kernel goes.
    pub fn no_kernel_tampering(backend: Backend) -> Self {
        match backend {
            // Proxmox's storage layer mounts and uses namespaces.
            Backend::Proxmox => Self {
                judged: &[],
                ..Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS])
            },
            Backend::Embedded => Self {
                families: Families::AllBut(families![AF_VSOCK, AF_BLUETOOTH, AF_ALG]),
                ..Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS, NAMESPACES])
            },
        }
    }

    /// The programs to load, in this order.
    ///
    /// # Errors
    /// When this architecture is not known to the compiler.
    pub fn compile(&self) -> Result<Vec<BpfProgram>, seccompiler::Error> {
        let arch =
            TargetArch::try_from(std::env::consts::ARCH).map_err(seccompiler::Error::Backend)?;
        let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let (mismatch, matched) = match self.kind {
            Kind::Only => (SeccompAction::KillProcess, SeccompAction::Allow),
            Kind::AllBut => (SeccompAction::Allow, eperm),
        };
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for judged in self.judged {
            rules.insert(judged.call.number, judged.compile()?);
        }
        // Without conditions the verdict is on every such call.
        rules.extend(self.calls.iter().map(|call| (call.number, Vec::new())));
        let mut programs: Vec<BpfProgram> = Vec::new();
        if self.kind == Kind::AllBut {
            programs.push(no_second_numbers());
        }
        if !self.judged.is_empty() {
            // Its flags are in memory, where no filter looks. Told that it does not exist, the C library takes `clone`.
            let action = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
            let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
            programs
                .push(SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()?);
        }
        let family = |family: &Family, comparison| {
            let number = u64::from(family.number.unsigned_abs());
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, comparison, number)
        };
        let refused: Vec<SeccompRule> = match self.families {
            Families::Any => Vec::new(),
            Families::AllBut(list) => list
                .iter()
                .map(|f| SeccompRule::new(vec![family(f, SeccompCmpOp::Eq)?]))
                .collect::<Result<_, _>>()?,
            // All conditions of one rule have to hold: it is none of them.
            Families::Only(list @ [_, ..]) => vec![SeccompRule::new(
                list.iter()
                    .map(|f| family(f, SeccompCmpOp::Ne))
                    .collect::<Result<_, _>>()?,
            )?],
            Families::Only([]) => Vec::new(),
        };
        if self.families == Families::Only(&[]) || !refused.is_empty() {
            // A second, earlier filter: the verdicts of all filters are combined, the strictest wins. An empty list of
            // conditions holds always.
            let action = SeccompAction::Errno(libc::EAFNOSUPPORT.unsigned_abs());
            let rules = BTreeMap::from([(libc::SYS_socket, refused)]);
            programs
                .push(SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()?);
        }
        programs.push(SeccompFilter::new(rules, mismatch, matched, arch)?.try_into()?);
        Ok(programs)
    }
}

/// Refuses, with `EPERM`, every call whose number has the bit of x86's third table (x32): a kernel with that table knows each
/// call under a second number, which a list of refused numbers does not have. Elsewhere no call has such a number.
fn no_second_numbers() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let statement = |code: u32, k: u32| sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: 0,
        jf: 0,
        k,
    };
    // The number is the first word of what a filter sees.
    let load = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let at_least = sock_filter {
        jf: 1,
        ..statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32)
    };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    let end = |verdict| statement(libc::BPF_RET | libc::BPF_K, verdict);
    vec![load, at_least, end(refuse), end(libc::SECCOMP_RET_ALLOW)]
}

/// Puts the filter in force for this thread and everything it starts.
///
/// # Errors
/// When it does not compile or the kernel refuses it.
pub fn apply(filter: &Filter) -> io::Result<()> {
    let programs = filter.compile().map_err(io::Error::other)?;
    for program in &programs {
        seccompiler::apply_filter(program).map_err(io::Error::other)?;
    }
    Ok(())
}
