//! `sysctl-set`: the few settings of the host's network that public addresses and the mesh need and that no device of ours
//! has. A closed list by names of our own; none of the kernel's names is ever taken from a request.

use serde_json::json;

use super::{ParamError, ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::value::{HostSetting, IfName};

action! {
    /// Switches one setting of the host's network, of those that the policy lists. `ipv4-forwarding` and `ipv6-proxy` are of
    /// an uplink, `ipv6-forwarding` of the whole host. Where the kernel takes the host's own way out from routers'
    /// advertisements, it would forget it with `ipv6-forwarding`: uplinks are told before to keep it, and where such a way
    /// leads out of another device the request is refused. The same again changes nothing; the opposite takes it back. None of it
    /// outlives a start of the machine.
    SysctlSet = "sysctl-set", family "sysctl", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 10, read_only false, ledger "net" / "network" / "modify",
    {
        /// Which.
        setting: HostSetting,
        /// Whether it is on from now on.
        on: bool,
        /// The device that it is of: an uplink of the policy; none for `ipv6-forwarding`.
        dev: Option<IfName>,
    }
    check |a| {
        let what = match &a.dev {
            None if a.setting.is_of_a_device() => format!("{} is of a device: dev must be given", a.setting),
            Some(_) if !a.setting.is_of_a_device() => format!("{} is of the whole host: dev must not be given", a.setting),
            // What the kernel calls its settings of all devices at once, and of those to come.
            Some(dev) if ["all", "default"].contains(&dev.as_str()) => format!("dev must be one device, not {dev}"),
            _ => return Ok(()),
        };
        Err(ParamError::Together { what })
    },
    resources |a| match &a.dev {
        Some(dev) => vec![ResourceKey::named(format!("link:{dev}"))],
        None => vec![ResourceKey::named("sysctl")],
    },
    resource |a| match &a.dev {
        Some(dev) => format!("sysctl:{}:{dev}", a.setting),
        None => format!("sysctl:{}", a.setting),
    },
    returns &[
        FieldSpec::new("before", "Whether it was on before.", || json!({"type": "boolean"})),
    ],
    example r#"{"setting": "ipv6-proxy", "dev": "eth0", "on": true}"#,
}
