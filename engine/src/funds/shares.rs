//! `revenue-share.json`: who gets which part of what the host earns. The rest is the admin's.

use crate::chain::Address;
use crate::config::Config;
use crate::wallets::{Book, BookError, Decimal, Party, PartyError};
use blockhost_proto::json;
use blockhost_proto::layout::Layout;
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

/// The whole, in hundredths of a percent.
pub const WHOLE_BPS: u16 = 10_000;
const MAX_RECIPIENTS: usize = 64;

/// Why the file cannot be used. Nothing is paid then.
#[derive(Debug, thiserror::Error)]
pub enum SharesError {
    /// Unreadable.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not what is expected.
    #[error("{path}: {reason}", path = .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Somebody in it is nobody's.
    #[error("{path} names {who}: {source}", path = .path.display())]
    Who {
        /// Which file.
        path: PathBuf,
        /// Who.
        who: String,
        /// What the address book says.
        source: BookError,
    },
}

/// A recipient's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Who: a name of the address book or an address.
    pub who: Party,
    /// Hundredths of a percent.
    pub bps: u16,
}

/// A recipient whose address is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// As the file names it.
    pub name: String,
    /// Where it is paid.
    pub to: Address,
    /// Hundredths of a percent.
    pub bps: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    total_percent: Option<Value>,
    #[serde(default)]
    total_bps: Option<u16>,
    #[serde(default)]
    recipients: Vec<RawShare>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShare {
    #[serde(alias = "address")]
    role: String,
    #[serde(default)]
    percent: Option<Value>,
    #[serde(default)]
    bps: Option<u16>,
}

fn yes() -> bool {
    true
}

/// `/etc/blockhost/revenue-share.json`.
#[must_use]
pub fn path(layout: &Layout) -> PathBuf {
    layout.etc().join("revenue-share.json")
}

/// Reads the file; a missing one, and one that is not enabled, means that there are no recipients.
///
/// # Errors
/// [`SharesError::Read`], [`SharesError::Content`].
pub fn load(layout: &Layout) -> Result<Vec<Share>, SharesError> {
    let path = path(layout);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(SharesError::Read { path, source }),
    };
    parse(&text).map_err(|reason| SharesError::Content { path, reason })
}

/// The recipients with their addresses.
///
/// # Errors
/// [`SharesError::Who`].
pub fn recipients(
    layout: &Layout,
    config: &Config,
    book: &Book,
    shares: &[Share],
) -> Result<Vec<Recipient>, SharesError> {
    let find = |share: &Share| {
        let to = book
            .address(config, &share.who)
            .map_err(|source| SharesError::Who {
                path: path(layout),
                who: share.who.to_string(),
                source,
            })?;
        Ok(Recipient {
            name: share.who.to_string(),
            to,
            bps: share.bps,
        })
    };
    shares.iter().map(find).collect()
}

/// Reads the text of the file.
///
/// # Errors
/// One sentence.
pub fn parse(text: &str) -> Result<Vec<Share>, String> {
    let value = json::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    // The derived readers would take lists in the place of objects.
    let shares = value.get("recipients").and_then(Value::as_array);
    let objects = shares.is_none_or(|list| list.iter().all(Value::is_object));
    if !value.is_object() || !objects {
        return Err("it has to be an object, and so has each of its recipients".into());
    }
    let raw: Raw = serde_json::from_value(value).map_err(|e| e.to_string())?;
    if raw.recipients.len() > MAX_RECIPIENTS {
        return Err(format!(
            "{} recipients; there may be {MAX_RECIPIENTS}",
            raw.recipients.len()
        ));
    }
    let mut shares: Vec<Share> = Vec::with_capacity(raw.recipients.len());
    let mut sum: u16 = 0;
    for one in &raw.recipients {
        let who: Party = one.role.parse().map_err(|e: PartyError| e.to_string())?;
        if who == Party::Address(Address::ZERO) {
            return Err("the address of nobody is a recipient".into());
        }
        if shares.iter().any(|share| share.who == who) {
            return Err(format!("{who} is a recipient twice"));
        }
        let bps = match (&one.percent, one.bps) {
            (Some(percent), None) => bps_of(percent).map_err(|e| format!("{who}: {e}"))?,
            (None, Some(bps)) => bps,
            _ => return Err(format!("{who}: give either percent or bps")),
        };
        if bps == 0 {
            return Err(format!("{who} would get nothing"));
        }
        sum = sum
            .checked_add(bps)
            .filter(|sum| *sum <= WHOLE_BPS)
            .ok_or_else(|| format!("with {who}, the shares come to more than 100 percent"))?;
        shares.push(Share { who, bps });
    }
    let total = match (&raw.total_percent, raw.total_bps) {
        (Some(percent), None) => Some(bps_of(percent).map_err(|e| format!("total_percent: {e}"))?),
        (None, total) => total,
        (Some(_), Some(_)) => return Err("give either total_percent or total_bps".into()),
    };
    if let Some(total) = total.filter(|total| *total != sum) {
        return Err(format!(
            "the recipients' shares come to {sum} bps, the total says {total}"
        ));
    }
    Ok(if raw.enabled { shares } else { Vec::new() })
}

/// A percentage with at most two decimals: a number, or the same as text.
fn bps_of(percent: &Value) -> Result<u16, String> {
    let text = match percent {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        other => return Err(format!("{other} is not a percentage")),
    };
    let decimal: Decimal = text
        .parse()
        .map_err(|_| format!("{text} is not a percentage"))?;
    let bps = decimal
        .units(2)
        .map_err(|_| format!("{text} percent has more than two decimals"))?;
    u16::try_from(bps)
        .ok()
        .filter(|bps| *bps <= WHOLE_BPS)
        .ok_or_else(|| format!("{text} percent is more than all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bps(text: &str) -> Vec<u16> {
        parse(text).unwrap().iter().map(|share| share.bps).collect()
    }

    #[test]
    fn both_forms_mean_the_same() {
        assert_eq!(
            bps(
                r#"{"enabled": true, "total_percent": 3.5, "recipients": [{"role": "dev", "percent": 1}, {"role": "broker", "percent": 2.5}]}"#
            ),
            [100, 250]
        );
        assert_eq!(
            bps(
                r#"{"total_bps": 350, "recipients": [{"role": "dev", "bps": 100}, {"role": "broker", "bps": 250}]}"#
            ),
            [100, 250]
        );
        assert_eq!(
            bps(r#"{"recipients": [{"role": "dev", "percent": "0.07"}]}"#),
            [7]
        );
        assert_eq!(
            bps(r#"{"recipients": [{"role": "dev", "percent": 100}]}"#),
            [10_000]
        );
        assert_eq!(bps("{}"), [] as [u16; 0]);
        assert_eq!(
            bps(r#"{"enabled": false, "recipients": [{"role": "dev", "percent": 1}]}"#),
            [] as [u16; 0]
        );
    }

    #[test]
    fn more_than_all_and_everything_doubtful_is_refused() {
        let over =
            r#"{"recipients": [{"role": "dev", "percent": 60}, {"role": "broker", "bps": 4001}]}"#;
        assert!(parse(over).unwrap_err().contains("more than 100 percent"));
        for bad in [
            r#"{"recipients": [{"role": "dev"}]}"#,
            r#"{"recipients": [{"role": "dev", "percent": 1, "bps": 100}]}"#,
            r#"{"recipients": [{"role": "dev", "percent": -1}]}"#,
            r#"{"recipients": [{"role": "dev", "percent": 1.001}]}"#,
            r#"{"recipients": [{"role": "dev", "percent": 1e400}]}"#,
            r#"{"recipients": [{"role": "dev", "percent": 100.01}]}"#,
            r#"{"recipients": [{"role": "dev", "bps": 65536}]}"#,
            r#"{"recipients": [{"role": "dev", "bps": 0}]}"#,
            r#"{"recipients": [{"role": "dev", "bps": 1}, {"role": "dev", "bps": 1}]}"#,
            r#"{"recipients": [{"role": "0x0000000000000000000000000000000000000000", "bps": 1}]}"#,
            r#"{"recipients": [{"role": "Dev", "bps": 1}]}"#,
            r#"{"total_bps": 2, "recipients": [{"role": "dev", "bps": 1}]}"#,
            r#"{"total_bps": 1, "total_percent": 0.01, "recipients": [{"role": "dev", "bps": 1}]}"#,
            r#"{"recipients": [{"role": "dev", "bps": 1}], "recipents": []}"#,
            r#"{"recipients": [{"role": "dev", "bps": 1}], "recipients": []}"#,
            r#"{"recipients": [["dev", 1, null]]}"#,
            r#"{"recipients": {"role": "dev", "bps": 1}}"#,
            "[]",
            "",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
