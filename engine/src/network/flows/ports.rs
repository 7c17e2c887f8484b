//! Ranges of ports as what a switch can match: values with masks. Pure.

/// The fewest value-and-mask pairs that match exactly the ports from `first` to `last`.
pub(super) fn masks(first: u16, last: u16) -> Vec<(u16, u16)> {
    let mut found = Vec::new();
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    while at < end {
        // The largest block that begins here and does not go beyond the end.
        let aligned = if at == 0 {
            1 << 16
        } else {
            at & at.wrapping_neg()
        };
        let mut size = aligned;
        while at + size > end {
            size >>= 1;
        }
        let mask = u16::try_from(0x1_0000 - size).unwrap_or(0);
        found.push((u16::try_from(at).unwrap_or(u16::MAX), mask));
        at += size;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_single_port_is_matched_exactly_and_all_ports_with_one_pair() {
        assert_eq!(masks(80, 80), [(80, 0xffff)]);
        assert_eq!(masks(0, 65_535), [(0, 0)]);
        assert_eq!(masks(1024, 65_535).len(), 6);
    }

    proptest! {
        #[test]
        fn the_pairs_match_the_range_and_nothing_else(a in any::<u16>(), b in any::<u16>(), probe in any::<u16>()) {
            let (first, last) = (a.min(b), a.max(b));
            let pairs = masks(first, last);
            for port in [first, last, probe, first.wrapping_sub(1), last.wrapping_add(1)] {
                let hits = pairs.iter().filter(|(value, mask)| port & mask == *value).count();
                prop_assert_eq!(hits, usize::from((first..=last).contains(&port)), "{}", port);
            }
            prop_assert!(pairs.len() <= 30);
        }
    }
}
