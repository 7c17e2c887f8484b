//! The section of the document: pools and assignments, one by one.

use blockhost_proto::value::NatAddress;
use serde_json::Value;

use super::{Announce, Assignment, Offer};
use crate::network::pools::Pool;
use crate::state::fields::{Fields, Place, Wrong};

/// A pool.
pub(super) fn offer(item: &Value, place: Place) -> Result<Offer, Wrong> {
    let mut fields = Fields::new(item, place.clone())?;
    let text = |value: &Value, place: Place| {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| Wrong::new(place, "must be a text"))
    };
    let range = match fields.raw("range") {
        Some(value) => text(value, place.key("range"))?,
        None => return Err(Wrong::new(place, "the key \"range\" is missing")),
    };
    let mut exclude = Vec::new();
    for (item, place) in fields.list("exclude")? {
        let one = text(item, place.clone())?;
        Pool::new(&one, &[], None).map_err(|e| Wrong::new(place, e.to_string()))?;
        exclude.push(one);
    }
    let gateway: Option<NatAddress> = fields.get("gateway")?;
    let announce = match fields.object("announce")? {
        Some(mut inner) => {
            let announce = Announce {
                uplink: inner.need("uplink")?,
                behind: inner.need("behind")?,
            };
            if announce.uplink == announce.behind {
                return Err(inner.wrong("behind", "must be another device than the uplink"));
            }
            inner.finish()?;
            Some(announce)
        }
        None => None,
    };
    fields.finish()?;
    let pool = Pool::new(&range, &exclude, gateway.map(NatAddress::address))
        .map_err(|error| Wrong::new(place.key("range"), error.to_string()))?;
    Ok(Offer { pool, announce })
}

/// An assignment, its pools not yet known.
pub(super) fn assignment(item: &Value, place: Place) -> Result<Assignment, Wrong> {
    let mut fields = Fields::new(item, place)?;
    let assignment = Assignment {
        holder: fields.need("holder")?,
        private: fields.need("private")?,
        public: fields.get("public")?,
        announce: None,
        pools: std::sync::Arc::default(),
    };
    if let Some(public) = assignment.public {
        let (out, inside) = (public.address(), assignment.private.address());
        if out.is_ipv4() != inside.is_ipv4() || out == inside {
            let problem = format!("must be another address of the same family as {inside}");
            return Err(fields.wrong("public", problem));
        }
    }
    fields.finish()?;
    Ok(assignment)
}
