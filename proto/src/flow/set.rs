//! All flows of one owner in one request. Ten thousand flows that differ in a few values fit a frame of the default size
//! when they are written as one flow with `columns` and `rows`; written out they stop at the frame and at the number of
//! values that one request may hold.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value, json};

use super::{Field, Flow, FlowAction, PortRef};
use crate::value::{Param, Sha256Hex, SwitchIfName, ValueError};

/// Flows as they were given and as they are meant. No two have the same table, priority and match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlowSet {
    /// Canonical for plain flows, as given for those with rows: a small request stays small on its way.
    given: Vec<Value>,
    flows: Vec<Flow>,
    parts: usize,
}

const COLUMNS: &str = "columns";
const ROWS: &str = "rows";
/// Columns of one compact flow.
const MAX_COLUMNS: usize = 16;
/// Bytes of a compact flow without its rows, times its rows: what filling in may cost.
const MAX_FILLED: usize = 8 << 20;
/// Fields and actions of all flows of one request together.
const MAX_PARTS: usize = 256 << 10;

impl FlowSet {
    /// Flows that one request may mean.
    pub const MAX: usize = 16_384;
    const KIND: &'static str = "set of flows";
    const RULE: &'static str = "a list of at most 16384 flows, rows counted, no two with the same table, priority and match";

    /// The flows, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// True for "no flows of this owner".
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Ports that the flows name, without those they give by number.
    #[must_use]
    pub fn port_names(&self) -> BTreeSet<&SwitchIfName> {
        let mut names = BTreeSet::new();
        for flow in &self.flows {
            let outputs = flow.actions.iter().filter_map(|action| match action {
                FlowAction::Output(port) => Some(port),
                _ => None,
            });
            for port in flow.matching.in_port().into_iter().chain(outputs) {
                if let PortRef::Name(name) = port {
                    names.insert(name);
                }
            }
        }
        names
    }

    /// What is asked for, as a hash: the flows as given, and what the ports' names mean. `None` where a port
    /// has no number. The agent keeps it beside the flows that it sets and `ovs-list` shows it, so that whoever wants the
    /// same flows knows without sending them.
    #[must_use]
    pub fn fingerprint(&self, number: impl Fn(&SwitchIfName) -> Option<u16>) -> Option<Sha256Hex> {
        let mut text = Value::from(self.given.clone()).to_string();
        for name in self.port_names() {
            text.push_str(&format!("\n{name} {}", number(name)?));
        }
        Some(Sha256Hex::of(text.as_bytes()))
    }

    fn push(&mut self, flow: Flow) -> Result<(), ValueError> {
        if self.flows.len() == Self::MAX {
            let count = format!("more than {} flows", Self::MAX);
            return Err(ValueError::new(Self::KIND, &count, Self::RULE));
        }
        self.parts += flow.actions.len() + flow.matching.fields().count() + 1;
        if self.parts > MAX_PARTS {
            let rule =
                "at most 262144 fields and actions in all; spread the flows over several owners";
            return Err(ValueError::new(Self::KIND, "too many parts", rule));
        }
        self.flows.push(flow);
        Ok(())
    }

    fn add(&mut self, value: &Value) -> Result<(), ValueError> {
        let compact = value
            .as_object()
            .filter(|map| map.contains_key(COLUMNS) || map.contains_key(ROWS));
        let Some(map) = compact else {
            let flow = Flow::read(value)?;
            self.given.push(flow.show());
            return self.push(flow);
        };
        let template = Template::read(map)?;
        let fields = template.independent_fields();
        let mut first: Option<Flow> = None;
        for (at, row) in template.rows.iter().enumerate() {
            let place = |error: ValueError| error.within(&format!("row {at}"));
            let like_the_first = first
                .as_ref()
                .zip(fields.as_ref())
                .and_then(|(first, fields)| alike(first, fields, row));
            let flow = match like_the_first {
                Some(flow) => flow,
                None => template
                    .fill(row)
                    .and_then(|flow| Flow::read(&flow))
                    .map_err(place)?,
            };
            if first.is_none() {
                first = Some(flow.clone());
            }
            self.push(flow)?;
        }
        self.given.push(value.clone());
        Ok(())
    }

    fn distinct(&self) -> Result<(), ValueError> {
        let mut seen = HashSet::with_capacity(self.flows.len());
        match self
            .flows
            .iter()
            .position(|flow| !seen.insert(flow.identity()))
        {
            None => Ok(()),
            Some(at) => {
                let which =
                    format!("flow {at} repeats the table, priority and match of an earlier one");
                Err(ValueError::new(Self::KIND, &which, Self::RULE))
            }
        }
    }
}

/// A flow with holes, and what goes into them.
struct Template<'a> {
    base: Value,
    columns: Vec<&'a str>,
    rows: &'a [Value],
}

impl<'a> Template<'a> {
    const KIND: &'static str = "flow with rows";
    const RULE: &'static str = "columns is a list of 1 to 16 places such as /match/nw_dst or /actions/0/output that the flow itself does not fill, rows a list of lists of as many values";

    fn read(map: &'a Map<String, Value>) -> Result<Self, ValueError> {
        let wrong = |what: &str| ValueError::new(Self::KIND, what, Self::RULE);
        let list = |key| {
            map.get(key)
                .and_then(Value::as_array)
                .ok_or_else(|| wrong(key))
        };
        let columns: Vec<&str> = list(COLUMNS)?
            .iter()
            .map(|column| column.as_str().filter(|c| place(c).is_some()))
            .collect::<Option<_>>()
            .ok_or_else(|| wrong(COLUMNS))?;
        let distinct: HashSet<_> = columns.iter().collect();
        if columns.is_empty() || columns.len() > MAX_COLUMNS || distinct.len() != columns.len() {
            return Err(wrong(COLUMNS));
        }
        let rows = list(ROWS)?;
        if rows.is_empty() || rows.len() > FlowSet::MAX {
            return Err(wrong(ROWS));
        }
        let mut base = map.clone();
        base.remove(COLUMNS);
        base.remove(ROWS);
        base.entry("match").or_insert_with(|| json!({}));
        let base = Value::Object(base);
        if base.to_string().len().saturating_mul(rows.len()) > MAX_FILLED {
            let rule =
                "the flow's own text times its rows is at most 8 MiB; move values into columns";
            return Err(ValueError::new(Self::KIND, "too large", rule));
        }
        Ok(Self {
            base,
            columns,
            rows,
        })
    }

    /// The fields that the rows fill in, where they are only such as nothing else of the flow depends on: then a row is
    /// read without reading the whole flow again.
    fn independent_fields(&self) -> Option<Vec<Field>> {
        self.columns
            .iter()
            .map(|column| {
                Field::find(column.strip_prefix("/match/")?).filter(|field| field.is_independent())
            })
            .collect()
    }

    fn fill(&self, row: &Value) -> Result<Value, ValueError> {
        let wrong = |what: &str| ValueError::new(Self::KIND, what, Self::RULE);
        let cells = row
            .as_array()
            .filter(|cells| cells.len() == self.columns.len())
            .ok_or_else(|| wrong("a row of another length"))?;
        let mut flow = self.base.clone();
        for (column, cell) in self.columns.iter().zip(cells) {
            let (parent, key) = place(column).ok_or_else(|| wrong(column))?;
            let target = flow
                .pointer_mut(parent)
                .and_then(Value::as_object_mut)
                .ok_or_else(|| wrong(column))?;
            // A hole that is filled already would make two readers see two flows.
            if target.insert(key.to_owned(), cell.clone()).is_some() {
                return Err(wrong(column));
            }
        }
        Ok(flow)
    }
}

/// The same flow as the first of its rows with the values of another; `None` where they are not good, so that the whole
/// flow is read and says why.
fn alike(first: &Flow, fields: &[Field], row: &Value) -> Option<Flow> {
    let cells = row.as_array().filter(|cells| cells.len() == fields.len())?;
    let mut flow = first.clone();
    for (field, cell) in fields.iter().zip(cells) {
        flow.matching.put(*field, cell)?;
    }
    Some(flow)
}

/// Splits `/actions/0/output` into the place of the object and the key in it. Plain keys only: no escapes.
fn place(column: &str) -> Option<(&str, &str)> {
    let plain = column.len() <= 64
        && column
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_/".contains(&b));
    let (parent, key) = column.rsplit_once('/')?;
    (plain && column.starts_with('/') && !key.is_empty()).then_some((parent, key))
}

impl Param for FlowSet {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let items = value
            .as_array()
            .ok_or_else(|| ValueError::of_json(Self::KIND, value, Self::RULE))?;
        let mut set = Self::default();
        for (at, item) in items.iter().enumerate() {
            set.add(item)
                .map_err(|error| error.within(&format!("flow {at}")))?;
        }
        set.distinct()?;
        Ok(set)
    }
    fn to_json(&self) -> Option<Value> {
        Some(Value::Array(self.given.clone()))
    }
    fn schema() -> Value {
        json!({"type": "array", "maxItems": Self::MAX, "items": Flow::schema()})
    }
}
