//! Another template in place of one, while customers' machines stand on its disk.

mod common;

use blockhost_provisioner::backend::ActionsBackend;
use blockhost_provisioner::create::create;
use blockhost_provisioner::progress::Progress;
use blockhost_provisioner::template::register::{RegisterError, check_replaceable, register};
use common::{TestWorld, request};

#[test]
fn a_template_that_machines_stand_on_is_left_alone_and_another_number_is_the_way() {
    let mut world = TestWorld::new();
    let backend = ActionsBackend::new(&world.recorder);
    let template = world.config.host.template_vmid;
    check_replaceable(&backend, template).unwrap();
    for name in ["web-1", "web-2"] {
        world
            .with(|w| create(w, &request(name), &mut Progress::silent()))
            .unwrap();
    }
    let image = world.layout.images().join("new.qcow2");
    let digest = "0123456789abcdef0123456789abcdef";
    let mut progress = Progress::silent();
    let refused = register(
        &backend,
        &world.config.host,
        &image,
        digest,
        true,
        &mut progress,
    );
    let Err(error @ RegisterError::InUse { count: 2, .. }) = refused else {
        panic!("{refused:?}")
    };
    let said = error.to_string();
    for part in ["VM 100 web-1", "VM 101 web-2", "template_vmid"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!world.recorder.asked.borrow().contains(&"qm-destroy"));
    assert!(world.recorder.machines.borrow().contains_key(&9000));
    // 900 is not 9000.
    check_replaceable(&backend, "900".parse().unwrap()).unwrap();

    let mut host = world.config.host.clone();
    host.template_vmid = "9001".parse().unwrap();
    register(&backend, &host, &image, digest, true, &mut progress).unwrap();
    // Every machine gets a network card of its own; one of the template's would be on the host's bridge, unguarded.
    let created = world.recorder.created.take();
    assert_eq!(created.len(), 1);
    assert!(!created[0].to_string().contains("net"), "{created:?}");
    world.config.host = host;
    let third = world
        .with(|w| create(w, &request("web-3"), &mut Progress::silent()))
        .unwrap();
    assert_eq!(third.record.vmid.get(), 102);
    assert!(world.recorder.machines.borrow().contains_key(&9000));
}
