//! Messages about routes as the kernel writes them, and what is read out of them.

use super::*;
use proptest::prelude::*;

#[test]
fn several_hops_of_ipv4_are_one_route_and_of_ipv6_as_many() {
    let hop = |device: u32, weight: u8, gateway: &[u8]| {
        let inside = Builder::inside()
            .attribute(RTA_GATEWAY, gateway)
            .done_inside();
        let length = u16::try_from(inside.len() + 8).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([4, weight]);
        bytes.extend(device.to_ne_bytes());
        bytes.extend(inside);
        bytes
    };
    let body = |family, dst: &[u8], hops: &[Vec<u8>]| {
        Builder::inside()
            .raw(&[family, 8, 0, 0, 254, 3, 0, RTN_UNICAST, 0, 0, 0, 0])
            .attribute(RTA_DST, dst)
            .attribute(RTA_MULTIPATH, &hops.concat())
            .done_inside()
    };
    let four = [hop(7, 0, &[10, 0, 0, 1]), hop(9, 0, &[10, 0, 0, 2])];
    let routes = parse_table_route(&body(AF_INET, &[10, 0, 0, 0], &four));
    assert!(routes.iter().all(|(_, route)| route.is_shared()));
    assert_eq!(routes[0].1.shown(), "10.0.0.0/8");
    let gateway = |last: u8| {
        let mut address = [0; 16];
        (address[0], address[15]) = (0xfd, last);
        address
    };
    let six = [
        hop(7, 0, &gateway(1)),
        hop(9, 0, &gateway(2)),
        hop(7, 3, &gateway(3)),
    ];
    let routes = parse_table_route(&body(AF_INET6, &[0xfd; 16], &six));
    let seen: Vec<_> = routes
        .iter()
        .map(|(device, route)| (*device, route.leads_to(), route.is_shared()))
        .collect();
    let to = |last| Some(IpAddr::from(gateway(last)));
    assert_eq!(
        seen,
        [(7, to(1), false), (9, to(2), false), (7, to(3), true)]
    );
    assert_eq!(routes[0].1.flags & RTNH_F_ONLINK, 4);
    let outside = parse_table_route(&body(
        AF_INET,
        &[10, 0, 0, 0],
        &[vec![255, 255, 0, 0, 7, 0, 0, 0]],
    ));
    assert_eq!(
        outside.len(),
        1,
        "a length that leads outside ends the reading"
    );
}

#[test]
fn what_does_not_lead_anywhere_is_seen_as_such_and_copies_and_local_addresses_are_not() {
    let body = |table: u8, kind: u8, flags: u32| {
        let header = [AF_INET, 24, 0, 0, table, 3, 0, kind];
        Builder::inside()
            .raw(&header)
            .raw(&flags.to_ne_bytes())
            .attribute(RTA_DST, &[10, 9, 0, 0])
            .done_inside()
    };
    for (kind, leads) in [(RTN_UNICAST, true), (2, false), (6, false), (7, false)] {
        let routes = parse_table_route(&body(254, kind, 0));
        assert_eq!(routes.len(), 1, "{kind}");
        assert_eq!((routes[0].0, routes[0].1.leads()), (0, leads), "{kind}");
        let address = IpAddr::from([10, 9, 0, 0]);
        assert!(routes[0].1.is_to(Address {
            address,
            length: 24
        }));
    }
    assert!(parse_table_route(&body(255, 2, 0)).is_empty());
    assert!(parse_table_route(&body(254, RTN_UNICAST, RTM_F_CLONED)).is_empty());
}

proptest! {
    #[test]
    fn no_answer_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_table_route(&bytes);
    }
}
