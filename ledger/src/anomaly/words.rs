//! Reasons in words: what a feature means for the record that it stands out in.

use super::Score;
use crate::features::Vector;
use serde_json::Value;

/// The reasons of a score, strongest first, at most four: each a piece of a sentence. Texts of the record are in them as
/// they are; who prints them escapes them.
#[must_use]
pub fn reasons(record: &Value, vector: &Vector, score: &Score) -> Vec<String> {
    let parts = score.parts.iter().take(4);
    parts
        .map(|(feature, _)| reason(record, vector, *feature))
        .collect()
}

fn reason(record: &Value, vector: &Vector, feature: usize) -> String {
    let text = |key: &str| record[key].as_str().unwrap_or("?").to_owned();
    let (user, action) = (text("user"), text("action"));
    let value = i64::from(vector.0.get(feature).copied().unwrap_or(0));
    // ln(1 + n) in thousandths, back to n.
    let count = || {
        (1..100_000_u64)
            .find(|n| crate::features::math::ln_1p(*n) >= value)
            .unwrap_or(100_000)
    };
    // e to the value, in tenths.
    let times = || {
        let tenths = (10..100_000_u64).find(|n| crate::features::math::ln_ratio(*n, 10) >= value);
        let tenths = tenths.unwrap_or(100_000);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    let deviations = value / 1000;
    match feature {
        20 => format!("{user} hardly ever did anything with {}", text("plugin_id")),
        21 => format!("{user} never or hardly ever does {action}"),
        22 => format!(
            "{user} hardly ever touches a {}",
            text("resource").split(':').next().unwrap_or_default()
        ),
        23 => format!("{user} hardly ever touches what belongs to this tenant or user"),
        24 => {
            let of_day = record["timestamp"].as_i64().unwrap_or(0).rem_euclid(86_400);
            format!(
                "at {:02}:{:02} UTC, when {user} hardly ever does anything",
                of_day / 3600,
                of_day % 3600 / 60
            )
        }
        25 => format!("{action} hardly ever follows what {user} did before"),
        26 => format!("{action} with parameters that it hardly ever has"),
        27 => {
            let caller = record["exe"].as_str().or(record["unit"].as_str());
            format!(
                "asked by {} as {user}, which hardly ever asks for this",
                caller.unwrap_or("an unknown program")
            )
        }
        28..=31 => {
            let window = ["minute", "five minutes", "hour", "day"][feature - 28];
            format!(
                "{user} does {action} more often within the {window} than usual, by {deviations} standard deviations"
            )
        }
        36 => format!("{}% of what {user} did lately failed", value / 10),
        37 => format!("{} failures of {user} in a row", count()),
        38 => format!(
            "{action} on the same resource again, {} times within minutes",
            count()
        ),
        40 => format!(
            "{user} touched {} times as many resources within two hours as at most before",
            times()
        ),
        41 => format!(
            "{user} deleted {} times as many resources within two hours as at most before",
            times()
        ),
        42 => format!(
            "an address range {} bits wider than {action} usually has",
            value / 693
        ),
        43 => format!("a list of {} members", count()),
        44 => format!("{} neighbouring numbers one after the other", count() + 1),
        45 => format!(
            "{user} failed on {} times as many resources within two hours as at most before",
            times()
        ),
        46 => format!("{user} deleted {}% of what there is", value / 10),
        47 => format!("{action} is hardly ever done here"),
        other => crate::features::NAMES
            .get(other)
            .copied()
            .unwrap_or("?")
            .to_owned(),
    }
}
