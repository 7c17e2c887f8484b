//! How records and times look on a terminal. Everything that comes from a record is escaped here, once.

use serde_json::Value;

/// Nothing that a terminal would obey, or that changes the order of what stands beside it.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() || is_invisible(c) {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// Marks that reorder, hide or join text: a record could otherwise look like another one.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text field of a record, printable; empty when it is not there.
pub(super) fn field(record: &Value, key: &str) -> String {
    printable(record[key].as_str().unwrap_or_default())
}

/// When a record was written, UTC.
pub(super) fn time(record: &Value) -> String {
    let seconds = record["timestamp"].as_i64().unwrap_or_default();
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// Now, in microseconds since 1970 UTC.
pub(super) fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// A moment given in microseconds since 1970 UTC, to the millisecond.
pub(super) fn moment(ts_us: i64) -> String {
    jiff::Timestamp::from_microsecond(ts_us).map_or_else(
        |_| format!("{ts_us} us"),
        |time| time.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
    )
}

/// The time of day when it was today, the day otherwise; always as wide.
pub(super) fn clock(ts_us: i64, now_us: i64) -> String {
    let Ok(time) = jiff::Timestamp::from_microsecond(ts_us) else {
        return "?       ".to_owned();
    };
    let day = |us: i64| us.div_euclid(86_400_000_000);
    let format = match day(now_us) == day(ts_us) {
        true => "%H:%M:%S",
        false if now_us.saturating_sub(ts_us) < 300 * 86_400_000_000 => "%d %b  ",
        false => "%b %Y",
    };
    format!("{:<8}", time.strftime(format))
}

/// How long ago, or how long, as people say it: `3.2 s`, `5 min`, `2 h`, `9 d`.
pub(super) fn span(us: i64) -> String {
    let us = us.max(0);
    let seconds = us / 1_000_000;
    match seconds {
        0 if us < 1000 => format!("{us} us"),
        0 => format!("{} ms", us / 1000),
        1..10 => format!("{seconds}.{} s", us / 100_000 % 10),
        10..100 => format!("{seconds} s"),
        100..6000 => format!("{} min", seconds / 60),
        6000..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A number with thin groups: `1 234 567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bytes as people say them.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(count) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(printable("a\u{1b}[2J\u{9b}b"), "a\\u{1b}[2J\\u{9b}b");
    }

    #[test]
    fn what_would_reorder_or_hide_text_is_escaped() {
        assert_eq!(
            printable("vm\u{202e}001\u{200b}é"),
            "vm\\u{202e}001\\u{200b}é"
        );
    }

    #[test]
    fn times_and_sizes_are_said_as_people_say_them() {
        let spans = [
            999,
            42_000,
            3_260_000,
            59_000_000,
            300_000_000,
            7_300_000_000,
            i64::MAX,
            -5,
        ];
        let said: Vec<_> = spans.iter().map(|us| span(*us)).collect();
        assert_eq!(
            said,
            [
                "999 us",
                "42 ms",
                "3.2 s",
                "59 s",
                "5 min",
                "2 h",
                "106751991 d",
                "0 us"
            ]
        );
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1 000", "1 234 567"]
        );
        assert_eq!(
            [5, 1536, 13 << 30].map(bytes),
            ["5 B", "1.5 KiB", "13.0 GiB"]
        );
        let noon = 1_700_000_000_000_000;
        assert_eq!(clock(noon, noon + 1).trim(), "22:13:20");
        assert_eq!(clock(noon, noon + 86_400_000_000).trim(), "14 Nov");
        assert_eq!(clock(noon, noon * 2).trim(), "Nov 2023");
        assert_eq!(clock(i64::MAX, noon).trim(), "?");
    }
}
