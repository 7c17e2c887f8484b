//! The programs that BlockHost installs.

use clap::Command;

/// One installed program.
pub struct Program {
    /// Section of the manual: 1 for commands, 8 for daemons and what only they start.
    pub section: &'static str,
    /// Its command line; it knows the name.
    pub command: Command,
}

impl Program {
    /// File name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.command.get_name()
    }
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Program> {
    let daemons = [
        blockhost_root_agent::cli::command(),
        blockhost_hypervisor::cli::command(),
        blockhost_hypervisor::container::cli::command(),
        blockhost_hypervisor::keeper::command(),
        blockhost_engine::cli::engine::command(),
        blockhost_engine::cli::bus::command(),
        blockhost_engine::cli::net_revert::command(),
        blockhost_gc::cli::command(),
        blockhost_witness::cli::command(),
    ];
    let commands = [
        blockhost_engine::cli::operator::command(),
        blockhost_engine::cli::bhcrypt::command(),
        blockhost_engine::cli::mint_nft::command(),
        blockhost_engine::cli::deploy::command(),
        blockhost_engine::cli::generate_signup::command(),
        blockhost_engine::cli::bw::command(),
        blockhost_engine::cli::ab::command(),
        blockhost_engine::cli::is::command(),
    ];
    let of = |section| move |command| Program { section, command };
    daemons
        .into_iter()
        .map(of("8"))
        .chain(commands.into_iter().map(of("1")))
        .chain(
            blockhost_provisioner::cli::commands()
                .into_iter()
                .map(of("1")),
        )
        .collect()
}
