//! `nat-map` and `nat-unmap`: what [`super::nat`] plans, run by the firewall's programs; and the connections that used a
//! translation that is gone.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use blockhost_proto::action::{NatMap, NatSet, NatUnmap};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{Comment, NatAddress};
use serde_json::{Map, Value, json};

use super::firewall::{Firewall, too_many_given};
use super::nat::{Pair, Refusal, State};
use super::rules::Family;
use crate::compartment::{Done, Failure};
use blockhost_netlink::{Netlink, NetlinkError};

/// Table that the rules stand in.
const TABLE: &str = "nat";

/// The connection tracker's socket, or why there is none: translation itself works without.
#[derive(Debug)]
pub(super) struct Tracker(Result<Mutex<Netlink>, NetlinkError>);

fn pair(public: NatAddress, private: NatAddress, comment: &Comment) -> (Family, Pair) {
    let (public, private) = (public.address(), private.address());
    let family = if public.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let pair = Pair {
        public,
        private,
        comment: comment.to_string(),
    };
    (family, pair)
}

impl Tracker {
    pub(super) fn open() -> Self {
        Self(Netlink::open_conntrack().map(Mutex::new))
    }

    /// A clause for the answer: what became of the connections.
    fn forget(&self, pair: &Pair) -> String {
        let result = match &self.0 {
            Ok(netlink) => netlink
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .forget_translated(pair.public, pair.private)
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match result {
            Ok(count) => format!("{count} of its connections forgotten"),
            Err(why) => format!("its connections go on until they end by themselves: {why}"),
        }
    }
}

impl Firewall {
    pub(super) fn map(
        &self,
        action: &NatMap,
        most: usize,
        deadline: Instant,
    ) -> Result<Done, Failure> {
        let (family, pair) = pair(action.public, action.private, &action.comment);
        let Pair {
            public,
            private,
            comment,
        } = &pair;
        let added = self.change(family, TABLE, State::parse, deadline, |state: &State| {
            // Every new connection passes these rules, so their number is bounded.
            if state.lacks(&pair) && state.len() >= most {
                return Err(Failure::new(
                    ErrorCode::Conflict,
                    format!(
                        "{most} addresses are mapped already; unmap some, or have `limits.firewall_rules` of root-agent.yaml raised"
                    ),
                ));
            }
            match state.plan_map(&pair) {
                Ok(plan) => Ok(plan.map(|plan| (plan, state.lacks(&pair)))),
                Err(Refusal::Taken(other)) => Err(Failure::new(
                    ErrorCode::Conflict,
                    format!(
                        "{public} cannot stand for {private} (comment {comment}): {} stands for {} already (comment {}); unmap that first",
                        other.public, other.private, other.comment
                    ),
                )),
            }
        })?;
        let output = if added == Some(true) {
            format!("{public} stands for {private} (comment {comment})")
        } else {
            format!("{public} stood for {private} already (comment {comment})")
        };
        Ok(Done {
            output,
            ..Done::default()
        })
    }

    /// Makes these the only pairs. A family that fails does not keep the other from it; the same again completes it.
    pub(super) fn set_pairs(
        &self,
        action: &NatSet,
        tracker: &Tracker,
        most: usize,
        deadline: Instant,
    ) -> Result<Done, Failure> {
        let all: Vec<(Family, Pair)> = action
            .pairs
            .iter()
            .map(|given| pair(given.public, given.private, &given.comment))
            .collect();
        if all.len() > most {
            return Err(too_many_given(all.len(), most));
        }
        let (mut mapped, mut unmapped) = (0, 0);
        let plan = |family, state: &State| {
            let of_family = all.iter().filter(|(of, _)| *of == family);
            let pairs: Vec<Pair> = of_family.map(|(_, pair)| pair.clone()).collect();
            let what = (
                state.missing(&pairs),
                state.surplus(&pairs),
                state.gone(&pairs),
            );
            Ok(state.plan_set(&pairs).map(|plan| (plan, what)))
        };
        let done = |_, (missing, surplus, gone): (usize, usize, Vec<Pair>)| {
            mapped += missing;
            unmapped += surplus;
            // The next who gets the address must not get the connections.
            for pair in &gone {
                tracker.forget(pair);
            }
        };
        self.both_families(TABLE, State::parse, deadline, plan, done)?;
        Ok(Done {
            output: format!(
                "{} pairs stand and no others; {mapped} made, {unmapped} taken away",
                all.len()
            ),
            ..Done::default()
        })
    }

    /// The pairs of both families, from the rules themselves. Nothing changes by it.
    pub(super) fn pairs(&self, deadline: Instant) -> Result<Done, Failure> {
        let mut list = Vec::new();
        let mut clean = true;
        for family in [Family::V4, Family::V6] {
            let state = State::parse(&self.read(family, TABLE, deadline)?);
            clean &= state.is_clean();
            list.extend(state.pairs().into_iter().map(|(pair, whole)| {
                json!({
                    "public": pair.public, "private": pair.private, "comment": pair.comment, "whole": whole,
                })
            }));
        }
        Ok(Done {
            output: Value::from(list).to_string(),
            extra: Map::from_iter([("clean".to_owned(), clean.into())]),
        })
    }

    pub(super) fn unmap(
        &self,
        action: &NatUnmap,
        tracker: &Tracker,
        deadline: Instant,
    ) -> Result<Done, Failure> {
        let (family, pair) = pair(action.public, action.private, &action.comment);
        let Pair {
            public,
            private,
            comment,
        } = &pair;
        let free = Cell::new(false);
        let removed = self.change(family, TABLE, State::parse, deadline, |state: &State| {
            free.set(state.is_free(&pair));
            Ok(state.plan_unmap(&pair).map(|plan| (plan, ())))
        })?;
        if removed.is_none() {
            // Whoever died between the rules and their connections left those; the next owner must not get them.
            if free.get() {
                tracker.forget(&pair);
            }
            let message = format!(
                "{public} does not stand for {private}; addresses and comment ({comment}) must be those it was mapped with"
            );
            return Err(Failure::new(ErrorCode::NotFound, message));
        }
        Ok(Done {
            output: format!(
                "{public} no longer stands for {private}; {}",
                tracker.forget(&pair)
            ),
            ..Done::default()
        })
    }
}
