//! The present allocation, as `/etc/blockhost/broker-allocation.json` has it. The root agent writes the file; so may hands.

use blockhost_proto::json::{self, JsonError};
use blockhost_proto::layout::Layout;
use blockhost_proto::value::{
    BrokerEndpoint, GatewayIpv6, LeaseEnd, MachinePrefix, Param, ValueError, WgKey,
};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The network that machines draw their addresses from.
    pub prefix: MachinePrefix,
    /// Their router, where one is named.
    pub gateway: Option<GatewayIpv6>,
    /// The key of the broker's end of the tunnel; none where a hand wrote the file.
    pub key: Option<WgKey>,
    /// Where that end listens; likewise.
    pub endpoint: Option<BrokerEndpoint>,
    /// When the lease ends, seconds since 1970; without end where it is missing.
    pub lease_until: Option<LeaseEnd>,
}

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The file itself.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not JSON.
    #[error("{} is no JSON: {problem}", path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: JsonError,
    },
    /// Not an object, or without a prefix.
    #[error("{} has no prefix", path.display())]
    NoPrefix {
        /// Which.
        path: PathBuf,
    },
    /// A value that cannot be.
    #[error("{}: {key}: {problem}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What is wrong.
        problem: ValueError,
    },
}

impl Kept {
    /// Where it is.
    #[must_use]
    pub fn path(layout: &Layout) -> PathBuf {
        layout.etc().join("broker-allocation.json")
    }

    /// Reads it; `None` where there is none.
    ///
    /// # Errors
    /// [`KeptError`].
    pub fn load(layout: &Layout) -> Result<Option<Self>, KeptError> {
        let path = Self::path(layout);
        match std::fs::read(&path) {
            Ok(bytes) => Self::read(&path, &bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeptError::Read { path, source }),
        }
    }

    fn read(path: &Path, bytes: &[u8]) -> Result<Self, KeptError> {
        let path = || path.to_owned();
        let value = json::parse(bytes).map_err(|problem| KeptError::Json {
            path: path(),
            problem,
        })?;
        let Value::Object(object) = value else {
            return Err(KeptError::NoPrefix { path: path() });
        };
        let wrong = |key, problem| KeptError::Value {
            path: path(),
            key,
            problem,
        };
        Ok(Self {
            prefix: get(&object, "prefix", wrong)?
                .ok_or_else(|| KeptError::NoPrefix { path: path() })?,
            gateway: get(&object, "gateway", wrong)?,
            key: get(&object, "broker_pubkey", wrong)?,
            endpoint: get(&object, "broker_endpoint", wrong)?,
            lease_until: get(&object, "lease_until", wrong)?,
        })
    }

    /// The broker's end of the tunnel; `None` where no broker gave it.
    #[must_use]
    pub fn far_end(&self) -> Option<(WgKey, &BrokerEndpoint)> {
        Some((self.key?, self.endpoint.as_ref()?))
    }

    /// Seconds that are left of the lease, below zero where it has ended; `None` where it has no end.
    #[must_use]
    pub fn left(&self, now: i64) -> Option<i64> {
        let until = i64::try_from(self.lease_until?.get()).unwrap_or(i64::MAX);
        Some(until.saturating_sub(now))
    }

    /// Whether it should be renewed: half of what is asked for has passed, or nobody knows when it ends.
    #[must_use]
    pub fn is_due(&self, now: i64, lease_s: u64) -> bool {
        let half = i64::try_from(lease_s / 2).unwrap_or(i64::MAX);
        self.left(now).is_none_or(|left| left <= half)
    }

    /// What the lease needs somebody for, in a sentence; nothing while renewals come in time.
    #[must_use]
    pub fn complaint(&self, now: i64, lease_s: u64) -> Option<String> {
        let left = self.left(now)?;
        let quarter = i64::try_from(lease_s / 4).unwrap_or(i64::MAX);
        let look = "blockhost broker renew, and journalctl -u blockhost-broker for what went wrong";
        if left <= 0 {
            return Some(format!(
                "the lease of {} has ended, and the broker may have given it to another host: {look}",
                self.prefix
            ));
        }
        (left <= quarter).then(|| {
            format!(
                "the lease of {} ends in {} h and was not renewed: {look}",
                self.prefix,
                left / 3600
            )
        })
    }
}

fn get<T: Param>(
    object: &Map<String, Value>,
    key: &'static str,
    wrong: impl Fn(&'static str, ValueError) -> KeptError,
) -> Result<Option<T>, KeptError> {
    match object.get(key).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => T::from_json(value).map(Some).map_err(|e| wrong(key, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Kept, String> {
        Kept::read(Path::new("/etc/blockhost/b.json"), text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_hands_wrote_is_an_allocation_without_a_broker() {
        let kept = read(r#"{"prefix": "fd77::/64", "note": [1.5]}"#).unwrap();
        assert_eq!((kept.far_end(), kept.left(0)), (None, None));
        assert_eq!(kept.complaint(i64::MAX, 3600), None);
        for (text, part) in [
            ("", "no JSON"),
            ("[]", "no prefix"),
            ("{}", "no prefix"),
            (r#"{"prefix": "::/0"}"#, "prefix"),
            (
                r#"{"prefix": "fd77::/64", "prefix": "fd78::/64"}"#,
                "no JSON",
            ),
            (
                r#"{"prefix": "fd77::/64", "lease_until": 7}"#,
                "lease_until",
            ),
            (
                r#"{"prefix": "fd77::/64", "broker_pubkey": "x"}"#,
                "broker_pubkey",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(
                error.contains("b.json") && error.contains(part),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_lease_is_renewed_from_its_half_on_and_somebody_is_called_at_a_quarter() {
        let kept = read(r#"{"prefix": "fd77::/64", "lease_until": 1800000000}"#).unwrap();
        let (end, lease) = (1_800_000_000, 7200);
        for (left, due, called) in [
            (7200, false, false),
            (3601, false, false),
            (3600, true, false),
            (1801, true, false),
            (1800, true, true),
            (1, true, true),
            (0, true, true),
            (-9, true, true),
        ] {
            assert_eq!(kept.is_due(end - left, lease), due, "{left}");
            assert_eq!(
                kept.complaint(end - left, lease).is_some(),
                called,
                "{left}"
            );
        }
        assert!(kept.complaint(end, lease).unwrap().contains("has ended"));
        let endless = read(r#"{"prefix": "fd77::/64"}"#).unwrap();
        assert!(endless.is_due(0, lease), "nobody knows when it ends");
    }
}
