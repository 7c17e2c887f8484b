//! Moments as the database keeps them: RFC 3339, UTC, whole seconds. Older databases without a zone mean UTC.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

/// A text that is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{given}\" is not a time such as 2026-01-31T12:00:00Z")]
pub struct TimeError {
    given: String,
}

/// 9999-12-30T22:00:00Z: as far as jiff's timestamps go.
const MAX: i64 = 253_402_207_200;

impl Time {
    /// This moment, by the system clock.
    #[must_use]
    pub fn now() -> Self {
        Self::from_unix(Timestamp::now().as_second())
    }

    /// Seconds since 1970; clamped to the years 1970 to 9999.
    #[must_use]
    pub fn from_unix(seconds: i64) -> Self {
        Self(seconds.clamp(0, MAX))
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn unix(self) -> i64 {
        self.0
    }

    /// That many hours later.
    #[must_use]
    pub fn plus_hours(self, hours: u32) -> Self {
        Self::from_unix(self.0.saturating_add(i64::from(hours) * 3600))
    }

    /// That many days later.
    #[must_use]
    pub fn plus_days(self, days: u32) -> Self {
        Self::from_unix(self.0.saturating_add(i64::from(days) * 86_400))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timestamp = Timestamp::UNIX_EPOCH
            .saturating_add(SignedDuration::from_secs(self.0))
            .map_err(|_| fmt::Error)?;
        write!(f, "{timestamp:.0}")
    }
}

impl FromStr for Time {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let wrong = || TimeError {
            given: blockhost_proto::escape::shown(text),
        };
        if let Ok(timestamp) = text.parse::<Timestamp>() {
            return Ok(Self::from_unix(timestamp.as_second()));
        }
        let with_zone = format!("{}Z", text.trim());
        with_zone
            .parse::<Timestamp>()
            .map(|t| Self::from_unix(t.as_second()))
            .map_err(|_| wrong())
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_no_times_are_refused() {
        for text in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-01-01",
            "1700000000",
        ] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_printed_as_utc_seconds_and_read_back() {
        let time: Time = "2026-03-01T13:00:00.5+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-03-01T12:00:00Z");
        assert_eq!("2026-03-01T12:00:00".parse::<Time>().unwrap(), time);
        assert_eq!(time.plus_days(1).to_string(), "2026-03-02T12:00:00Z");
        assert_eq!(time.plus_days(u32::MAX).to_string(), "9999-12-30T22:00:00Z");
    }
}
