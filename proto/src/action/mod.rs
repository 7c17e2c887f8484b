//! The catalog's source: one file per family, each action a struct with typed fields and everything said about it in one
//! place. Decoding, canonical form, schema, documentation, queueing and ledger fields all come from these definitions.

mod addressbook;
mod agent;
mod attach;
mod broker;
mod container;
mod firewall;
mod image;
mod ledger;
mod link;
mod nat;
mod ovs;
mod proxy;
mod qm;
mod record;
mod route;
mod setting;
mod throttle;
mod trust;
mod veth;
mod wallet;
mod wireguard;

pub use addressbook::AddressbookSave;
pub use agent::AgentInfo;
pub use attach::{ContainerAttach, ContainerDetach, ContainerLook};
pub use broker::BrokerRenew;
pub use container::{
    PctConfig, PctCreate, PctDestroy, PctExec, PctList, PctSet, PctShutdown, PctStart, PctStatus,
    PctStop,
};
pub use firewall::{IptablesClose, IptablesList, IptablesOpen, IptablesSet};
pub use image::{ImageOp, ImageOps, VirtCustomize};
pub use ledger::{
    EventData, EventResource, LedgerAnchored, LedgerAppend, LedgerBlob, LedgerPrune, LedgerShred,
    Reason,
};
pub use link::{LinkHandover, LinkSet};
pub use nat::{MasqueradeList, MasqueradeSet, NatList, NatMap, NatSet, NatUnmap};
pub use ovs::{
    OvsAddBr, OvsAddPort, OvsDelBr, OvsDelPort, OvsList, OvsSetFlows, OvsSetMeter, OvsSetQos,
};
pub use proxy::{ProxyDel, ProxySet};
pub use qm::{
    DriveKey, QmClone, QmConfig, QmCreate, QmDestroy, QmGuestExec, QmGuestPing, QmImportdisk,
    QmList, QmMetrics, QmResize, QmSet, QmShutdown, QmStart, QmStatus, QmStop, QmTemplate,
};
pub use route::{Ip6RouteAdd, Ip6RouteDel, RouteDel, RouteFromDel, RouteFromSet, RouteSet};
pub use setting::SysctlSet;
pub use throttle::{PveSetThrottle, TcRateLimit, VmThrottle};
pub use trust::{CosignedCheckpoint, LedgerCosign, LedgerRotateKey};
pub use veth::VethRename;
pub use wallet::GenerateWallet;
pub use wireguard::{WgSetPeers, WgSetup, WgShow, WgTeardown};

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::catalog::ActionSpec;
use crate::escape;
use crate::response::ErrorCode;
use crate::value::{ValueError, Vmid};

/// Something that only one action at a time may touch, such as `vm:100` or `firewall`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey(String);

impl ResourceKey {
    /// One machine.
    #[must_use]
    pub fn vm(vmid: Vmid) -> Self {
        Self(format!("vm:{vmid}"))
    }

    /// A resource of that name.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with one set of parameters. Foreign text in it is escaped and cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// `params` is not an object.
    #[error("params must be an object, not {given}")]
    NotAnObject {
        /// What it is.
        given: &'static str,
    },
    /// A required parameter is missing.
    #[error("parameter {param} is missing")]
    Missing {
        /// Its name.
        param: &'static str,
    },
    /// A parameter that this action does not have.
    #[error("there is no parameter \"{given}\"; known: {known}")]
    Unknown {
        /// The name given.
        given: String,
        /// The names of those there are.
        known: String,
    },
    /// A parameter under its name and its alias at once.
    #[error("parameter {param} is given twice, also as {alias}")]
    Twice {
        /// Its name.
        param: &'static str,
        /// The second name.
        alias: &'static str,
    },
    /// A value that breaks its type's rule.
    #[error("parameter {param}: {source}")]
    Value {
        /// Its name.
        param: &'static str,
        /// What is wrong with it.
        source: ValueError,
    },
    /// Parameters that are good alone but not together.
    #[error("{what}")]
    Together {
        /// One sentence.
        what: String,
    },
}

/// Why a name and parameters are not an action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// No such action.
    #[error("there is no action \"{name}\"")]
    Unknown {
        /// The name given, escaped and cut.
        name: String,
    },
    /// The parameters are not its.
    #[error("{action}: {source}")]
    Params {
        /// The action.
        action: &'static str,
        /// What is wrong.
        source: ParamError,
    },
}

impl ActionError {
    /// The code to answer with.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown { .. } => ErrorCode::UnknownAction,
            Self::Params { .. } => ErrorCode::BadParams,
        }
    }
}

/// What every action's struct can do. Implemented by the `action!` macro; the hooks come from the family's file.
pub trait ActionParams: Sized {
    /// Everything that is said about the action.
    const SPEC: ActionSpec;
    /// Reads the parameters.
    ///
    /// # Errors
    /// [`ParamError`] for the first rule that is broken.
    fn decode(params: &Map<String, Value>) -> Result<Self, ParamError>;
    /// Canonical parameters: defaults written out, absent ones left out.
    fn encode(&self) -> Map<String, Value>;
    /// What must not be touched by another action meanwhile.
    fn resources(&self) -> Vec<ResourceKey>;
    /// What of that it only reads, while it changes the rest: others may read it, too.
    fn sources(&self) -> Vec<ResourceKey>;
    /// The `resource` field of its ledger records.
    fn ledger_resource(&self) -> String;
    /// Names of parameters whose values are secret in this request.
    fn secrets(&self) -> &'static [&'static str];
    /// How long it may run, where that depends on the parameters.
    fn time_limit(&self) -> Duration;
}

/// Defines an action: struct, spec, decoding, encoding. See any family file for its use.
macro_rules! action {
    (
        $(#[doc = $doc:literal])+
        $Name:ident = $name:literal, family $family:literal, compartment $comp:ident, capabilities $caps:expr,
        time_limit_s $limit:literal, read_only $ro:literal, ledger $plugin:literal / $category:literal / $operation:literal,
        $(aliases $aliases:expr,)?
        {
            $( $(#[doc = $fdoc:literal])+ $field:ident $([$($falias:literal),+])? : $ty:ty $(= $default:expr)? ),* $(,)?
        }
        $(check $check:expr,)?
        $(resources $resources:expr,)?
        $(sources $sources:expr,)?
        $(resource $resource:expr,)?
        $(secrets $secrets:expr,)?
        $(duration $duration:expr,)?
        $(returns $returns:expr,)?
        $(example $example:literal,)?
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $Name {
            $( $(#[doc = $fdoc])+ pub $field: $ty, )*
        }

        impl $crate::action::ActionParams for $Name {
            const SPEC: $crate::catalog::ActionSpec = $crate::catalog::ActionSpec {
                name: $name,
                aliases: $crate::action::either!($($aliases)?, &[]),
                family: $family,
                summary: concat!($($doc),+),
                params: &[ $( $crate::catalog::ParamSpec {
                    name: stringify!($field),
                    aliases: $crate::action::either!($(&[$($falias),+])?, &[]),
                    required: !(<$ty as $crate::value::Param>::OPTIONAL $(|| { let _ = stringify!($default); true })?),
                    default: $crate::action::either!($(Some(|| $crate::value::Param::to_json(&{ let v: $ty = $default; v })))?, None),
                    summary: concat!($($fdoc),+),
                    schema: <$ty as $crate::value::Param>::schema,
                } ),* ],
                compartment: $crate::catalog::Compartment::$comp,
                capabilities: $caps,
                time_limit_s: $limit,
                read_only: $ro,
                plugin_id: $plugin,
                category: $category,
                operation: $operation,
                returns: $crate::action::either!($($returns)?, &[]),
                example: $crate::action::either!($($example)?, "{}"),
            };

            #[allow(unused_mut, unused_variables, reason = "actions without parameters")]
            fn decode(params: &serde_json::Map<String, serde_json::Value>) -> Result<Self, $crate::action::ParamError> {
                $crate::action::known_only(&Self::SPEC, params)?;
                let mut specs = Self::SPEC.params.iter();
                $(
                    let $field: $ty = $crate::action::take(
                        specs.next(), params, $crate::action::either!($(Some(|| $default))?, None::<fn() -> $ty>))?;
                )*
                let this = Self { $($field),* };
                $( let check: fn(&Self) -> Result<(), $crate::action::ParamError> = $check; check(&this)?; )?
                Ok(this)
            }

            #[allow(unused_mut, reason = "actions without parameters")]
            fn encode(&self) -> serde_json::Map<String, serde_json::Value> {
                let mut map = serde_json::Map::new();
                $( if let Some(value) = $crate::value::Param::to_json(&self.$field) {
                    map.insert(stringify!($field).to_owned(), value);
                } )*
                map
            }

            fn resources(&self) -> Vec<$crate::action::ResourceKey> {
                let f: fn(&Self) -> Vec<$crate::action::ResourceKey> = $crate::action::either!($($resources)?, |_| Vec::new());
                f(self)
            }

            fn sources(&self) -> Vec<$crate::action::ResourceKey> {
                let f: fn(&Self) -> Vec<$crate::action::ResourceKey> = $crate::action::either!($($sources)?, |_| Vec::new());
                f(self)
            }

            fn ledger_resource(&self) -> String {
                let f: fn(&Self) -> String = $crate::action::either!($($resource)?, |_| $family.to_owned());
                f(self)
            }

            fn secrets(&self) -> &'static [&'static str] {
                let f: fn(&Self) -> &'static [&'static str] = $crate::action::either!($($secrets)?, |_| &[]);
                f(self)
            }

            fn time_limit(&self) -> std::time::Duration {
                let f: fn(&Self) -> std::time::Duration =
                    $crate::action::either!($($duration)?, |_| std::time::Duration::from_secs($limit));
                f(self)
            }
        }
    };
}

/// The first expression where there is one, else the fallback.
macro_rules! either {
    (, $fallback:expr) => {
        $fallback
    };
    ($given:expr, $fallback:expr) => {
        $given
    };
}

pub(crate) use {action, either};

/// Refuses parameters that the action does not have.
fn known_only(spec: &ActionSpec, params: &Map<String, Value>) -> Result<(), ParamError> {
    let known = |name: &str| {
        spec.params
            .iter()
            .any(|p| p.name == name || p.aliases.contains(&name))
    };
    match params.keys().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => Err(ParamError::Unknown {
            given: escape::shown(name),
            known: if spec.params.is_empty() {
                "none".to_owned()
            } else {
                spec.params
                    .iter()
                    .map(|p| p.name)
                    .collect::<Vec<_>>()
                    .join(", ")
            },
        }),
    }
}

/// Reads one parameter under its name or an alias.
fn take<T: crate::value::Param>(
    spec: Option<&crate::catalog::ParamSpec>,
    params: &Map<String, Value>,
    default: Option<impl FnOnce() -> T>,
) -> Result<T, ParamError> {
    // The macro asks for exactly as many parameters as it declared.
    let Some(spec) = spec else {
        return Err(ParamError::NotAnObject {
            given: "an unknown parameter",
        });
    };
    let mut found = params.get(spec.name);
    for alias in spec.aliases {
        if let Some(value) = params.get(*alias) {
            if found.is_some() {
                return Err(ParamError::Twice {
                    param: spec.name,
                    alias,
                });
            }
            found = Some(value);
        }
    }
    match found {
        Some(value) => T::from_json(value).map_err(|source| ParamError::Value {
            param: spec.name,
            source,
        }),
        None => default
            .map(|f| f())
            .or_else(T::absent)
            .ok_or(ParamError::Missing { param: spec.name }),
    }
}

macro_rules! actions {
    ($($Name:ident),+ $(,)?) => {
        /// One validated request: what exists as a value of this type obeys every rule that does not depend on policy.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Action {
            $( #[doc = concat!("See [`struct@", stringify!($Name), "`].")] $Name($Name), )+
        }

        /// Every action, in catalog order.
        pub(crate) const SPECS: &[ActionSpec] = &[$(<$Name as ActionParams>::SPEC),+];

        $( impl From<$Name> for Action { fn from(action: $Name) -> Self { Self::$Name(action) } } )+

        impl Action {
            fn decode(spec: &ActionSpec, params: &Map<String, Value>) -> Result<Self, ParamError> {
                $( if spec.name == <$Name as ActionParams>::SPEC.name { return $Name::decode(params).map(Self::$Name); } )+
                Err(ParamError::Unknown { given: spec.name.to_owned(), known: String::new() })
            }

            /// What the catalog says about it.
            #[must_use]
            pub fn spec(&self) -> &'static ActionSpec {
                match self { $( Self::$Name(_) => const { &<$Name as ActionParams>::SPEC }, )+ }
            }

            fn encode(&self) -> Map<String, Value> {
                match self { $( Self::$Name(action) => action.encode(), )+ }
            }

            /// What it locks: actions that share a key run one after the other, in order of arrival.
            #[must_use]
            pub fn resources(&self) -> Vec<ResourceKey> {
                match self { $( Self::$Name(action) => action.resources(), )+ }
            }

            fn sources(&self) -> Vec<ResourceKey> {
                match self { $( Self::$Name(action) => action.sources(), )+ }
            }

            /// The same, each with whether others that only read it may do so meanwhile.
            #[must_use]
            pub fn claims(&self) -> Vec<(ResourceKey, bool)> {
                let (reads, sources) = (self.spec().read_only, self.sources());
                let claim = |key| (reads || sources.contains(&key), key);
                self.resources().into_iter().map(claim).map(|(shared, key)| (key, shared)).collect()
            }

            /// The `resource` field of its ledger records.
            #[must_use]
            pub fn ledger_resource(&self) -> String {
                match self { $( Self::$Name(action) => action.ledger_resource(), )+ }
            }

            fn secrets(&self) -> &'static [&'static str] {
                match self { $( Self::$Name(action) => action.secrets(), )+ }
            }

            /// How long it may run; never more than the catalog's `time_limit_s`.
            #[must_use]
            pub fn time_limit(&self) -> Duration {
                match self { $( Self::$Name(action) => action.time_limit(), )+ }
            }
        }
    };
}

actions! {
    QmStart, QmStop, QmTemplate, QmShutdown, QmDestroy, QmCreate, QmSet, QmImportdisk, QmClone, QmResize,
    QmStatus, QmConfig, QmList, QmMetrics, QmGuestPing, QmGuestExec,
    PctCreate, PctStart, PctStop, PctShutdown, PctDestroy, PctStatus, PctConfig, PctList, PctSet, PctExec,
    VmThrottle, PveSetThrottle, TcRateLimit,
    VirtCustomize,
    Ip6RouteAdd, Ip6RouteDel, RouteSet, RouteDel, RouteFromSet, RouteFromDel,
    IptablesOpen, IptablesClose, IptablesList, IptablesSet,
    NatMap, NatUnmap, NatList, NatSet, ProxySet, ProxyDel, MasqueradeSet, MasqueradeList, SysctlSet,
    VethRename, LinkSet, LinkHandover,
    OvsAddBr, OvsDelBr, OvsAddPort, OvsDelPort, OvsSetFlows, OvsSetQos, OvsSetMeter, OvsList,
    ContainerLook, ContainerAttach, ContainerDetach,
    WgSetup, WgSetPeers, WgTeardown, WgShow,
    GenerateWallet, AddressbookSave, BrokerRenew, LedgerAppend, LedgerAnchored, LedgerBlob, LedgerShred,
    LedgerPrune, LedgerCosign, LedgerRotateKey, AgentInfo,
}

impl Action {
    /// Reads an action from its catalog name (or an alias) and its parameters.
    ///
    /// # Errors
    /// [`ActionError`] for an unknown name or parameters that break a rule.
    pub fn from_parts(name: &str, params: &Value) -> Result<Self, ActionError> {
        let spec = crate::catalog::find(name).ok_or_else(|| ActionError::Unknown {
            name: escape::shown(name),
        })?;
        let params = params.as_object().ok_or_else(|| ActionError::Params {
            action: spec.name,
            source: ParamError::NotAnObject {
                given: crate::json::kind(params),
            },
        })?;
        Self::decode(spec, params).map_err(|source| ActionError::Params {
            action: spec.name,
            source,
        })
    }

    /// Catalog name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.spec().name
    }

    /// Canonical parameters; [`Self::from_parts`] gives the same action back.
    #[must_use]
    pub fn params(&self) -> Value {
        Value::Object(self.encode())
    }
}

#[cfg(test)]
mod edges;
#[cfg(test)]
mod tests;
