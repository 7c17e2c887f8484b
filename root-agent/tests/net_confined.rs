//! The compartments' work under the confinement that they really get: what is tested freely elsewhere must also be
//! possible with the profile's capabilities, Landlock rules and system calls, and nothing beside it.

mod compartment_world;

use std::path::Path;

use blockhost_root_agent::compartment::{Backend, Handler, Identities, Identity, keys, net, vm};
use blockhost_root_agent::confine::irrevocably_confine;
use blockhost_root_agent::confine::profile::{Inputs, profile};
use blockhost_root_agent::ipc::Role;
use blockhost_root_agent::policy::LandlockChoice;
use compartment_world::{GROUP, Prepare, USER, World, again_in, tool};
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
            let handler = confined(world, Role::Net, net::prepare);
            let route = json!({"address": "fd77::1/128", "dev": "one"});
            let port = json!({"port": 22, "comment": "a"});
            for (name, params) in [
                ("ip6-route-add", &route),
                ("ip6-route-del", &route),
                ("iptables-open", &port),
                ("iptables-open", &port),
                ("iptables-close", &port),
            ] {
                succeeds(world, &*handler, name, params);
            }
            cannot_read(&world.layout.etc().join("hot.key"));
            cannot_read(Path::new("/etc/shadow"));
            cannot_read(Path::new("/usr/bin/sh"));
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
            cannot_read(Path::new("/etc/hostname"));
            assert!(
                std::fs::write(world.path().join("outside"), "x").is_err(),
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
