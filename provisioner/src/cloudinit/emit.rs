//! Prints a value as JSON that every YAML reader takes: JSON is YAML but for a few characters.

use serde_json::Value;

/// `#cloud-config` and the value.
pub(super) fn cloud_config(value: &Value) -> String {
    let json = format!("{value:#}");
    let mut text = String::with_capacity(json.len() + 16);
    text.push_str("#cloud-config\n");
    for c in json.chars() {
        // JSON allows these raw inside strings, YAML's readers do not.
        if matches!(
            c,
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        ) {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text.push('\n');
    text
}
