//! Pools of public addresses: which address somebody gets, the same one again as long as it is held. Pure; who holds what
//! is the caller's to remember.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A pool as a document has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    first: IpAddr,
    last: IpAddr,
    exclude: Vec<(IpAddr, IpAddr)>,
    gateway: Option<IpAddr>,
}

/// Why an address cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The text is neither a network nor a range.
    #[error(
        "\"{0}\" is neither a network (203.0.113.0/28) nor a range (203.0.113.10-203.0.113.20)"
    )]
    Range(String),
    /// The gateway is of another family.
    #[error("the gateway {0} is not of the pool's family")]
    Family(IpAddr),
    /// No address is left.
    #[error("no address of {0} is left; release one or add a pool")]
    Exhausted(String),
    /// An address that was asked for by name is in no pool, or excluded.
    #[error("{0} is in no pool, or excluded from it")]
    Outside(IpAddr),
    /// An address that was asked for by name is held by another.
    #[error("{address} is held by {holder}")]
    Held {
        /// The address.
        address: IpAddr,
        /// By whom.
        holder: String,
    },
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(number: u128, v4: bool) -> Option<IpAddr> {
    if v4 {
        let number = u32::try_from(number).ok()?;
        return Some(Ipv4Addr::from(number).into());
    }
    Some(Ipv6Addr::from(number).into())
}

/// First and last address of a network, a range or a single address. Of an IPv4 network larger than /31 the network's own
/// address and broadcast are no hosts; of an IPv6 one the first is every router's.
fn bounds(text: &str) -> Option<(IpAddr, IpAddr)> {
    if let Some((first, last)) = text.split_once('-') {
        let (first, last): (IpAddr, IpAddr) = (first.parse().ok()?, last.parse().ok()?);
        let good = first.is_ipv4() == last.is_ipv4() && first <= last;
        return good.then_some((first, last));
    }
    let Some((base, length)) = text.split_once('/') else {
        let one = text.parse().ok()?;
        return Some((one, one));
    };
    let base: IpAddr = base.parse().ok()?;
    let plain = length == "0" || !length.starts_with(['0', '+']);
    let length: u32 = length.parse().ok().filter(|_| plain)?;
    let v4 = base.is_ipv4();
    let width = if v4 { 32 } else { 128 };
    let host_bits = width - (length <= width).then_some(length)?;
    let size = 1u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |size| size - 1);
    let start = number(base);
    if start & size != 0 {
        return None;
    }
    let (mut low, mut high) = (start, start + size);
    if host_bits >= 2 {
        low += 1;
        high -= u128::from(v4);
    }
    Some((address(low, v4)?, address(high, v4)?))
}

impl Pool {
    /// A pool from its texts: `range` is a network or `first-last`, `exclude` the same or single addresses. The gateway is
    /// never given away.
    ///
    /// # Errors
    /// [`PoolError::Range`], [`PoolError::Family`].
    pub fn new(
        range: &str,
        exclude: &[String],
        gateway: Option<IpAddr>,
    ) -> Result<Self, PoolError> {
        let wrong = |text: &str| PoolError::Range(blockhost_proto::escape::shown(text));
        let (first, last) = bounds(range).ok_or_else(|| wrong(range))?;
        let excluded = exclude
            .iter()
            .map(|text| match text.split_once('/') {
                // Of an excluded network every address is meant.
                Some(_) => whole(text).ok_or_else(|| wrong(text)),
                None => bounds(text).ok_or_else(|| wrong(text)),
            })
            .collect::<Result<_, _>>()?;
        if let Some(gateway) = gateway
            && gateway.is_ipv4() != first.is_ipv4()
        {
            return Err(PoolError::Family(gateway));
        }
        Ok(Self {
            first,
            last,
            exclude: excluded,
            gateway,
        })
    }

    /// Whether an address may be given away by this pool.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let within = |(first, last): (IpAddr, IpAddr)| {
            address.is_ipv4() == first.is_ipv4() && first <= address && address <= last
        };
        within((self.first, self.last))
            && self.gateway != Some(address)
            && !self.exclude.iter().copied().any(within)
    }

    /// The lowest free address.
    fn free(&self, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let v4 = self.first.is_ipv4();
        let (mut at, last) = (number(self.first), number(self.last));
        while at <= last {
            let candidate = address(at, v4)?;
            // Over an excluded part in one step: it may be larger than any host could count.
            let skipped = self
                .exclude
                .iter()
                .filter(|(first, last)| {
                    first.is_ipv4() == v4 && *first <= candidate && candidate <= *last
                })
                .map(|(_, last)| number(*last))
                .max();
            match skipped {
                Some(end) => at = end.checked_add(1)?,
                None if taken.contains(&candidate) || self.gateway == Some(candidate) => {
                    at = at.checked_add(1)?;
                }
                None => return Some(candidate),
            }
        }
        None
    }
}

fn whole(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (base, length) = text.split_once('/')?;
    let base: IpAddr = base.parse().ok()?;
    let v4 = base.is_ipv4();
    let width: u32 = if v4 { 32 } else { 128 };
    let length: u32 = length.parse().ok()?;
    let host_bits = width.checked_sub(length)?;
    let size = 1u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |size| size - 1);
    let start = number(base);
    (start & size == 0).then_some(())?;
    Some((base, address(start + size, v4)?))
}

impl std::fmt::Display for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub holder: String,
    /// A certain address, or any.
    pub address: Option<IpAddr>,
    /// The family, where any will do: true for IPv4.
    pub v4: bool,
}

/// Gives every claim its address: those named, then those held before as long as they are still the pools' to give, then the
/// lowest free ones in the order of the holders' names. The same claims and the same `held` give the same answer.
#[must_use]
pub fn allocate(
    pools: &[Pool],
    claims: &[Claim],
    held: &BTreeMap<String, IpAddr>,
) -> BTreeMap<String, Result<IpAddr, PoolError>> {
    let mut given: BTreeMap<String, Result<IpAddr, PoolError>> = BTreeMap::new();
    let mut by_address: BTreeMap<IpAddr, String> = BTreeMap::new();
    let mut open: Vec<&Claim> = Vec::new();
    let mut order: Vec<&Claim> = claims.iter().collect();
    order.sort_by(|a, b| a.holder.cmp(&b.holder));
    for claim in order {
        let Some(address) = claim.address else {
            open.push(claim);
            continue;
        };
        let answer = if !pools.iter().any(|pool| pool.holds(address)) {
            Err(PoolError::Outside(address))
        } else if let Some(holder) = by_address.get(&address) {
            Err(PoolError::Held {
                address,
                holder: holder.clone(),
            })
        } else {
            by_address.insert(address, claim.holder.clone());
            Ok(address)
        };
        given.insert(claim.holder.clone(), answer);
    }
    let mut wanting = Vec::new();
    for claim in open {
        let before = held.get(&claim.holder).copied().filter(|address| {
            address.is_ipv4() == claim.v4
                && !by_address.contains_key(address)
                && pools.iter().any(|pool| pool.holds(*address))
        });
        match before {
            Some(address) => {
                by_address.insert(address, claim.holder.clone());
                given.insert(claim.holder.clone(), Ok(address));
            }
            None => wanting.push(claim),
        }
    }
    // What somebody holds who asks for nothing now is not free before it was released.
    let claiming: BTreeSet<&str> = claims.iter().map(|claim| claim.holder.as_str()).collect();
    let mut taken: BTreeSet<IpAddr> = by_address.keys().copied().collect();
    let others = held
        .iter()
        .filter(|(holder, _)| !claiming.contains(holder.as_str()));
    taken.extend(others.map(|(_, address)| *address));
    for claim in wanting {
        let family = pools.iter().filter(|pool| pool.first.is_ipv4() == claim.v4);
        let free = family.clone().find_map(|pool| pool.free(&taken));
        let answer = free.ok_or_else(|| {
            let names: Vec<String> = family.map(ToString::to_string).collect();
            let all = if names.is_empty() {
                "the pools (none is of this family)".to_owned()
            } else {
                names.join(", ")
            };
            PoolError::Exhausted(all)
        });
        if let Ok(address) = &answer {
            taken.insert(*address);
        }
        given.insert(claim.holder.clone(), answer);
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(range: &str, exclude: &[&str], gateway: Option<&str>) -> Pool {
        let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
        Pool::new(
            range,
            &exclude,
            gateway.map(|g| g.parse().expect("an address")),
        )
        .expect("a pool")
    }

    fn any(holder: &str) -> Claim {
        Claim {
            holder: holder.to_owned(),
            address: None,
            v4: true,
        }
    }

    fn texts(given: &BTreeMap<String, Result<IpAddr, PoolError>>) -> Vec<String> {
        given
            .iter()
            .map(|(holder, answer)| match answer {
                Ok(address) => format!("{holder} {address}"),
                Err(error) => format!("{holder} {error}"),
            })
            .collect()
    }

    #[test]
    fn neither_gateway_nor_excluded_nor_the_ends_of_a_network_are_given_away() {
        let pool = pool(
            "203.0.113.0/29",
            &["203.0.113.2-203.0.113.3"],
            Some("203.0.113.1"),
        );
        let claims: Vec<Claim> = ["a", "b", "c", "d"].map(any).into();
        assert_eq!(
            texts(&allocate(&[pool], &claims, &BTreeMap::new())),
            [
                "a 203.0.113.4",
                "b 203.0.113.5",
                "c 203.0.113.6",
                "d no address of 203.0.113.1-203.0.113.6 is left; release one or add a pool"
            ]
        );
    }

    #[test]
    fn whoever_holds_an_address_keeps_it_and_what_was_released_is_given_again() {
        let pools = [pool("203.0.113.10-203.0.113.12", &[], None)];
        let held = BTreeMap::from([
            ("b".to_owned(), "203.0.113.10".parse().expect("an address")),
            (
                "gone".to_owned(),
                "203.0.113.11".parse().expect("an address"),
            ),
        ]);
        // Held by somebody who is not among the claims: not free yet.
        assert_eq!(
            texts(&allocate(&pools, &[any("a"), any("b")], &held)),
            ["a 203.0.113.12", "b 203.0.113.10"]
        );
        assert_eq!(
            texts(&allocate(&pools, &[any("a")], &BTreeMap::new())),
            ["a 203.0.113.10"]
        );
    }

    #[test]
    fn an_address_asked_for_by_name_goes_before_one_that_was_only_given() {
        let pools = [pool("203.0.113.10-203.0.113.12", &["203.0.113.12"], None)];
        let held = BTreeMap::from([("a".to_owned(), "203.0.113.10".parse().expect("an address"))]);
        let named = |holder: &str, address: &str| Claim {
            address: Some(address.parse().expect("an address")),
            ..any(holder)
        };
        let claims = [
            any("a"),
            named("b", "203.0.113.10"),
            named("c", "203.0.113.10"),
            named("d", "203.0.113.12"),
        ];
        assert_eq!(
            texts(&allocate(&pools, &claims, &held)),
            [
                "a 203.0.113.11",
                "b 203.0.113.10",
                "c 203.0.113.10 is held by b",
                "d 203.0.113.12 is in no pool, or excluded from it"
            ]
        );
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "203.0.113.1/24",
            "203.0.113.0/33",
            "203.0.113.9-203.0.113.1",
            "203.0.113.1-fd00::1",
            "203.0.113.0/+8",
            "203.0.113.0/08",
            "x\u{1b}[2J",
        ] {
            let error = Pool::new(text, &[], None).expect_err(text).to_string();
            assert!(
                error.bytes().all(|b| (b' '..=b'~').contains(&b)),
                "{error:?}"
            );
        }
        assert!(Pool::new("0.0.0.0/0", &[], None).is_ok() && Pool::new("::/0", &[], None).is_ok());
        let other = Some("fd00::1".parse().expect("an address"));
        assert!(Pool::new("203.0.113.0/24", &[], other).is_err());
    }

    #[test]
    fn a_huge_excluded_part_is_stepped_over_and_not_counted_through() {
        let pool = pool("2001:db8::/32", &["2001:db8::/33"], None);
        let claim = Claim {
            v4: false,
            ..any("a")
        };
        assert_eq!(
            texts(&allocate(&[pool], &[claim], &BTreeMap::new())),
            ["a 2001:db8:8000::"]
        );
    }

    proptest! {
        #[test]
        fn nobody_shares_an_address_and_asking_again_changes_nothing(
            names in proptest::collection::btree_set("[a-h]", 0..8),
            held in proptest::collection::btree_map("[a-h]", 0u8..12, 0..6),
            size in 1u8..12,
        ) {
            let pools = [pool(&format!("203.0.113.1-203.0.113.{size}"), &["203.0.113.3"], None)];
            // Two never hold one address: that is what this keeps.
            let mut seen = BTreeSet::new();
            let held: BTreeMap<String, IpAddr> = held
                .into_iter()
                .filter(|(_, last)| seen.insert(*last))
                .map(|(holder, last)| (holder, IpAddr::from([203, 0, 113, last])))
                .collect();
            let claims: Vec<Claim> = names.iter().map(|name| any(name)).collect();
            let given = allocate(&pools, &claims, &held);
            prop_assert_eq!(given.len(), claims.len());
            let addresses: Vec<IpAddr> = given.values().filter_map(|a| a.clone().ok()).collect();
            let distinct: BTreeSet<&IpAddr> = addresses.iter().collect();
            prop_assert_eq!(distinct.len(), addresses.len());
            prop_assert!(addresses.iter().all(|address| pools[0].holds(*address)));
            let holding: BTreeMap<String, IpAddr> = given
                .iter()
                .filter_map(|(holder, answer)| Some((holder.clone(), answer.clone().ok()?)))
                .collect();
            let mut again = held;
            again.extend(holding);
            prop_assert_eq!(allocate(&pools, &claims, &again), given);
        }
    }
}
