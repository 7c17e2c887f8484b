//! Host routes to machines, as the kernel shows them to everybody. A route whose machine is gone swallows packets for
//! the next one that gets the address. Parsing is pure.

use std::net::Ipv6Addr;

use blockhost_provisioner::config::Ipv6Net;

const LOCAL: u32 = 0x8000_0000;
const ANYCAST: u32 = 0x0010_0000;

/// The /128 routes within `prefix` that lead to `bridge`; the host's own addresses are none.
#[must_use]
pub fn host_routes(bridge: &str, prefix: Ipv6Net) -> Vec<Ipv6Addr> {
    parse(
        &std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default(),
        bridge,
        prefix,
    )
}

fn parse(text: &str, bridge: &str, prefix: Ipv6Net) -> Vec<Ipv6Addr> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, length, _, _, via, _, _, _, flags, device] = fields[..] else {
            return None;
        };
        let address = Ipv6Addr::from_bits(u128::from_str_radix(destination, 16).ok()?);
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let direct = via.bytes().all(|digit| digit == b'0');
        let ours = device == bridge
            && length == "80"
            && direct
            && flags & (LOCAL | ANYCAST) == 0
            && prefix.contains(address);
        ours.then_some(address)
    };
    text.lines().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_routes_to_machines_are_taken() {
        let zero = "0".repeat(32);
        let line = |address: &str, length: &str, via: &str, flags: &str, device: &str| {
            let address = address.parse::<Ipv6Addr>().unwrap().to_bits();
            format!(
                "{address:032x} {length} {zero} 00 {via} 00000400 00000001 00000000 {flags} {device}\n"
            )
        };
        let text = [
            line("fd77::5", "80", &zero, "00000001", "vmbr0"),
            line("fd77::1", "80", &zero, "80200001", "vmbr0"),
            line("fd77::", "40", &zero, "00000001", "vmbr0"),
            line("fd77::6", "80", &zero, "00000001", "eth0"),
            line("fd78::7", "80", &zero, "00000001", "vmbr0"),
            line("fd77::8", "80", &"1".repeat(32), "00000003", "vmbr0"),
            "garbage\n".to_owned(),
        ]
        .concat();
        assert_eq!(
            parse(&text, "vmbr0", "fd77::/64".parse().unwrap()),
            ["fd77::5".parse::<Ipv6Addr>().unwrap()]
        );
    }
}
