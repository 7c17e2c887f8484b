//! The exports agree with the table.

use serde_json::Value;

use super::*;

#[test]
fn no_two_actions_share_a_name_and_no_two_parameters_either() {
    let mut names: Vec<&str> = CATALOG
        .iter()
        .flat_map(|s| s.aliases.iter().copied().chain([s.name]))
        .collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    for spec in CATALOG {
        let mut params: Vec<&str> = spec
            .params
            .iter()
            .flat_map(|p| p.aliases.iter().copied().chain([p.name]))
            .collect();
        params.sort_unstable();
        assert!(
            params.windows(2).all(|pair| pair[0] != pair[1]),
            "{}",
            spec.name
        );
        assert!(
            matches!(
                spec.operation,
                "create" | "modify" | "delete" | "apply" | "query"
            ),
            "{}",
            spec.name
        );
        assert_eq!(spec.read_only, spec.operation == "query", "{}", spec.name);
        assert!(
            spec.name.starts_with(spec.family)
                || ["wallet", "ledger"].iter().any(|w| spec.name.contains(w))
        );
    }
}

#[test]
fn the_json_export_describes_every_parameter() {
    let catalog = to_json();
    for spec in CATALOG {
        let action = catalog["actions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|a| a["name"] == spec.name)
            .unwrap();
        assert!(!action["summary"].as_str().unwrap().is_empty());
        for param in spec.params {
            let property = &action["params"]["properties"][param.name];
            assert!(
                property["type"].is_string() || property["type"].is_array(),
                "{} {}: {property}",
                spec.name,
                param.name
            );
            assert!(!property["description"].as_str().unwrap().is_empty());
            let required = action["params"]["required"]
                .as_array()
                .unwrap()
                .contains(&Value::from(param.name));
            assert_eq!(required, param.required);
            if let Some(default) = property.get("default") {
                assert!(!param.required, "{} {}: {default}", spec.name, param.name);
            }
        }
    }
}

#[test]
fn the_reference_names_every_action_parameter_and_code() {
    let text = to_markdown();
    for spec in CATALOG {
        assert!(text.contains(&format!("### {}\n", spec.name)));
        for param in spec.params {
            assert!(text.contains(&format!("| `{}`", param.name)));
        }
    }
    for code in crate::ErrorCode::ALL {
        assert!(text.contains(&format!("| `{code}` |")));
    }
    let options = crate::qm::QmKey::reference().into_iter();
    for (key, _) in options.chain(crate::pct::PctKey::reference()) {
        assert!(text.contains(&format!("| `{key}` |")));
    }
    assert!(
        text.lines()
            .filter(|l| l.starts_with('|'))
            .all(|l| l.ends_with('|'))
    );
}

#[test]
fn every_example_of_the_catalog_is_a_request_that_the_catalog_accepts() {
    for spec in CATALOG {
        let params = spec.example_params();
        if let Err(error) = crate::Action::from_parts(spec.name, &params) {
            panic!("give {} an `example` that is good: {error}", spec.name);
        }
        // Names, not aliases: what people copy from the documentation should be what it documents.
        for name in params.as_object().unwrap().keys() {
            assert!(
                spec.params.iter().any(|param| param.name == name),
                "{}: {name}",
                spec.name
            );
        }
    }
}

#[test]
fn a_field_of_an_answer_never_hides_one_that_all_answers_have() {
    for spec in CATALOG {
        let mut names: Vec<&str> = spec.returns.iter().map(|field| field.name).collect();
        names.sort_unstable();
        assert!(
            names.windows(2).all(|pair| pair[0] != pair[1]),
            "{}",
            spec.name
        );
        for field in spec.returns {
            assert!(
                !crate::response::RESERVED_FIELDS.contains(&field.name),
                "{} {}",
                spec.name,
                field.name
            );
            assert!((field.schema)()["type"].is_string() && !field.summary.is_empty());
        }
    }
}

/// Clients have positional arguments in this order. `iptables-open` and `iptables-close` are older than the rule.
#[test]
fn parameters_that_must_be_given_come_before_those_that_need_not() {
    for spec in CATALOG {
        if ["iptables-open", "iptables-close"].contains(&spec.name) {
            let names: Vec<&str> = spec.params.iter().map(|param| param.name).collect();
            assert_eq!(names, ["port", "proto", "comment", "source"]);
            continue;
        }
        let required: Vec<bool> = spec.params.iter().map(|param| param.required).collect();
        assert!(
            required.is_sorted_by(|a, b| a >= b),
            "{}: move what is optional behind what is required",
            spec.name
        );
    }
}
