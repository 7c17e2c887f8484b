//! Fuzz target of what the kernel answers.

use blockhost_proto::fuzz::Target;

use super::message::{Builder, Message, Verdict, attributes, messages, verdict};
use super::{carry, conntrack, link, neighbour, netconf, route, survey, table, tc};

/// What the fuzzers run.
pub const TARGETS: &[Target] = &[Target {
    name: "netlink",
    seeds,
    run,
}];

/// A link, an address, a route, a queue, a connection and an acknowledgement, as the kernel sends them.
fn seeds() -> Vec<Vec<u8>> {
    let link = Builder::request(16, 0)
        .raw(&[0, 0, 1, 0])
        .raw(&7_u32.to_ne_bytes())
        .raw(&1_u32.to_ne_bytes())
        .raw(&[0; 4])
        .text(3, "vmbr0")
        .u32(4, 1500)
        .nest(18, Builder::inside().text(1, "bridge"))
        .nest(52, Builder::inside().text(53, "another-name"))
        .text(20, "blockhost")
        .attribute(1, &[2, 0, 0, 0, 0, 1])
        .attribute(16, &[6])
        .attribute(33, &[1])
        .u32(10, 4)
        .attribute(23, &[1; 64])
        .nest(
            26,
            Builder::inside().nest(2, Builder::inside().attribute(1, &[1; 32])),
        )
        .done(1);
    let address = Builder::request(20, 0)
        .raw(&[10, 64, 0, 0])
        .raw(&7_u32.to_ne_bytes())
        .attribute(1, &[0xfd; 16])
        .done(2);
    let route = Builder::request(24, 0)
        .raw(&[10, 128, 0, 0, 254, 3, 0, 1])
        .raw(&[0; 4])
        .attribute(1, &[0xfd; 16])
        .u32(4, 7)
        .done(3);
    let hops = [[16, 0, 0, 0, 7, 0, 0, 0], [8, 0, 5, 0, 10, 0, 0, 1]].concat();
    let spread = Builder::request(24, 0)
        .raw(&[2, 24, 0, 0, 254, 3, 0, 1])
        .raw(&[0; 4])
        .attribute(1, &[10, 0, 0, 0])
        .attribute(9, &hops)
        .attribute(18, &[10; 18])
        .done(3);
    let bucket = Builder::inside()
        .attribute(1, &[1; 36])
        .attribute(4, &[2; 8]);
    let queue = Builder::request(36, 0)
        .raw(&[0; 4])
        .raw(&7_u32.to_ne_bytes())
        .raw(&[0; 12])
        .text(1, "tbf")
        .nest(2, bucket)
        .done(4);
    let refused = Builder::request(2, 0)
        .raw(&(-19_i32).to_ne_bytes())
        .raw(&[0; 16])
        .done(5);
    let ends = || {
        let addresses = Builder::inside()
            .attribute(1, &[192, 0, 2, 1])
            .attribute(2, &[10, 0, 0, 7]);
        Builder::inside().nest(1, addresses)
    };
    let connection = Builder::request(256, 0)
        .raw(&[2, 0, 0, 0])
        .nest(1, ends())
        .nest(2, ends())
        .u32(12, 7)
        .done(6);
    let all = [
        link.as_slice(),
        &address,
        &route,
        &spread,
        &queue,
        &connection,
        &refused,
    ]
    .concat();
    vec![
        link, address, route, spread, queue, connection, refused, all,
    ]
}

/// What is read of a datagram lies in it; a link has a number and a name, an error number is one.
fn run(data: &[u8]) {
    let mut bytes = 0;
    for Message { kind, body, .. } in messages(data).flatten() {
        bytes += body.len();
        if let Some(Verdict::Ended(code)) = verdict(kind, body) {
            assert!(code >= 0);
        }
        let _ = netconf::parse_netconf(body);
        let inside: usize = attributes(body).map(|(_, value)| value.len() + 4).sum();
        assert!(inside <= body.len() + 3);
        if let Some(link) = link::parse_link(body) {
            let texts = [Some(&link.name), link.kind.as_ref(), link.alias.as_ref()];
            let length: usize = texts.into_iter().flatten().map(String::len).sum();
            assert!(link.index != 0 && length < body.len());
        }
        if let Some(device) = survey::parse_device(body) {
            assert!(device.master != Some(0) && device.lower != Some(0));
        }
        if let Some(route) = survey::parse_route(body) {
            let most = if route.destination.address.is_ipv4() {
                32
            } else {
                128
            };
            assert!(route.destination.length <= most && route.hops.len() * 8 <= body.len().max(8));
        }
        let _ = link::parse_address(body);
        let _ = route::parse_route(body);
        let _ = carry::parse_port(body);
        let _ = carry::parse_own_address(body);
        let routes = table::parse_table_route(body);
        assert!(routes.len() <= body.len() / 8);
        assert!(routes.iter().all(|(_, route)| !route.shown().is_empty()));
        let _ = neighbour::parse_neighbour(body);
        let _ = neighbour::parse_proxy(body);
        let _ = conntrack::parse_connection(body);
        if let Some(entry) = tc::parse_entry(body) {
            assert!(entry.rate.is_none() || entry.kind == "tbf");
        }
    }
    assert!(bytes <= data.len());
}
