//! OVSDB's values (RFC 7047 section 5.1) read and written: atoms, sets that come bare when they have one element, maps,
//! UUIDs; and transactions as lists of operations. Pure; `ovsdb` sends them.

use serde_json::{Map, Value, json};

/// The UUID of a row that exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(String);

impl Uuid {
    /// Reads `["uuid", "..."]`.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        match value.as_array().map(Vec::as_slice) {
            Some([tag, Value::String(text)]) if tag == "uuid" && Self::is_one(text) => {
                Some(Self(text.clone()))
            }
            _ => None,
        }
    }

    fn is_one(text: &str) -> bool {
        text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
    }

    /// As an atom.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!(["uuid", self.0])
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A row that is inserted in the same transaction, by its label. Labels are ours and hold letters and digits only.
#[must_use]
pub fn label(name: &str) -> Value {
    json!(["named-uuid", name])
}

/// A set of atoms; one of exactly one element may stand bare, this one never does.
#[must_use]
pub fn set(atoms: impl IntoIterator<Item = Value>) -> Value {
    json!(["set", atoms.into_iter().collect::<Vec<_>>()])
}

/// A map.
#[must_use]
pub fn map(pairs: impl IntoIterator<Item = (Value, Value)>) -> Value {
    let pairs: Vec<Value> = pairs.into_iter().map(|(k, v)| json!([k, v])).collect();
    json!(["map", pairs])
}

/// A map of texts.
#[must_use]
pub fn text_map<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Value {
    map(pairs
        .into_iter()
        .map(|(k, v)| (json!(k.as_ref()), json!(v.as_ref()))))
}

/// The condition that a column equals a value.
#[must_use]
pub fn equals(column: &str, value: impl Into<Value>) -> Value {
    json!([[column, "==", value.into()]])
}

/// The condition that a row is this one.
#[must_use]
pub fn is_row(uuid: &Uuid) -> Value {
    equals("_uuid", uuid.to_json())
}

/// A row of an answer. What is missing or of another type reads as absent: the database is asked, not trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row(pub Map<String, Value>);

impl Row {
    /// Its own UUID.
    #[must_use]
    pub fn uuid(&self) -> Option<Uuid> {
        self.0.get("_uuid").and_then(Uuid::from_json)
    }

    /// The elements of a set column, or the one value of a scalar column.
    pub fn elements(&self, column: &str) -> &[Value] {
        let Some(value) = self.0.get(column) else {
            return &[];
        };
        match value.as_array().map(Vec::as_slice) {
            Some([tag, Value::Array(atoms)]) if tag == "set" => atoms,
            _ => std::slice::from_ref(value),
        }
    }

    /// A text, or the one text of a set.
    #[must_use]
    pub fn text(&self, column: &str) -> Option<&str> {
        match self.elements(column) {
            [one] => one.as_str(),
            _ => None,
        }
    }

    /// An integer, or the one integer of a set.
    #[must_use]
    pub fn integer(&self, column: &str) -> Option<i64> {
        match self.elements(column) {
            [one] => one.as_i64(),
            _ => None,
        }
    }

    /// References to other rows.
    #[must_use]
    pub fn references(&self, column: &str) -> Vec<Uuid> {
        self.elements(column)
            .iter()
            .filter_map(Uuid::from_json)
            .collect()
    }

    /// The pairs of a map column.
    pub fn pairs<'a>(&'a self, column: &str) -> impl Iterator<Item = (&'a Value, &'a Value)> + 'a {
        let pairs = match self
            .0
            .get(column)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
        {
            Some([tag, Value::Array(pairs)]) if tag == "map" => pairs.as_slice(),
            _ => &[],
        };
        pairs
            .iter()
            .filter_map(|pair| match pair.as_array()?.as_slice() {
                [key, value] => Some((key, value)),
                _ => None,
            })
    }

    /// The value of a text key in a map of texts.
    #[must_use]
    pub fn entry(&self, column: &str, key: &str) -> Option<&str> {
        self.pairs(column)
            .find(|(k, _)| k.as_str() == Some(key))
            .and_then(|(_, v)| v.as_str())
    }

    /// A column as it was read, for a guard that says "still the same".
    #[must_use]
    pub fn raw(&self, column: &str) -> Value {
        self.0.get(column).cloned().unwrap_or(Value::Null)
    }
}

/// Operations that happen together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    operations: Vec<Value>,
}

/// Where in the answer the result of one operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(pub usize);

impl Transaction {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn add(&mut self, operation: Value) -> Slot {
        self.operations.push(operation);
        Slot(self.operations.len() - 1)
    }

    /// Reads columns of the rows that match.
    pub fn select(&mut self, table: &str, condition: Value, columns: &[&str]) -> Slot {
        self.add(json!({"op": "select", "table": table, "where": condition, "columns": columns}))
    }

    /// Makes a row; other operations of this transaction call it by `name`.
    pub fn insert(&mut self, table: &str, name: &str, row: Value) -> Slot {
        self.add(json!({"op": "insert", "table": table, "uuid-name": name, "row": row}))
    }

    /// Sets columns of the rows that match.
    pub fn update(&mut self, table: &str, condition: Value, row: Value) -> Slot {
        self.add(json!({"op": "update", "table": table, "where": condition, "row": row}))
    }

    /// Changes one column of the rows that match.
    pub fn mutate(
        &mut self,
        table: &str,
        condition: Value,
        column: &str,
        mutator: &str,
        value: Value,
    ) -> Slot {
        self.add(json!({"op": "mutate", "table": table, "where": condition, "mutations": [[column, mutator, value]]}))
    }

    /// Deletes the rows that match.
    pub fn delete(&mut self, table: &str, condition: Value) -> Slot {
        self.add(json!({"op": "delete", "table": table, "where": condition}))
    }

    /// Goes on only if `columns` of the rows that match are still exactly `rows`.
    pub fn guard(&mut self, table: &str, condition: Value, columns: &[&str], rows: Value) -> Slot {
        self.wait(table, condition, columns, rows, 0)
    }

    /// Goes on as soon as `columns` of the rows that match are exactly `rows`, or fails after `timeout_ms`.
    pub fn wait(
        &mut self,
        table: &str,
        condition: Value,
        columns: &[&str],
        rows: Value,
        timeout_ms: u64,
    ) -> Slot {
        self.add(json!({"op": "wait", "timeout": timeout_ms, "table": table, "where": condition, "columns": columns, "until": "==", "rows": rows}))
    }

    /// The parameters of the `transact` request.
    #[must_use]
    pub fn into_params(self, database: &str) -> Value {
        let mut params = vec![json!(database)];
        params.extend(self.operations);
        Value::Array(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "8f0e1b2c-0000-4000-8000-00000000abcd";

    fn row(value: Value) -> Row {
        match value {
            Value::Object(map) => Row(map),
            other => panic!("{other} is no row"),
        }
    }

    #[test]
    fn a_set_of_one_reads_the_same_bare_or_not() {
        for value in [json!(["uuid", ONE]), json!(["set", [["uuid", ONE]]])] {
            let row = row(json!({"ports": value}));
            assert_eq!(row.references("ports").len(), 1);
        }
        assert!(
            row(json!({"ports": ["set", []]}))
                .references("ports")
                .is_empty()
        );
        assert_eq!(row(json!({"ofport": 7})).integer("ofport"), Some(7));
        assert_eq!(row(json!({"ofport": ["set", []]})).integer("ofport"), None);
        assert_eq!(
            row(json!({"error": ["set", ["a", "b"]]})).text("error"),
            None
        );
    }

    #[test]
    fn maps_are_read_whatever_their_pairs_are() {
        let row = row(json!({"external_ids": ["map", [["a", "b"], ["x"], 7, ["n", 1]]]}));
        assert_eq!(row.entry("external_ids", "a"), Some("b"));
        assert_eq!(row.entry("external_ids", "n"), None);
        assert_eq!(row.entry("other_config", "a"), None);
    }

    #[test]
    fn a_uuid_is_thirty_two_digits_and_nothing_that_only_looks_so() {
        for text in [
            "",
            "x",
            &ONE[1..],
            &ONE.replace('-', "0"),
            &ONE.replace('a', "g"),
        ] {
            assert_eq!(Uuid::from_json(&json!(["uuid", text])), None, "{text}");
        }
        assert_eq!(Uuid::from_json(&json!(["named-uuid", ONE])), None);
        let uuid = Uuid::from_json(&json!(["uuid", ONE])).expect("a UUID");
        assert_eq!(uuid.to_json(), json!(["uuid", ONE]));
    }
}
