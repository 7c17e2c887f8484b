//! Reads the kernel's host routes. Anyone may read them, so this needs no help of the root agent.

use std::net::Ipv6Addr;

use crate::plan::Route;

/// Where the kernel lists them; by way of our own process, because the unit hides the rest of /proc (ProcSubset=pid).
pub const TABLE: &str = "/proc/self/net/ipv6_route";

/// `RTF_UP | RTF_HOST` of `linux/route.h`; local addresses carry `RTF_LOCAL` beside them.
const UP: u32 = 0x0001;
const LOCAL: u32 = 0x8000_0000;

/// The /128 routes of `table` (the text of [`TABLE`]) that someone set and that satisfy `ours`. Lines that do not
/// read as the kernel writes them are passed over.
#[must_use]
pub fn host_routes(table: &str, ours: impl Fn(Ipv6Addr) -> bool) -> Vec<Route> {
    table
        .lines()
        .filter_map(read)
        .filter(|r| ours(r.address))
        .collect()
}

/// destination, its length, source, its length, next hop, metric, references, uses, flags, device.
fn read(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, length, _, _, next_hop, _, _, _, flags, device] = fields[..] else {
        return None;
    };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let address = Ipv6Addr::from(u128::from_str_radix(destination, 16).ok()?);
    let direct = u128::from_str_radix(next_hop, 16).ok()? == 0;
    (length == "80"
        && direct
        && flags & UP != 0
        && flags & LOCAL == 0
        && device != "lo"
        && !address.is_multicast())
    .then(|| Route {
        address,
        device: device.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
fd77b10c000000000000000000000102 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 00000001    vmbr0
fd77b10c000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001    vmbr0
fd77b10c000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001    vmbr0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
garbage
";

    #[test]
    fn only_direct_host_routes_that_someone_set_are_seen() {
        let routes = host_routes(SAMPLE, |_| true);
        assert_eq!(routes.len(), 1);
        assert_eq!(
            routes[0].address,
            "fd77:b10c::102".parse::<Ipv6Addr>().unwrap()
        );
        assert_eq!(routes[0].device, "vmbr0");
    }

    #[test]
    fn routes_outside_our_pool_are_nobody_of_ours() {
        assert!(host_routes(SAMPLE, |_| false).is_empty());
    }
}
