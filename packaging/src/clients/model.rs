//! What both languages need to know of the catalog: actions, their parameters and answers, and the shapes of objects in
//! them, made from the JSON Schemas. No word of any language here.

use blockhost_proto::catalog::{ActionSpec, CATALOG};
use blockhost_proto::response::ErrorCode;
use serde_json::Value;

use super::text::pascal;

/// Everything.
pub struct Model {
    /// In catalog order.
    pub actions: Vec<Action>,
    /// Objects with known fields; what one refers to stands before it.
    pub records: Vec<Record>,
    /// Codes of refusals.
    pub codes: Vec<&'static str>,
}

/// One action.
pub struct Action {
    pub name: &'static str,
    pub summary: String,
    pub read_only: bool,
    pub time_limit_s: u32,
    /// In the order of positional arguments.
    pub params: Vec<Field>,
    /// Fields of a success besides those that all have.
    pub returns: Vec<Field>,
}

/// A parameter, a field of an answer or of an object.
#[derive(Clone, PartialEq)]
pub struct Field {
    pub name: String,
    pub summary: String,
    pub kind: Kind,
    pub required: bool,
    /// What a missing one means, as JSON.
    pub default: Option<String>,
}

/// An object with known fields.
pub struct Record {
    pub name: String,
    pub fields: Vec<Field>,
}

/// What a value may be.
#[derive(Clone, PartialEq)]
pub enum Kind {
    Text,
    Integer,
    Number,
    Flag,
    /// One of these values.
    Choice(Vec<Value>),
    List(Box<Kind>),
    /// An object with any keys.
    Map(Box<Kind>),
    /// The record of that name.
    Record(String),
    Either(Vec<Kind>),
    /// Whatever JSON can hold.
    Any,
}

impl Model {
    /// From the catalog of this build.
    pub fn of_catalog() -> Self {
        let mut records = Vec::new();
        let actions = CATALOG
            .iter()
            .map(|spec| action(spec, &mut records))
            .collect();
        Self {
            actions,
            records,
            codes: ErrorCode::ALL.map(ErrorCode::as_str).to_vec(),
        }
    }
}

impl Action {
    /// Name of the type of its answer.
    pub fn reply(&self) -> String {
        if self.returns.is_empty() {
            "Reply".to_owned()
        } else {
            format!("{}Reply", pascal(self.name))
        }
    }
}

fn action(spec: &'static ActionSpec, records: &mut Vec<Record>) -> Action {
    let params = spec.params.iter().map(|param| {
        let context = format!("{}{}", pascal(spec.name), pascal(param.name));
        Field {
            name: param.name.to_owned(),
            summary: param.summary.trim().to_owned(),
            kind: kind(&(param.schema)(), &context, records),
            required: param.required,
            default: param
                .default
                .and_then(|default| default())
                .map(|value| value.to_string()),
        }
    });
    let params = params.collect();
    let returns = spec.returns.iter().map(|field| {
        let context = format!("{}{}", pascal(spec.name), pascal(field.name));
        Field {
            name: field.name.to_owned(),
            summary: field.summary.to_owned(),
            kind: kind(&(field.schema)(), &context, records),
            required: !field.optional,
            default: None,
        }
    });
    let returns = returns.collect();
    Action {
        name: spec.name,
        summary: spec.summary.trim().to_owned(),
        read_only: spec.read_only,
        time_limit_s: spec.time_limit_s,
        params,
        returns,
    }
}

/// The type that a schema describes; `context` names objects in it that have no title.
fn kind(schema: &Value, context: &str, records: &mut Vec<Record>) -> Kind {
    if let Some(values) = schema["enum"].as_array() {
        return Kind::Choice(values.clone());
    }
    if let Some(value) = schema.get("const") {
        return Kind::Choice(vec![value.clone()]);
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[key].as_array() {
            return either(choices.iter().map(|choice| {
                // What stands beside oneOf holds for every choice.
                let mut whole = schema.clone();
                if let (Some(whole), Some(choice)) = (whole.as_object_mut(), choice.as_object()) {
                    whole.remove(key);
                    whole.extend(choice.clone());
                }
                kind(&whole, &chosen(choice, context), records)
            }));
        }
    }
    match &schema["type"] {
        Value::Array(types) => either(types.iter().map(|name| {
            let mut one = schema.clone();
            one["type"] = name.clone();
            kind(&one, context, records)
        })),
        Value::String(name) => match name.as_str() {
            "string" => Kind::Text,
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "boolean" => Kind::Flag,
            "array" => Kind::List(Box::new(items(schema, context, records))),
            "object" => object(schema, context, records),
            _ => Kind::Any,
        },
        _ => Kind::Any,
    }
}

/// A name for one of several objects: an object with one key is called after it.
fn chosen(choice: &Value, context: &str) -> String {
    match choice["required"].as_array().map(Vec::as_slice) {
        Some([Value::String(key)]) => format!("{context}{}", pascal(key)),
        _ => context.to_owned(),
    }
}

/// `Peers` holds things that are each a `Peer`.
fn singular(context: &str) -> String {
    match context.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => context
            .strip_suffix('s')
            .map_or_else(|| format!("{context}Item"), str::to_owned),
    }
}

fn items(schema: &Value, context: &str, records: &mut Vec<Record>) -> Kind {
    let context = singular(context);
    if let Some(first) = schema["prefixItems"].as_array() {
        return either(first.iter().map(|item| kind(item, &context, records)));
    }
    schema
        .get("items")
        .map_or(Kind::Any, |items| kind(items, &context, records))
}

fn object(schema: &Value, context: &str, records: &mut Vec<Record>) -> Kind {
    let Some(properties) = schema["properties"].as_object() else {
        let values = match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) => kind(values, &singular(context), records),
            _ => Kind::Any,
        };
        return Kind::Map(Box::new(values));
    };
    let required = schema["required"].as_array();
    let fields = properties.iter().map(|(name, schema)| Field {
        name: name.clone(),
        summary: schema["description"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        kind: kind(schema, &format!("{context}{}", pascal(name)), records),
        required: required.is_some_and(|names| names.iter().any(|n| n == name)),
        default: None,
    });
    let fields: Vec<Field> = fields.collect();
    let wanted = schema["title"]
        .as_str()
        .map_or_else(|| context.to_owned(), pascal);
    Kind::Record(register(&wanted, fields, records))
}

/// The name of the record with these fields: an equal one is used again, another of the same name gets a number.
fn register(wanted: &str, fields: Vec<Field>, records: &mut Vec<Record>) -> String {
    let same = records.iter().find(|record| record.fields == fields);
    if let Some(record) = same {
        return record.name.clone();
    }
    let name = (1..)
        .map(|n| {
            if n == 1 {
                wanted.to_owned()
            } else {
                format!("{wanted}{n}")
            }
        })
        .find(|name| records.iter().all(|record| record.name != *name))
        .unwrap_or_default();
    records.push(Record {
        name: name.clone(),
        fields,
    });
    name
}

fn either(kinds: impl Iterator<Item = Kind>) -> Kind {
    let mut flat: Vec<Kind> = Vec::new();
    for kind in kinds {
        let inner = match kind {
            Kind::Either(inner) => inner,
            other => vec![other],
        };
        for kind in inner {
            if kind == Kind::Any {
                return Kind::Any;
            }
            if !flat.contains(&kind) {
                flat.push(kind);
            }
        }
    }
    match flat.len() {
        0 => Kind::Any,
        1 => flat.remove(0),
        _ => Kind::Either(flat),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_beside_a_choice_holds_for_each_of_them() {
        let schema = json!({"type": "array", "oneOf": [{"items": {"type": "string"}}, {"items": {"type": "integer"}}]});
        let lists = [Kind::Text, Kind::Integer].map(|inner| Kind::List(Box::new(inner)));
        assert!(kind(&schema, "X", &mut Vec::new()) == Kind::Either(lists.to_vec()));
    }

    #[test]
    fn equal_objects_share_a_type_and_different_ones_do_not() {
        let mut records = Vec::new();
        let object = |field: &str| json!({"type": "object", "title": "peer", "properties": {field: {"type": "string"}}});
        let first = kind(&object("a"), "X", &mut records);
        assert!(first == kind(&object("a"), "Y", &mut records));
        assert!(first != kind(&object("b"), "Z", &mut records));
        let names: Vec<&str> = records.iter().map(|record| record.name.as_str()).collect();
        assert_eq!(names, ["Peer", "Peer2"]);
    }

    /// A schema that is not understood becomes "anything": fine for an event's details, a gap anywhere else.
    #[test]
    fn parameters_have_types() {
        let open: Vec<String> = Model::of_catalog()
            .actions
            .iter()
            .flat_map(|action| {
                let open = action.params.iter().filter(|param| param.kind == Kind::Any);
                open.map(|param| format!("{} {}", action.name, param.name))
            })
            .collect();
        assert!(open.is_empty(), "{open:?}");
    }
}
