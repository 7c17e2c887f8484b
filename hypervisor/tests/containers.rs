//! Containers from creation to destruction: `blockhost-pct`, the service, real LXC.

mod container_world;

use container_world::{NEW, World, packed};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2mSbTmfL0yJ0Yx5b5lQ9PZ3O8wq3E6m7yqk5Yw1p8k me@here";

#[test]
fn a_container_lives_from_its_creation_to_its_destruction() {
    let Some(world) = World::new() else { return };
    assert_eq!(world.ok(&["list"]), "");
    world.container(
        "100",
        &[
            "--hostname",
            "web-1",
            "--memory",
            "256",
            "--ssh-public-keys",
            KEY,
            "--nameserver",
            "10.9.0.1",
            "--searchdomain",
            "example.org",
            "--description",
            "one: two",
            "--onboot",
            "1",
        ],
    );
    let config = world.ok(&["config", "100"]);
    for line in [
        "hostname: web-1\n",
        "memory: 256\n",
        "swap: 512\n",
        "unprivileged: 1\n",
        "rootfs: local:100/subvol-100-disk-0.subvol,size=1G\n",
        "description: one%3A two\n",
    ] {
        assert!(config.contains(line), "{line} in {config}");
    }
    assert!(
        !config.contains("ssh-"),
        "keys are the container's: {config}"
    );
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
    assert!(
        world
            .fails(3, &["exec", "100", "--", "true"])
            .contains("CT 100 not running")
    );

    world.ok(&["start", "100"]);
    assert_eq!(world.ok(&["status", "100"]), "status: running\n");
    assert_eq!(
        world.ok(&["list"]),
        "VMID       Status     Lock         Name                \n100        running                 web-1               \n"
    );
    assert!(
        world
            .pct(&["start", "100"])
            .errors
            .contains("already running")
    );
    assert_eq!(
        world.shell("100", "hostname; cat /etc/hostname"),
        "web-1\nweb-1\n"
    );
    assert_eq!(
        world.shell("100", "cat /etc/resolv.conf"),
        "search example.org\nnameserver 10.9.0.1\n"
    );
    assert_eq!(
        world
            .shell(
                "100",
                "cat /root/.ssh/authorized_keys; stat -c %a /root/.ssh /root/.ssh/authorized_keys"
            )
            .trim(),
        format!("{KEY}\n700\n600")
    );
    assert!(
        world
            .fails(3, &["destroy", "100"])
            .contains("unable to destroy CT 100 - container is running")
    );
    world.ok(&["shutdown", "100", "--timeout", "180"]);
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
    assert!(
        world.directory("100").join("rootfs/var/shut-down").exists(),
        "its init was asked"
    );
    world.ok(&["shutdown", "100"]);
    world.ok(&["stop", "100"]);

    world.ok(&["autostart"]);
    assert_eq!(world.ok(&["status", "100"]), "status: running\n");
    world.ok(&["stop", "100"]);
    world.ok(&["template", "100"]);
    assert!(world.fails(3, &["start", "100"]).contains("template"));
    world.ok(&["destroy", "100", "--purge"]);
    assert!(!world.directory("100").exists());
    let gone = world.fails(2, &["config", "100"]);
    assert!(gone.contains("/lxc/100.conf' does not exist"), "{gone}");
    for verb in ["start", "stop", "destroy", "status", "shutdown", "template"] {
        world.fails(2, &[verb, "100"]);
    }
}

#[test]
fn a_container_is_reached_over_its_bridge_under_the_addresses_it_was_given() {
    let Some(world) = World::new() else { return };
    world.container(
        "100",
        &["--net0", "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=10.9.0.5/24,gw=10.9.0.1,ip6=fd09::5/64,gw6=fd09::1,mtu=1400"],
    );
    world.container(
        "101",
        &[
            "--net0",
            "name=lan,bridge=vmbr0,ip=10.9.0.6/24",
            "--net1",
            "name=eth1,bridge=vmbr0,ip=dhcp",
        ],
    );
    world.ok(&["start", "100"]);
    world.ok(&["start", "101"]);
    for address in ["10.9.0.5", "fd09::5", "10.9.0.6"] {
        assert!(world.answers(address), "{address}");
    }
    assert_eq!(
        world.tried("100", "ping -c 1 -W 60 10.9.0.6").0,
        0,
        "one from the other"
    );
    let link = world.shell("100", "ip link show eth0");
    assert!(
        link.contains("bc:24:11:00:00:01") && link.contains("mtu 1400"),
        "{link}"
    );
    assert!(
        world
            .shell("100", "ip route; ip -6 route")
            .contains("default via 10.9.0.1")
    );
    let asks_itself = world.shell("101", "ip addr show eth1");
    assert!(
        asks_itself.contains("UP") && !asks_itself.contains("inet 1"),
        "{asks_itself}"
    );
    let ports = world
        .inside("ip", &["-brief", "link", "show", "master", "vmbr0"])
        .output;
    for name in ["vi100@", "vi101@", "vi101_1@"] {
        assert!(ports.contains(name), "{name} in {ports}");
    }
    world.ok(&["stop", "101"]);
    let ports = world.inside("ip", &["-brief", "link"]).output;
    assert!(
        ports.contains("vi100@") && !ports.contains("vi101"),
        "they end with their container: {ports}"
    );
    world.ok(&["start", "101"]);
    assert!(world.answers("10.9.0.6"), "again");
}

#[test]
fn a_container_behind_the_firewall_has_its_own_addresses_and_takes_no_others() {
    let Some(world) = World::new() else { return };
    let net = "name=eth0,bridge=vmbr0,ip=10.9.0.5/24,ip6=fd09::5/64";
    world.container("100", &["--net0", &format!("{net},firewall=1")]);
    world.ok(&["start", "100"]);
    for address in ["10.9.0.5", "fd09::5"] {
        assert!(world.answers(address), "{address}");
    }
    let takes = "ip addr add 10.9.0.9/24 dev eth0 && ip addr add fd09::9/64 dev eth0";
    world.shell("100", takes);
    let answers_once = |address: &str| {
        let ping = world.inside("ping", &["-c", "1", "-W", "2", address]);
        ping.status.success()
    };
    assert!(!answers_once("10.9.0.9") && !answers_once("fd09::9"));
    assert!(world.answers("10.9.0.5"), "what it has stays");
    // Where it is off, the same takes the address.
    world.ok(&["stop", "100"]);
    world.ok(&["set", "100", "--net0", net]);
    world.ok(&["start", "100"]);
    world.shell("100", takes);
    assert!(world.answers("10.9.0.9") && world.answers("fd09::9"));
}

#[test]
fn a_container_without_its_bridge_does_not_start_and_one_on_a_switch_waits_for_its_port() {
    let Some(world) = World::new() else { return };
    world.container("100", &["--net0", "name=eth0,bridge=nowhere"]);
    assert!(
        world
            .fails(7, &["start", "100"])
            .contains("bridge 'nowhere' does not exist")
    );
    world.ok(&["set", "100", "--net0", "name=eth0,bridge=lo"]);
    assert!(
        world
            .fails(7, &["start", "100"])
            .contains("'lo' is no bridge")
    );
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
    // What a switch in user space has for a bridge.
    let made = world.inside("ip", &["tuntap", "add", "dev", "ovsbr0", "mode", "tap"]);
    if !made.status.success() {
        eprintln!("skipped: no tap device can be made here: {}", made.errors);
        return;
    }
    world.ok(&[
        "set",
        "100",
        "--net0",
        "name=eth0,bridge=ovsbr0,ip=10.9.0.7/24",
    ]);
    let said = world.ok(&["start", "100"]);
    assert!(said.contains("vi100 is up but in no bridge"), "{said}");
    let own = world.inside("ip", &["-6", "-oneline", "addr", "show", "dev", "vi100"]);
    assert_eq!(own.output, "", "the host does not listen there: {said}");
    let off = world.inside("cat", &["/proc/sys/net/ipv6/conf/vi100/disable_ipv6"]);
    assert!(!off.status.success() || off.output == "1\n", "{said}");
    world.inside("ip", &["link", "set", "vi100", "master", "vmbr0"]);
    assert!(world.answers("10.9.0.7"));
}

#[test]
fn a_vlan_tag_is_kept_to_and_needs_a_bridge_that_knows_them() {
    let Some(world) = World::new() else { return };
    let net = "name=eth0,bridge=vmbr0,ip=10.9.0.5/24,tag=7";
    world.container("100", &["--net0", net]);
    let filtering = world.inside(
        "ip",
        &[
            "link",
            "set",
            "vmbr0",
            "type",
            "bridge",
            "vlan_filtering",
            "1",
        ],
    );
    if !filtering.status.success() {
        assert!(world.fails(7, &["start", "100"]).contains("VLAN-aware"));
        return;
    }
    world.ok(&["start", "100"]);
    let vlans = world
        .inside("bridge", &["vlan", "show", "dev", "vi100"])
        .output;
    assert!(vlans.contains("7 PVID Egress Untagged"), "{vlans}");
    assert!(
        !world
            .inside("ping", &["-c", "1", "-W", "1", "10.9.0.5"])
            .status
            .success(),
        "from another VLAN"
    );
}

#[test]
fn every_packing_is_unpacked_and_a_damaged_one_is_refused() {
    let Some(world) = World::new() else { return };
    world.template();
    let plain = world.path("var/lib/blockhost/pct-storage/local/template/cache/base.tar");
    let mut made = 0;
    for (program, ending) in [
        ("gzip", "gz"),
        ("bzip2", "bz2"),
        ("xz", "xz"),
        ("zstd", "zst"),
    ] {
        if blockhost_hypervisor::exec::find(program, program).is_err() {
            eprintln!("skipped: {program} is missing");
            continue;
        }
        let bytes = packed(program, &plain);
        let whole = world.path(&format!("whole.tar.{ending}"));
        std::fs::write(&whole, &bytes).unwrap();
        let vmid = format!("10{made}");
        let path = whole.display().to_string();
        let args: Vec<&str> = ["create", &vmid, &path].into_iter().chain(NEW).collect();
        world.ok(&args);
        assert!(
            world.directory(&vmid).join("rootfs/bin/busybox").exists(),
            "{ending}"
        );
        made += 1;
        let torn = world.path(&format!("torn.tar.{ending}"));
        std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
        let path = torn.display().to_string();
        let args: Vec<&str> = ["create", "110", &path].into_iter().chain(NEW).collect();
        let said = world.fails(1, &args);
        assert!(
            said.contains("refused") && !world.directory("110").exists(),
            "{said}"
        );
    }
    assert!(made > 0);
}

#[test]
fn a_program_inside_gets_its_input_and_its_exit_code_comes_back() {
    let Some(world) = World::new() else { return };
    world.container("100", &[]);
    world.ok(&["start", "100"]);
    for code in [0, 1, 7, 200] {
        assert_eq!(world.tried("100", &format!("exit {code}")).0, code);
    }
    assert_eq!(world.tried("100", "kill -9 $$").0, 137);
    let done = world.pct(&[
        "exec",
        "100",
        "--",
        "/bin/sh",
        "-c",
        "echo out; echo err >&2",
    ]);
    assert_eq!(
        (done.output.as_str(), done.errors.as_str()),
        ("out\n", "err\n")
    );
    let text = world.path("input");
    std::fs::write(&text, "x".repeat(300_000)).unwrap();
    let counted = world
        .pct_command(&["exec", "100", "--", "/bin/wc", "-c"])
        .stdin(std::fs::File::open(&text).unwrap())
        .output()
        .unwrap();
    assert_eq!(counted.trim(), "300000");
    let kept = world.pct(&[
        "exec",
        "100",
        "--",
        "/bin/sh",
        "-c",
        "sleep 1000 & echo started",
    ]);
    assert_eq!(
        kept.output, "started\n",
        "what goes on inside does not hold it up"
    );
    let loud = "cat /dev/zero & echo started >&2";
    let done = world
        .pct_command(&["exec", "100", "--", "/bin/sh", "-c", loud])
        .within(std::time::Duration::from_secs(180))
        .status()
        .expect("nor what it writes there for ever");
    assert!(done.status.success() && done.errors.contains("started"));
    let environment = world.shell("100", "env");
    assert!(
        !environment.contains("BLOCKHOST") && environment.contains("HOME=/root"),
        "{environment}"
    );
}

#[test]
fn a_container_outlives_the_service_and_is_found_again() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.container("100", &["--net0", "name=eth0,bridge=vmbr0,ip=10.9.0.5/24"]);
    world.ok(&["start", "100"]);
    let before = world.pid("100");
    world.end_service();
    let said = world.fails(7, &["status", "100"]);
    assert!(
        said.contains("does not answer"),
        "a state is never guessed: {said}"
    );
    assert!(world.answers("10.9.0.5"));
    world.serve();
    assert_eq!(world.pid("100"), before);
    assert_eq!(world.shell("100", "echo here"), "here\n");
    world.ok(&["stop", "100"]);
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
}

#[test]
fn numbers_are_shared_with_machines() {
    let Some(world) = World::new() else { return };
    world.container("100", &[]);
    let taken = world.qm(&["create", "100", "--name", "x"]);
    assert!(
        taken.errors.contains("CT 100 already exists"),
        "{}",
        taken.errors
    );
    assert_eq!(taken.status.code(), Some(3));
    assert!(world.qm(&["create", "101", "--name", "x"]).status.success());
    let template = world.template();
    let args: Vec<&str> = ["create", "101", &template]
        .into_iter()
        .chain(NEW)
        .collect();
    assert!(world.fails(3, &args).contains("VM 101 already exists"));
}

#[test]
fn wrong_options_and_templates_are_refused_before_anything_is_made() {
    let Some(world) = World::new() else { return };
    let template = world.template();
    let create = |template: &str, more: &[&str]| {
        let args: Vec<&str> = ["create", "100", template]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        world.fails(6, &args)
    };
    for more in [
        &["--rootfs", "local:1"][..],
        &["--unprivileged", "1"],
        &["--unprivileged", "0", "--rootfs", "local:1"],
        &[
            "--unprivileged",
            "1",
            "--rootfs",
            "local:1",
            "--mp0",
            "/,mp=/host",
        ],
        &["--unprivileged", "1", "--rootfs", "/etc"],
        &[
            "--unprivileged",
            "1",
            "--rootfs",
            "local:1",
            "--hostname",
            "a b",
        ],
        &[
            "--unprivileged",
            "1",
            "--rootfs",
            "local:1",
            "--memory",
            "1",
        ],
        &[
            "--unprivileged",
            "1",
            "--rootfs",
            "local:1",
            "--features",
            "mknod=1",
        ],
        &[
            "--unprivileged",
            "1",
            "--rootfs",
            "local:1",
            "--net0",
            "name=lo,bridge=vmbr0",
        ],
    ] {
        create(&template, more);
    }
    for wrong in [
        "local:vztmpl/../base.tar",
        "local:vztmpl/missing.tar",
        "other:vztmpl/base.tar",
        "/etc/passwd",
    ] {
        create(wrong, &NEW);
    }
    assert!(!world.directory("100").exists());
    world.container("100", &[]);
    for more in [
        ["--rootfs", "local:2"],
        ["--unprivileged", "1"],
        ["--ssh-public-keys", KEY],
        ["--delete", "hostname"],
    ] {
        world.fails(6, &["set", "100", more[0], more[1]]);
    }
    world.fails(6, &["nonsense"]);
    world.fails(6, &["start", "99"]);
}
