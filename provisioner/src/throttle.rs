//! Limits on what a machine may use, as its record keeps them, and the action that puts them in force. Limits on the network
//! end with the machine's run: whoever starts it puts them in force again.

use blockhost_proto::action::VmThrottle;
use blockhost_proto::value::{CpuLimit, CpuUnits, Iops, RateKbps, ValueError, Vmid};
use serde::{Deserialize, Serialize};

/// The limits of one machine; what is `None` has no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// Weight among the machines when the processor is short, 1 to 10000; 100 is what a machine has without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<CpuUnits>,
    /// Percent of one processor: 150 is one and a half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<CpuQuota>,
    /// Kilobits (1000 bits) per second that it may receive, on each interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_in: Option<RateKbps>,
    /// Kilobits per second that it may send, on each interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_out: Option<RateKbps>,
    /// Reads per second, of each disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops_read: Option<Iops>,
    /// Writes per second, of each disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops_write: Option<Iops>,
}

/// Percent of one processor, 1 to 12800.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct CpuQuota(u16);

impl CpuQuota {
    /// The quota in the agent's terms.
    ///
    /// # Errors
    /// Never for a quota that exists.
    pub fn limit(self) -> Result<CpuLimit, ValueError> {
        format!("{}.{:02}", self.0 / 100, self.0 % 100).parse()
    }
}

impl TryFrom<u16> for CpuQuota {
    type Error = ValueError;
    fn try_from(percent: u16) -> Result<Self, ValueError> {
        if (1..=12_800).contains(&percent) {
            return Ok(Self(percent));
        }
        Err(ValueError::new(
            "processor quota",
            &percent.to_string(),
            "percent of one processor, from 1 to 12800",
        ))
    }
}

impl From<CpuQuota> for u16 {
    fn from(quota: CpuQuota) -> Self {
        quota.0
    }
}

impl std::str::FromStr for CpuQuota {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let percent = digits.then(|| text.parse::<u16>().ok()).flatten();
        percent.unwrap_or(0).try_into().map_err(|_| {
            ValueError::new(
                "processor quota",
                text,
                "percent of one processor, from 1 to 12800",
            )
        })
    }
}

/// What is asked for: limits that are not named stay, unless all are taken away first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// The limits that are named.
    pub named: Throttle,
    /// Take all others away.
    pub reset: bool,
}

impl Throttle {
    /// True without any limit.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// True when its network is limited.
    #[must_use]
    pub const fn limits_network(&self) -> bool {
        self.bandwidth_in.is_some() || self.bandwidth_out.is_some()
    }

    /// The limits after a change.
    #[must_use]
    pub fn changed(self, change: &Change) -> Self {
        let before = if change.reset { Self::default() } else { self };
        let named = change.named;
        Self {
            cpu_shares: named.cpu_shares.or(before.cpu_shares),
            cpu_quota: named.cpu_quota.or(before.cpu_quota),
            bandwidth_in: named.bandwidth_in.or(before.bandwidth_in),
            bandwidth_out: named.bandwidth_out.or(before.bandwidth_out),
            iops_read: named.iops_read.or(before.iops_read),
            iops_write: named.iops_write.or(before.iops_write),
        }
    }

    /// The action that puts these in force; without the network for a machine that is off, which has no interfaces.
    /// `None` when there is nothing to do.
    ///
    /// # Errors
    /// Never for limits that exist.
    pub fn action(
        &self,
        vmid: Vmid,
        reset: bool,
        network: bool,
    ) -> Result<Option<VmThrottle>, ValueError> {
        let action = VmThrottle {
            vmid,
            cpuunits: self.cpu_shares,
            cpulimit: self.cpu_quota.map(CpuQuota::limit).transpose()?,
            iops_rd: self.iops_read,
            iops_wr: self.iops_write,
            rate_in_kbps: self.bandwidth_in.filter(|_| network),
            rate_out_kbps: self.bandwidth_out.filter(|_| network),
            reset,
        };
        let something = reset
            || action.cpuunits.is_some()
            || action.cpulimit.is_some()
            || action.iops_rd.is_some()
            || action.iops_wr.is_some()
            || action.rate_in_kbps.is_some()
            || action.rate_out_kbps.is_some();
        Ok(something.then_some(action))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Throttle {
        Throttle {
            cpu_shares: Some("50".parse().unwrap()),
            bandwidth_in: Some("8000".parse().unwrap()),
            ..Throttle::default()
        }
    }

    #[test]
    fn limits_that_are_not_named_stay_and_reset_takes_them_away() {
        let named = Throttle {
            cpu_quota: Some("150".parse().unwrap()),
            ..Throttle::default()
        };
        let kept = some().changed(&Change {
            named,
            reset: false,
        });
        assert_eq!(
            kept,
            Throttle {
                cpu_quota: named.cpu_quota,
                ..some()
            }
        );
        assert_eq!(some().changed(&Change { named, reset: true }), named);
        let nothing = Change {
            reset: true,
            ..Change::default()
        };
        assert!(some().changed(&nothing).is_none());
    }

    #[test]
    fn a_quota_is_percent_of_one_processor() {
        for (percent, cores) in [
            ("1", "0.01"),
            ("50", "0.5"),
            ("150", "1.5"),
            ("12800", "128"),
        ] {
            let quota: CpuQuota = percent.parse().unwrap();
            assert_eq!(quota.limit().unwrap().to_string(), cores);
        }
        for wrong in ["0", "12801", "-1", "+5", "5%", "1e2", "", "99999", "1.5"] {
            assert!(wrong.parse::<CpuQuota>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_machine_that_is_off_is_not_asked_for_its_interfaces() {
        let vmid = Vmid::try_from(100_u32).unwrap();
        let off = some().action(vmid, false, false).unwrap().unwrap();
        assert_eq!((off.cpuunits.is_some(), off.rate_in_kbps), (true, None));
        let only_network = Throttle {
            cpu_shares: None,
            ..some()
        };
        assert_eq!(only_network.action(vmid, false, false).unwrap(), None);
        assert!(only_network.action(vmid, true, false).unwrap().is_some());
    }

    #[test]
    fn records_with_limits_that_no_agent_takes_are_damaged() {
        for text in [
            r#"{"cpu_quota": 0}"#,
            r#"{"cpu_quota": 12801}"#,
            r#"{"bandwidth_in": 7}"#,
            r#"{"iops_read": -1}"#,
        ] {
            assert!(serde_json::from_str::<Throttle>(text).is_err(), "{text}");
        }
    }
}
