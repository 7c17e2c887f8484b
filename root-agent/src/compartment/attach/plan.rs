//! What is to be done with the two ends of a container's wire, from what bears their names now. Pure.

/// A device that has the name of one of the ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) index: u32,
    /// Number of its other end, in the namespace where that is.
    pub(super) other: Option<u32>,
    /// Made here, by the mark that it got with its birth.
    pub(super) ours: bool,
    /// What is written beside it.
    pub(super) alias: Option<String>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Neither is there.
    Make,
    /// Both are, and belong together.
    Keep,
    /// The one on the host is left from an earlier life of the container, or from an agent that was killed.
    Replace,
    /// A name is taken by what is not this container's.
    Refuse(Taken),
}

/// Which name is taken, by what.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The host's, by a device of somebody else.
    ByOthers,
    /// The host's, by the wire of another container.
    ByContainer,
    /// The one inside.
    Inside,
}

/// Whose it is, of what is written beside an end: everything up to the first space.
fn owner(written: &str) -> &str {
    written.split(' ').next().unwrap_or_default()
}

/// Decides. `wanted` is what stands first beside both ends of this container's wire.
pub(super) fn plan(host: Option<&End>, inside: Option<&End>, wanted: &str) -> Plan {
    let Some(host) = host else {
        return match inside {
            None => Plan::Make,
            Some(_) => Plan::Refuse(Taken::Inside),
        };
    };
    let finished = match &host.alias {
        _ if !host.ours => return Plan::Refuse(Taken::ByOthers),
        Some(written) if owner(written) != wanted => return Plan::Refuse(Taken::ByContainer),
        written => written.is_some(),
    };
    match inside {
        None => Plan::Replace,
        // Numbers of devices are of one namespace each, so both have to say it.
        Some(end) if host.other == Some(end.index) && end.other == Some(host.index) => {
            if finished {
                Plan::Keep
            } else {
                Plan::Replace
            }
        }
        Some(_) => Plan::Refuse(Taken::Inside),
    }
}

/// Whether the wire may be removed for this container.
pub(super) fn may_remove(host: &End, wanted: &str) -> Result<(), Taken> {
    match plan(Some(host), None, wanted) {
        Plan::Refuse(taken) => Err(taken),
        Plan::Make | Plan::Keep | Plan::Replace => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "blockhost:container:a";

    fn end(index: u32, other: u32, alias: Option<&str>) -> End {
        End {
            index,
            other: Some(other),
            ours: true,
            alias: alias.map(str::to_owned),
        }
    }

    #[test]
    fn a_wire_is_kept_only_where_both_ends_say_that_they_belong_together() {
        let (host, inside) = (end(9, 2, Some(OWN)), end(2, 9, Some(OWN)));
        assert_eq!(plan(None, None, OWN), Plan::Make);
        assert_eq!(plan(Some(&host), Some(&inside), OWN), Plan::Keep);
        let more = end(9, 2, Some("blockhost:container:a 4026532281 10.101.0.7/24"));
        assert_eq!(plan(Some(&more), Some(&inside), OWN), Plan::Keep);
        for other in [end(2, 8, Some(OWN)), end(3, 9, Some(OWN))] {
            let refused = Plan::Refuse(Taken::Inside);
            assert_eq!(plan(Some(&host), Some(&other), OWN), refused);
        }
        let lone = End {
            other: None,
            ..inside.clone()
        };
        assert_eq!(
            plan(Some(&host), Some(&lone), OWN),
            Plan::Refuse(Taken::Inside)
        );
        assert_eq!(plan(None, Some(&inside), OWN), Plan::Refuse(Taken::Inside));
    }

    #[test]
    fn what_a_killed_agent_or_an_earlier_life_left_is_replaced() {
        let unfinished = end(9, 2, None);
        assert_eq!(plan(Some(&unfinished), None, OWN), Plan::Replace);
        assert_eq!(
            plan(Some(&unfinished), Some(&end(2, 9, None)), OWN),
            Plan::Replace
        );
        assert_eq!(plan(Some(&end(9, 2, Some(OWN))), None, OWN), Plan::Replace);
        assert_eq!(may_remove(&unfinished, OWN), Ok(()));
    }

    #[test]
    fn what_belongs_to_others_is_neither_replaced_nor_removed() {
        let foreign = End {
            ours: false,
            ..end(9, 2, Some(OWN))
        };
        let sibling = end(9, 2, Some("blockhost:container:b"));
        let prefix = end(9, 2, Some("blockhost:container:"));
        for (host, taken) in [
            (&foreign, Taken::ByOthers),
            (&sibling, Taken::ByContainer),
            (&prefix, Taken::ByContainer),
        ] {
            let inside = end(2, 9, Some(OWN));
            for inside in [None, Some(&inside)] {
                let Plan::Refuse(found) = plan(Some(host), inside, OWN) else {
                    panic!("{host:?} is used");
                };
                assert_eq!(found, taken);
            }
            assert_eq!(may_remove(host, OWN), Err(taken));
        }
    }
}
