//! The switch of a test's world, in user space.

use std::process::Stdio;

use blockhost_proto::layout::Layout;

use super::{Running, SCHEMA, program, run, wait_for};

/// The database and the daemon.
pub fn start_switch(layout: &Layout) -> [Running; 2] {
    let directory = layout.switch_sockets();
    let (file, socket) = (directory.join("conf.db"), directory.join("db.sock"));
    run(&format!("ovsdb-tool create {} {SCHEMA}", file.display()));
    let start = |name: &str, arguments: &[String]| {
        let mut command = program(name);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &directory);
        }
        let log = std::fs::File::create(directory.join(format!("{name}.out"))).expect("a log");
        command
            .args(["--no-chdir", "--pidfile"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Running(command.spawn().expect(name))
    };
    let remote = format!("--remote=punix:{}", socket.display());
    let database = start("ovsdb-server", &[remote, file.display().to_string()]);
    wait_for("ovsdb-server", || {
        std::os::unix::net::UnixStream::connect(&socket).ok()
    });
    run(&format!(
        "ovs-vsctl --no-wait --db=unix:{} init",
        socket.display()
    ));
    let daemon = start("ovs-vswitchd", &[format!("unix:{}", socket.display())]);
    [database, daemon]
}
