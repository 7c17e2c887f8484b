//! From words on a command line to the parameters of an action. Pure but for standard input, which is handed in. Whether
//! the parameters are good is for the catalog's types to say; here only their form is found.

use std::io::Read;

use blockhost_proto::catalog::{ActionSpec, ParamSpec};
use blockhost_proto::{escape, json, wire};
use serde_json::{Map, Value};

/// Reads `name=value` words, or one JSON object, or the object on `stdin` where the only word is `-`.
///
/// # Errors
/// One sentence for the person at the keyboard.
pub fn read(spec: &ActionSpec, words: &[String], stdin: &mut dyn Read) -> Result<Value, String> {
    match words {
        [word] if word == "-" => {
            let mut text = Vec::new();
            // One byte more than any request may have, to see that it was more.
            let limit = wire::MAX_FRAME as u64 + 1;
            stdin
                .take(limit)
                .read_to_end(&mut text)
                .map_err(|e| format!("cannot read the parameters from standard input: {e}"))?;
            object(&text)
        }
        [word] if word.trim_start().starts_with('{') => object(word.as_bytes()),
        words => pairs(spec, words),
    }
}

fn object(text: &[u8]) -> Result<Value, String> {
    if text.len() > wire::MAX_FRAME {
        return Err(format!("a request has at most {} bytes", wire::MAX_FRAME));
    }
    match json::parse(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(other) => Err(format!(
            "the parameters are a JSON object, not {}",
            json::kind(&other)
        )),
        Err(error) => Err(format!("the parameters are not valid JSON: {error}")),
    }
}

fn pairs(spec: &ActionSpec, words: &[String]) -> Result<Value, String> {
    let mut params = Map::new();
    for word in words {
        let Some((name, text)) = word.split_once('=') else {
            return Err(format!(
                "\"{}\" is not name=value; a JSON object or - stands alone",
                escape::shown(word)
            ));
        };
        let param = find(spec, name)?;
        if params
            .insert(param.name.to_owned(), value(param, text)?)
            .is_some()
        {
            return Err(format!("parameter {} is given twice", param.name));
        }
    }
    Ok(Value::Object(params))
}

fn find<'a>(spec: &'a ActionSpec, name: &str) -> Result<&'a ParamSpec, String> {
    let named = |param: &&ParamSpec| param.name == name || param.aliases.contains(&name);
    spec.params.iter().find(named).ok_or_else(|| {
        let shown = escape::shown(name);
        if spec.params.is_empty() {
            return format!("{} takes no parameters, so no \"{shown}\"", spec.name);
        }
        let names = spec
            .params
            .iter()
            .flat_map(|param| param.aliases.iter().copied().chain([param.name]));
        let hint =
            nearest(name, names).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        format!("{} has no parameter \"{shown}\"{hint}", spec.name)
    })
}

/// The value that a text stands for, by the types that the parameter's schema allows.
fn value(param: &ParamSpec, text: &str) -> Result<Value, String> {
    let schema = (param.schema)();
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let may_be = |name: &str| types.contains(&name);
    if may_be("integer")
        && let Ok(number) = text.parse::<i64>()
        // Not +5 or 007: what is sent is what was typed.
        && number.to_string() == text
    {
        return Ok(number.into());
    }
    if may_be("boolean")
        && let Ok(flag) = text.parse::<bool>()
    {
        return Ok(flag.into());
    }
    if may_be("array") || may_be("object") {
        let kind = if may_be("array") { "list" } else { "object" };
        return json::parse(text.as_bytes()).map_err(|error| {
            format!(
                "parameter {}: a {kind} is written as JSON, and this is not: {error}",
                param.name
            )
        });
    }
    if may_be("string") || types.is_empty() {
        return Ok(text.into());
    }
    let wanted = if may_be("integer") {
        "an integer"
    } else {
        "true or false"
    };
    Err(format!(
        "parameter {} is {wanted}, not \"{}\"",
        param.name,
        escape::shown(text)
    ))
}

/// The name that was probably meant: the nearest one, where it is near.
pub fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // What nobody types by mistake needs no suggestion, and distances of long texts are long work.
    if given.len() > 64 {
        return None;
    }
    names
        .map(|name| (distance(given, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many characters have to be added, dropped, changed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1)
                    .min(rows[i - 1][j - 1] + change);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use blockhost_proto::Action;
    use blockhost_proto::catalog::{CATALOG, find as action};
    use serde_json::json;

    use super::*;

    fn parsed(name: &str, words: &[&str]) -> Result<Value, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        read(action(name).expect(name), &words, &mut std::io::empty())
    }

    #[test]
    fn a_value_is_read_by_the_type_of_its_parameter() {
        assert_eq!(
            parsed(
                "qm-clone",
                &["vmid=9000", "newid=100", "name=100", "full=true"]
            )
            .unwrap(),
            json!({"vmid": 9000, "newid": 100, "name": "100", "full": true})
        );
        assert_eq!(
            parsed(
                "qm-create",
                &["vmid=100", "name=a", r#"args=["--memory", "2048"]"#]
            )
            .unwrap(),
            json!({"vmid": 100, "name": "a", "args": ["--memory", "2048"]})
        );
        assert_eq!(
            parsed("qm-guest-exec", &["vmid=100", "command=a=b {c}"]).unwrap()["command"],
            "a=b {c}"
        );
    }

    #[test]
    fn what_cannot_be_its_type_is_refused_with_the_name_of_the_parameter() {
        for (words, wanted) in [
            (&["vmid=abc"][..], "vmid is an integer"),
            (&["vmid=+100"], "vmid is an integer"),
            (&["vmid=0100"], "vmid is an integer"),
            (&["vmid=100", "full=yes"], "full is true or false"),
            (&["vmid=1", "vmid=2"], "given twice"),
            (&["vmid"], "name=value"),
            (&["{}", "vmid=1"], "name=value"),
            (&["[]"], "name=value"),
            (&["vmdi=100"], "did you mean vmid?"),
        ] {
            let error = parsed("qm-clone", words).unwrap_err();
            assert!(error.contains(wanted), "{words:?}: {error}");
        }
        let error = parsed("qm-create", &["args=--memory"]).unwrap_err();
        assert!(error.contains("args: a list is written as JSON"), "{error}");
        assert!(
            parsed("qm-list", &["vmid=1"])
                .unwrap_err()
                .contains("takes no parameters")
        );
    }

    #[test]
    fn an_object_is_read_as_strictly_as_by_the_agent() {
        assert_eq!(
            parsed("qm-start", &[r#"{"vmid": 100}"#]).unwrap(),
            json!({"vmid": 100})
        );
        assert!(parsed("qm-start", &[r#"{"vmid": 100, "vmid": 101}"#]).is_err());
        let stdin = read(
            action("qm-start").unwrap(),
            &["-".into()],
            &mut &br#"{"vmid": 7}"#[..],
        );
        assert_eq!(stdin.unwrap(), json!({"vmid": 7}));
        let list = read(action("qm-start").unwrap(), &["-".into()], &mut &b"[1]"[..]);
        assert!(list.unwrap_err().contains("a JSON object, not"));
        let endless = read(
            action("qm-start").unwrap(),
            &["-".into()],
            &mut std::io::repeat(b' '),
        );
        assert!(endless.unwrap_err().contains("at most"));
    }

    #[test]
    fn an_alias_is_the_parameter_it_stands_for() {
        assert_eq!(
            parsed("qm-set", &["vmid=100", r#"config={"memory": 512}"#]).unwrap(),
            json!({"vmid": 100, "options": {"memory": 512}})
        );
        assert!(
            parsed("qm-set", &["options={}", "config={}"])
                .unwrap_err()
                .contains("twice")
        );
    }

    #[test]
    fn every_example_of_the_catalog_can_be_typed_as_words() {
        for spec in CATALOG {
            let example = spec.example_params();
            let words: Vec<String> = example
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| match value {
                    Value::String(text) => format!("{name}={text}"),
                    other => format!("{name}={other}"),
                })
                .collect();
            let read = read(spec, &words, &mut std::io::empty()).unwrap();
            assert_eq!(
                Action::from_parts(spec.name, &read),
                Action::from_parts(spec.name, &example),
                "{}",
                spec.name
            );
        }
    }

    #[test]
    fn the_nearest_name_is_offered_and_none_where_none_is_near() {
        let names = || CATALOG.iter().map(|spec| spec.name);
        for (given, meant) in [
            ("qm-strat", "qm-start"),
            ("ip6-rout-add", "ip6-route-add"),
            ("qmstop", "qm-stop"),
        ] {
            assert_eq!(nearest(given, names()), Some(meant));
        }
        assert_eq!(nearest("reboot-the-world", names()), None);
        assert_eq!(nearest(&"q".repeat(100_000), names()), None);
    }
}
