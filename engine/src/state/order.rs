//! In which order changes are made: what others need before them, what is deleted after what stands on it, what holds others
//! last of all. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Change, ResourceRef, Verdict};

/// Sorts pending changes; the others are left out. `last` names the plugins whose resources are deleted after everything
/// else. Resources that need each other in a circle keep the order in which they came.
#[must_use]
pub fn sorted<'a>(changes: &'a [Change], last: &BTreeSet<&str>) -> Vec<&'a Change> {
    let pending = || changes.iter().filter(|change| change.is_pending());
    let is_delete = |change: &&Change| change.verdict == Verdict::Delete;
    let is_last = |change: &&Change| last.contains(change.resource.plugin);
    let mut order: Vec<&Change> = in_order(pending().filter(|c| is_delete(c) && !is_last(c)));
    order.reverse();
    order.extend(in_order(pending().filter(|c| !is_delete(c))));
    let mut holders = in_order(pending().filter(|c| is_delete(c) && is_last(c)));
    holders.reverse();
    order.extend(holders);
    order
}

/// Whatever is needed before what needs it.
fn in_order<'a>(changes: impl Iterator<Item = &'a Change>) -> Vec<&'a Change> {
    let list: Vec<&Change> = changes.collect();
    let by_name: BTreeMap<&ResourceRef, usize> = list
        .iter()
        .enumerate()
        .map(|(index, change)| (&change.resource, index))
        .collect();
    let mut order = Vec::with_capacity(list.len());
    let mut seen = vec![false; list.len()];
    // By hand and not by recursion: a document must not decide how deep our stack is.
    let mut open: Vec<(usize, usize)> = Vec::new();
    for start in 0..list.len() {
        open.push((start, 0));
        while let Some((index, next)) = open.pop() {
            let Some(change) = list.get(index) else {
                continue;
            };
            if next == 0 && std::mem::replace(&mut seen[index], true) {
                continue;
            }
            match change.needs.iter().chain(&change.after).nth(next) {
                Some(need) => {
                    open.push((index, next + 1));
                    match by_name.get(need) {
                        Some(&needed) if !seen[needed] => open.push((needed, 0)),
                        _ => {}
                    }
                }
                None => order.push(*change),
            }
        }
    }
    order
}

/// What stands in the way of a change, given what has failed so far: something that it needs, or for a deletion
/// something that still stands on it.
#[must_use]
pub fn obstacle<'a>(
    change: &Change,
    failed: &'a BTreeSet<ResourceRef>,
    all: &[Change],
) -> Option<&'a ResourceRef> {
    if change.verdict == Verdict::Delete {
        return failed.iter().find(|other| {
            all.iter()
                .any(|c| c.resource == **other && c.stands_on(&change.resource))
        });
    }
    failed.iter().find(|other| change.needs.contains(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change(
        plugin: &'static str,
        id: &str,
        verdict: Verdict,
        needs: &[(&'static str, &str)],
    ) -> Change {
        Change {
            resource: ResourceRef::new(plugin, id),
            verdict,
            fields: Vec::new(),
            steps: Vec::new(),
            notes: Vec::new(),
            blocked: None,
            needs: needs
                .iter()
                .map(|(plugin, id)| ResourceRef::new(plugin, *id))
                .collect(),
            after: Vec::new(),
            awaits: Vec::new(),
            wanted: None,
            ours: true,
            watched: false,
        }
    }

    fn names(changes: &[Change]) -> Vec<String> {
        sorted(changes, &BTreeSet::from(["net"]))
            .iter()
            .map(|change| change.resource.to_string())
            .collect()
    }

    #[test]
    fn bridges_come_before_ports_before_containers_before_flows_and_go_the_other_way() {
        let of = |verdict| {
            [
                change(
                    "ovsflows",
                    "br/web",
                    verdict,
                    &[("net", "br"), ("lxc", "100")],
                ),
                change("lxc", "100", verdict, &[("net", "br")]),
                change("net", "br/eth1", verdict, &[("net", "br")]),
                change("net", "br", verdict, &[]),
            ]
        };
        assert_eq!(
            names(&of(Verdict::Create)),
            ["net/br", "lxc/100", "ovsflows/br/web", "net/br/eth1"]
        );
        assert_eq!(
            names(&of(Verdict::Delete)),
            ["ovsflows/br/web", "lxc/100", "net/br/eth1", "net/br"]
        );
    }

    #[test]
    fn what_is_released_can_be_taken_by_another_in_the_same_apply_but_bridges_stay_until_all_have_left()
     {
        let changes = [
            change("net", "old", Verdict::Delete, &[]),
            change("publicip", "a", Verdict::Delete, &[]),
            change("publicip", "b", Verdict::Create, &[]),
            change("lxc", "100", Verdict::Modify, &[]),
            change("lxc", "101", Verdict::NoOp, &[]),
        ];
        assert_eq!(
            names(&changes),
            ["publicip/a", "publicip/b", "lxc/100", "net/old"]
        );
    }

    #[test]
    fn what_failed_stops_what_needs_it_and_what_it_stands_on() {
        let create = [
            change("net", "br", Verdict::Create, &[]),
            change("lxc", "100", Verdict::Create, &[("net", "br")]),
            change("lxc", "101", Verdict::Create, &[]),
        ];
        let failed = BTreeSet::from([ResourceRef::new("net", "br")]);
        assert!(obstacle(&create[1], &failed, &create).is_some());
        assert!(obstacle(&create[2], &failed, &create).is_none());
        let delete = [
            change("net", "br", Verdict::Delete, &[]),
            change("lxc", "100", Verdict::Delete, &[("net", "br")]),
        ];
        let failed = BTreeSet::from([ResourceRef::new("lxc", "100")]);
        assert!(obstacle(&delete[0], &failed, &delete).is_some());
    }

    #[test]
    fn what_only_comes_before_is_made_before_and_stops_nothing_but_its_own_end() {
        let of = |verdict| {
            let mut flows = change("ovsflows", "br", verdict, &[]);
            flows.after = vec![ResourceRef::new("lxc", "100")];
            [flows, change("lxc", "100", verdict, &[])]
        };
        let create = of(Verdict::Create);
        assert_eq!(names(&create), ["lxc/100", "ovsflows/br"]);
        assert_eq!(names(&of(Verdict::Delete)), ["ovsflows/br", "lxc/100"]);
        let failed = BTreeSet::from([ResourceRef::new("lxc", "100")]);
        assert!(obstacle(&create[0], &failed, &create).is_none());
        let delete = of(Verdict::Delete);
        let failed = BTreeSet::from([ResourceRef::new("ovsflows", "br")]);
        assert!(obstacle(&delete[1], &failed, &delete).is_some());
    }

    proptest! {
        #[test]
        fn every_pending_change_comes_once_and_after_what_it_needs(edges in proptest::collection::vec((0usize..12, 0usize..12), 0..30)) {
            let ids: Vec<String> = (0..12).map(|n| n.to_string()).collect();
            let changes: Vec<Change> = ids
                .iter()
                .enumerate()
                .map(|(index, id)| {
                    let needs: Vec<(&'static str, &str)> = edges
                        .iter()
                        .filter(|(from, to)| *from == index && to < from)
                        .map(|(_, to)| ("lxc", ids[*to].as_str()))
                        .collect();
                    change("lxc", id, Verdict::Create, &needs)
                })
                .collect();
            let order = sorted(&changes, &BTreeSet::new());
            prop_assert_eq!(order.len(), changes.len());
            for (at, change) in order.iter().enumerate() {
                for need in &change.needs {
                    let before = order.iter().position(|other| other.resource == *need);
                    prop_assert!(before.is_some_and(|before| before < at));
                }
            }
        }

        #[test]
        fn circles_end(edges in proptest::collection::vec((0usize..6, 0usize..6), 0..20)) {
            let ids: Vec<String> = (0..6).map(|n| n.to_string()).collect();
            let changes: Vec<Change> = ids
                .iter()
                .enumerate()
                .map(|(index, id)| {
                    let needs: Vec<(&'static str, &str)> = edges
                        .iter()
                        .filter(|(from, _)| *from == index)
                        .map(|(_, to)| ("lxc", ids[*to].as_str()))
                        .collect();
                    change("lxc", id, Verdict::Create, &needs)
                })
                .collect();
            prop_assert_eq!(sorted(&changes, &BTreeSet::new()).len(), 6);
        }
    }
}
