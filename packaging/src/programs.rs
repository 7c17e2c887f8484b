//! The programs that BlockHost installs.

use clap::Command;

/// One installed program.
pub struct Program {
    /// File name.
    pub name: &'static str,
    /// Section of the manual: 1 for everybody's commands, 8 for the administrator's and daemons.
    pub section: &'static str,
    /// Its command line.
    pub command: fn() -> Command,
}

const fn program(name: &'static str, section: &'static str, command: fn() -> Command) -> Program {
    Program {
        name,
        section,
        command,
    }
}

/// All of them.
pub const ALL: &[Program] = &[
    program("blockhost-root-agent", "8", blockhost_root_agent::cli::command),
    program("blockhost-qm", "8", blockhost_hypervisor::cli::command),
    program("blockhost-vm-gc", "8", blockhost_gc::cli::command),
    program("bhcrypt", "1", blockhost_engine::cli::bhcrypt::command),
    program("blockhost-mint-nft", "1", blockhost_engine::cli::mint_nft::command),
    program("blockhost-deploy-contracts", "1", blockhost_engine::cli::deploy::command),
];
