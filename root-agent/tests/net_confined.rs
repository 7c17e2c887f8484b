//! The compartments' work under the confinement that they really get: what is tested freely elsewhere must also be
//! possible with the profile's capabilities, Landlock rules and system calls, and nothing beside it.

mod compartment_world;

use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown, symlink};
use std::path::Path;

use blockhost_root_agent::compartment::{Backend, Handler, Identities, Identity, keys, net, vm};
use blockhost_root_agent::confine::irrevocably_confine;
use blockhost_root_agent::confine::profile::{Inputs, profile};
use blockhost_root_agent::ipc::Role;
use blockhost_root_agent::policy::{LandlockChoice, WireguardChoice};
use compartment_world::{GROUP, Prepare, USER, World, again_in, set_mode, tool, try_tool};
use serde_json::{Value, json};

/// Prepares a handler as the child does, then locks this thread in for good.
fn confined(world: &World, role: Role, prepare: Prepare) -> Box<dyn Handler> {
    let handler = world.start(prepare).expect("a compartment");
    let identity = Identity {
        uid: USER,
        gid: GROUP,
    };
    let identities = Identities {
        agent: identity,
        blockhost: identity,
        vm: identity,
        image: identity,
    };
    let programs = handler.programs();
    let image_dirs = world.policy.allow.image_dirs.clone();
    let inputs = Inputs {
        layout: &world.layout,
        identities,
        backend: Backend::Embedded,
        landlock: LandlockChoice::Required,
        wireguard: world.policy.wireguard,
        programs: &programs,
        image_dirs: &image_dirs,
        template_dirs: &image_dirs,
        image_network: false,
        attach: false,
    };
    irrevocably_confine(&profile(role, &inputs)).expect("confined");
    handler
}

fn succeeds(world: &World, handler: &dyn Handler, name: &str, params: &Value) {
    if let Err(failure) = world.ask(handler, name, params) {
        panic!("{name}: {}", failure.message);
    }
}

fn cannot_read(path: &Path) {
    assert!(
        std::fs::read(path).is_err(),
        "{} is readable inside",
        path.display()
    );
}

#[test]
fn routes_and_firewall_work_inside_and_keys_are_out_of_reach() {
    let set_up = |world: &World| {
        std::fs::write(world.layout.etc().join("hot.key"), "secret").expect("a key");
    };
    again_in(
        "routes_and_firewall_work_inside_and_keys_are_out_of_reach",
        &["unshare", "--net", "--"],
        set_up,
        |world| {
            tool("ip link add one type veth peer name two");
            tool("ip link set one up");
            tool("ip link add veth100i0 type veth peer name inside");
            for words in [
                "ip link add ovsbr0 type bridge",
                "ip link add eth0 type veth peer name wire",
                "ip link set eth0 up",
                "ip addr add 192.0.2.2/24 dev eth0",
                "ip route add default via 192.0.2.1",
            ] {
                tool(words);
            }
            world.policy.allow.uplinks = vec!["eth0".to_owned()];
            let device =
                json!({"dev": "ovsbr0", "up": true, "mtu": 1400, "addresses": ["10.7.0.1/24"]});
            let (there, back) = (
                json!({"from": "eth0", "to": "ovsbr0"}),
                json!({"from": "ovsbr0", "to": "eth0", "keep": ["10.7.0.1/24"]}),
            );
            let network = json!({"dest": "10.9.0.0/24", "dev": "ovsbr0", "via": "10.7.0.2"});
            let network_gone = json!({"dest": "10.9.0.0/24", "dev": "ovsbr0"});
            let pair = json!({"public": "203.0.113.7", "private": "10.0.0.7", "comment": "a"});
            let container = json!({"vmid": 100});
            tool("ip link add wg0 type veth peer name wg0-far");
            let hidden = json!({"dev": "wg0", "networks": ["10.20.0.0/24"]});
            let switch = |setting: &str, on: bool| match setting {
                "ipv6-forwarding" => json!({"setting": setting, "on": on}),
                _ => json!({"setting": setting, "dev": "eth0", "on": on}),
            };
            #[expect(clippy::disallowed_methods, reason = "the alias has a space in it")]
            let named = std::process::Command::new("ip")
                .args(["link", "set", "wg0", "alias", "blockhost: tunnel"])
                .status();
            assert!(named.expect("ip").success());
            let handler = confined(world, Role::Net, net::prepare);
            let route = json!({"address": "fd77::1/128", "dev": "one"});
            let port = json!({"port": 22, "comment": "a"});
            for (name, params) in [
                ("ip6-route-add", &route),
                ("ip6-route-del", &route),
                ("iptables-open", &port),
                ("iptables-open", &port),
                ("iptables-close", &port),
                ("veth-rename", &container),
                ("nat-map", &pair),
                ("nat-list", &json!({})),
                ("iptables-list", &json!({})),
                (
                    "iptables-set",
                    &json!({"rules": [{"port": 80, "comment": "a"}]}),
                ),
                ("nat-set", &json!({"pairs": [pair]})),
                ("nat-unmap", &pair),
                ("link-set", &device),
                ("route-set", &network),
                ("link-handover", &there),
                ("link-handover", &back),
                ("route-del", &network_gone),
                ("masquerade-set", &hidden),
                ("masquerade-list", &json!({})),
                ("sysctl-set", &switch("ipv4-forwarding", true)),
                ("sysctl-set", &switch("ipv6-forwarding", true)),
                ("sysctl-set", &switch("ipv6-proxy", true)),
                ("sysctl-set", &switch("ipv6-forwarding", false)),
            ] {
                succeeds(world, &*handler, name, params);
            }
            cannot_read(&world.layout.etc().join("hot.key"));
            cannot_read(Path::new("/etc/shadow"));
            cannot_read(Path::new("/usr/bin/sh"));
            for setting in [
                "net/ipv4/ip_forward",
                "kernel/core_pattern",
                "net/ipv6/route/max_size",
            ] {
                let path = format!("/proc/sys/{setting}");
                let opened = std::fs::OpenOptions::new().write(true).open(&path);
                assert!(opened.is_err(), "{path} can be written inside");
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "the test tries to start what must not start"
            )]
            let started = std::process::Command::new("/usr/bin/true").status();
            assert!(started.is_err(), "net starts other programs");
        },
    );
}

#[test]
fn a_tunnels_key_is_made_inside_where_wallets_and_other_programs_are_out_of_reach() {
    let test = "a_tunnels_key_is_made_inside_where_wallets_and_other_programs_are_out_of_reach";
    let set_up = |world: &World| {
        std::fs::write(world.layout.etc().join("hot.key"), "secret").expect("a key");
        let keys = world.layout.wireguard_keys();
        std::fs::create_dir(&keys).expect("a directory");
        set_mode(&keys, 0o700);
        chown(&keys, Some(USER), Some(GROUP)).expect("an owner");
        std::fs::create_dir_all("/run/wireguard").expect("a directory");
        std::fs::create_dir_all(world.path().join("run")).expect("a directory");
        symlink("/run/wireguard", world.layout.wireguard_sockets()).expect("a link");
    };
    let wrapper = [
        "unshare",
        "--net",
        "--mount",
        "--propagation",
        "private",
        "--",
    ];
    let outside = again_in(test, &wrapper, set_up, |world| {
        if !try_tool("wireguard-go --version").0 {
            println!("skipped: {test} needs wireguard-go");
            return;
        }
        tool("mount -t tmpfs none /run/wireguard");
        chown("/run/wireguard", Some(USER), None).expect("an owner");
        // As the operator runs it: the agent's user. It dies with this process, which soon may not kill it.
        #[expect(
            clippy::disallowed_methods,
            clippy::zombie_processes,
            reason = "a test starts the real daemon, which outlives what it can wait for"
        )]
        let _daemon = std::process::Command::new("setpriv")
            .args([
                &format!("--reuid={USER}"),
                &format!("--regid={GROUP}"),
                "--clear-groups",
                "--inh-caps=-all,+net_admin",
                "--ambient-caps=-all,+net_admin",
                "--pdeathsig=KILL",
                "wireguard-go",
                "-f",
                "wg0",
            ])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a daemon");
        while !Path::new("/run/wireguard/wg0.sock").exists() {
            std::thread::yield_now();
        }
        world.policy.wireguard = WireguardChoice::Userspace;
        let handler = confined(world, Role::Net, net::prepare);
        let tunnel = json!({"name": "wg0", "addresses": ["10.8.0.1/24"], "listen_port": 51820});
        let peers = json!({"name": "wg0", "peers": [{
            "public_key": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
            "allowed_ips": ["10.8.0.2/32"], "preshared": "generate",
        }]});
        let name = json!({"name": "wg0"});
        succeeds(world, &*handler, "wg-setup", &tunnel);
        succeeds(world, &*handler, "wg-set-peers", &peers);
        succeeds(world, &*handler, "wg-show", &name);
        cannot_read(&world.layout.etc().join("hot.key"));
        assert!(
            std::fs::write(world.layout.etc().join("x"), "x").is_err(),
            "writes beside its directory"
        );
    });
    if let Some(world) = outside {
        for file in ["wg0.key", "wg0.psk"] {
            let Ok(meta) = std::fs::metadata(world.layout.wireguard_keys().join(file)) else {
                println!("skipped: no daemon, no {file}");
                return;
            };
            assert_eq!((meta.uid(), meta.mode() & 0o777), (USER, 0o600), "{file}");
        }
    }
}

#[test]
fn wallets_work_inside_and_nothing_but_their_directory_is_there() {
    let outside = again_in(
        "wallets_work_inside_and_nothing_but_their_directory_is_there",
        &["env", "--"],
        |_| {},
        |world| {
            let handler = confined(world, Role::Keys, keys::prepare);
            succeeds(world, &*handler, "generate-wallet", &json!({"name": "hot"}));
            succeeds(
                world,
                &*handler,
                "addressbook-save",
                &json!({"entries": {}}),
            );
            let prefix = json!({"prefix": "fd77::/64"});
            succeeds(world, &*handler, "broker-renew", &prefix);
            cannot_read(Path::new("/etc/hostname"));
            // With a mode that the process may give: for another it would end here.
            let mut new = std::fs::OpenOptions::new();
            new.write(true).create_new(true).mode(0o600);
            assert!(
                new.open(world.path().join("outside")).is_err(),
                "writes outside of its directory"
            );
        },
    );
    if let Some(world) = outside {
        assert!(world.layout.etc().join("hot.key").exists());
    }
}

#[test]
fn machines_are_reached_inside_and_images_arrive_as_descriptors() {
    let set_up = |world: &World| {
        let text = "#!/bin/sh\n[ \"$1\" = importdisk ] && ! cmp \"$3\" \"$BLOCKHOST_ROOT/var/lib/blockhost/images/x.raw\" && exit 1\necho 'status: running'\n";
        world.script("qm", text);
        let mut disk = vec![0u8; 1 << 20];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        world.image("x.raw", &disk);
        std::fs::create_dir_all(world.layout.run()).expect("a directory");
    };
    again_in(
        "machines_are_reached_inside_and_images_arrive_as_descriptors",
        &["env", "--"],
        set_up,
        |world| {
            world.policy.programs.qm = Some(world.path().join("qm"));
            let handler = confined(world, Role::Vm, vm::prepare);
            succeeds(world, &*handler, "qm-status", &json!({"vmid": 100}));
            succeeds(
                world,
                &*handler,
                "qm-importdisk",
                &json!({"vmid": 100, "disk_path": "x.raw", "storage": "local"}),
            );
            cannot_read(Path::new("/etc/shadow"));
        },
    );
}
