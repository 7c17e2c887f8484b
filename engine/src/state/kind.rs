//! What one plugin has to say, with its own types: how its section is read, what there is, and what has to be done about one
//! resource. Everything that is the same for all of them (maps, ownership, rounds, undoing) is in [`super::plugin`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::change::{Planned, ResourceRef};
use super::fields::{Fields, Wrong};
use super::host::{Host, HostError};

/// What was recorded of a resource when it was last applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As the document had it, without secrets.
    pub wanted: Value,
    /// False while an apply is at it, and for ever when that was interrupted.
    pub finished: bool,
    /// While it is not finished: what was applied to its end before.
    pub before: Option<Value>,
    /// It is being taken away, or was when that was interrupted.
    pub leaving: bool,
}

impl Entry {
    /// Of what was applied to its end.
    #[must_use]
    pub fn applied(wanted: Value) -> Self {
        Self {
            wanted,
            finished: true,
            before: None,
            leaving: false,
        }
    }

    /// What was applied to its end last and is to be there; none where that was its first, or when it is to go.
    #[must_use]
    pub fn standing(&self) -> Option<&Value> {
        self.whole().filter(|_| !self.leaving)
    }

    /// What was applied to its end last, also of what is to go.
    #[must_use]
    pub fn whole(&self) -> Option<&Value> {
        if self.finished {
            Some(&self.wanted)
        } else {
            self.before.as_ref()
        }
    }

    /// What may be there, the likeliest first: what was applied to its end, and what an interrupted apply was at.
    pub fn may_be_there(&self) -> impl Iterator<Item = &Value> {
        let begun = (!self.finished).then_some(&self.wanted);
        self.whole().into_iter().chain(begun)
    }
}

/// The records of one plugin.
pub type Known = BTreeMap<String, Entry>;

/// Which resources are looked at.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// Whatever can be found.
    Everything,
    /// These, if they are there.
    These(&'a BTreeSet<String>),
}

impl Scope<'_> {
    /// Whether a resource is asked for.
    #[must_use]
    pub fn holds(&self, id: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::These(ids) => ids.contains(id),
        }
    }
}

/// One kind of resources.
pub trait Kind: Send + Sync + 'static {
    /// Its section in the document.
    const NAME: &'static str;
    /// How something that exists is handed over to this engine, for the refusal to touch it.
    const HANDOVER: &'static str;
    /// True for what others stand on: it is deleted after everything else is done.
    const DELETED_LAST: bool = false;
    /// False for what holds data: one that is gone is not made again at a start of the machine, which would be an empty one.
    const MADE_AGAIN: bool = true;
    /// One resource as the document has it.
    type Wanted: Clone + Send + Sync + 'static;
    /// One resource as it is.
    type Found: Clone + Serialize + Send + Sync + 'static;

    /// Takes a section apart.
    ///
    /// # Errors
    /// [`Wrong`] with the place.
    fn read(&self, section: Fields<'_>) -> Result<BTreeMap<String, Self::Wanted>, Wrong>;

    /// As it is printed and recorded: canonical, and without secrets.
    fn show(&self, wanted: &Self::Wanted) -> Value;

    /// Back from what was recorded; `None` where that cannot be read any more.
    fn revive(&self, id: &str, shown: &Value) -> Option<Self::Wanted>;

    /// Decides what the document leaves open, such as an address out of a pool, from what was decided before. Answers
    /// why a resource cannot be had.
    fn resolve(
        &self,
        _wanted: &mut BTreeMap<String, Self::Wanted>,
        _found: &BTreeMap<String, Self::Found>,
        _known: &Known,
    ) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// What there is.
    ///
    /// # Errors
    /// [`HostError`].
    fn look(
        &self,
        host: &mut dyn Host,
        scope: Scope<'_>,
    ) -> Result<BTreeMap<String, Self::Found>, HostError>;

    /// What has to be done so that it is as it should be. Pure.
    fn plan(
        &self,
        id: &str,
        wanted: &Self::Wanted,
        found: Option<&Self::Found>,
        before: Option<&Entry>,
    ) -> Planned;

    /// What has to be done so that it is gone. Pure.
    fn plan_delete(&self, id: &str, found: &Self::Found, before: &Entry) -> Planned;

    /// What has to be right before.
    fn needs(&self, _id: &str, _wanted: &Self::Wanted) -> Vec<ResourceRef> {
        Vec::new()
    }

    /// What comes before it where it is made, and is no obstacle where it is not.
    fn after(&self, _id: &str, _wanted: &Self::Wanted) -> Vec<ResourceRef> {
        Vec::new()
    }

    /// Whether what was found is the resource itself, and not only something that stands in its place.
    fn is_there(&self, _found: &Self::Found) -> bool {
        true
    }

    /// Why it cannot be deleted now, when everything that was to go before it is gone.
    fn in_use(&self, _found: &Self::Found) -> Option<String> {
        None
    }

    /// What is wrong with it that may pass by itself, and makes the apply fail where it does not.
    fn complaints(&self, _wanted: &Self::Wanted, _found: &Self::Found) -> Vec<String> {
        Vec::new()
    }

    /// What somebody should know about it and no action can change.
    fn remarks(&self, _wanted: &Self::Wanted, _found: &Self::Found) -> Vec<String> {
        Vec::new()
    }
}
