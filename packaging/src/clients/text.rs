//! Names and paragraphs of the generated files.

/// `qm-start` -> `QmStart`.
pub fn pascal(name: &str) -> String {
    words(name)
        .map(|word| {
            let (first, rest) = word.split_at(1);
            format!("{}{rest}", first.to_ascii_uppercase())
        })
        .collect()
}

/// `ip6-route-add` -> `ip6RouteAdd`.
pub fn camel(name: &str) -> String {
    let pascal = pascal(name);
    let (first, rest) = pascal.split_at(1);
    format!("{}{rest}", first.to_ascii_lowercase())
}

/// `qm-start` -> `qm_start`.
pub fn snake(name: &str) -> String {
    words(name).collect::<Vec<_>>().join("_")
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
}

/// Broken into lines of at most `width` characters, none of them empty.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_its_usual_name_in_each_language() {
        assert_eq!(pascal("ip6-route-add"), "Ip6RouteAdd");
        assert_eq!(camel("ip6-route-add"), "ip6RouteAdd");
        assert_eq!(camel("disk_path"), "diskPath");
        assert_eq!(snake("iptables-open"), "iptables_open");
    }

    #[test]
    fn no_word_is_lost_between_lines() {
        let text = "one two three four five";
        let lines = wrapped(text, 9);
        assert_eq!(lines, ["one two", "three", "four five"]);
        assert_eq!(lines.join(" "), text);
    }
}
