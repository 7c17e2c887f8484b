//! How much of the processor a machine may use at most, in cores.

use std::fmt;

use serde_json::{Value, json};

use super::{Param, Text, ValueError, decimal};

/// Cores that a machine may use at most, in steps of a hundredth: `0.5`, `2`; at most 128, and 0 for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuLimit {
    hundredths: u16,
}

impl CpuLimit {
    /// The most cores.
    const MAX: u64 = 128;
    /// No limit: what `reset` sets.
    pub const NONE: Self = Self { hundredths: 0 };

    /// In hundredths of a core; 0 is no limit.
    #[must_use]
    pub const fn hundredths(self) -> u16 {
        self.hundredths
    }
}

impl fmt::Display for CpuLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.hundredths / 100, self.hundredths % 100);
        match fraction {
            0 => write!(f, "{whole}"),
            tenths if tenths % 10 == 0 => write!(f, "{whole}.{}", tenths / 10),
            _ => write!(f, "{whole}.{fraction:02}"),
        }
    }
}

impl Text for CpuLimit {
    const KIND: &'static str = "processor limit";
    const RULE: &'static str =
        "cores from 0 (no limit) to 128 with at most two decimals, such as 2 or \"0.5\"";
    fn read(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            (1..=2).contains(&fraction.len()) && fraction.bytes().all(|b| b.is_ascii_digit());
        if !digits {
            return None;
        }
        let hundredths: u64 = format!("{fraction:0<2}").parse().ok()?;
        let total = decimal(whole).filter(|n| *n <= Self::MAX)? * 100 + hundredths;
        (total <= Self::MAX * 100)
            .then_some(total)
            .and_then(|n| u16::try_from(n).ok())
            .map(|hundredths| Self { hundredths })
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^(0|[1-9][0-9]{0,2})(\\.[0-9]{1,2})?$"})
    }
}

impl std::str::FromStr for CpuLimit {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::read(text).ok_or_else(|| super::refused::<Self>(text))
    }
}

/// An integer or a text: a float would not come back the same from every client.
impl Param for CpuLimit {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) if number.is_u64() => number.to_string().parse(),
            other => Err(ValueError::of_json(Self::KIND, other, Self::RULE)),
        }
    }
    fn to_json(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
    fn schema() -> Value {
        let mut schema = Self::text_schema();
        schema["type"] = json!(["string", "integer"]);
        schema["minimum"] = 0.into();
        schema["maximum"] = Self::MAX.into();
        schema
    }
}
