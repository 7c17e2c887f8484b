//! The OVSDB client (RFC 7047): one connection, one request at a time, every operation's own error looked at. What is
//! asked is decided in `bridges`, `ports` and `qos`; bytes are cut by `framer` and carried by `line`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::error::{SwitchError, framing};
use super::framer::{Framer, Limits};
use super::line::{Flow, Line, Sockets};
use super::rows::{Row, Slot, Transaction, Uuid, equals};

const DATABASE: &str = "Open_vSwitch";
const SOCKET: &str = "db.sock";
const PEER: &str = "ovsdb-server";
/// Longest request; 10 000 operations are far below.
const MAX_REQUEST: usize = 4 << 20;

/// What this program relies on in any version of the switch it works with.
const NEEDED: [(&str, &[&str]); 6] = [
    ("Open_vSwitch", &["bridges", "next_cfg", "cur_cfg"]),
    (
        "Bridge",
        &[
            "name",
            "ports",
            "external_ids",
            "datapath_type",
            "fail_mode",
        ],
    ),
    (
        "Port",
        &["name", "interfaces", "tag", "trunks", "qos", "external_ids"],
    ),
    (
        "Interface",
        &["name", "type", "ofport", "external_ids", "statistics"],
    ),
    ("QoS", &["type", "queues", "other_config", "external_ids"]),
    ("Queue", &["other_config", "external_ids"]),
];

/// A connection that has seen the schema.
#[derive(Debug)]
pub struct Ovsdb {
    line: Line,
    framer: Framer,
    last_id: u64,
    /// A request was not answered, or was perhaps not sent whole: the next one must not follow it.
    torn: bool,
    columns: BTreeMap<String, BTreeSet<String>>,
}

impl Ovsdb {
    /// Connects and reads the schema.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn connect(sockets: &Sockets, deadline: Instant) -> Result<Self, SwitchError> {
        let mut client = Self {
            line: sockets.connect(SOCKET, PEER)?,
            framer: Framer::new(Limits::OVSDB),
            last_id: 0,
            torn: false,
            columns: BTreeMap::new(),
        };
        let schema = client.call("get_schema", json!([DATABASE]), deadline)?;
        let tables = schema.get("tables").and_then(Value::as_object);
        for (table, needed) in NEEDED {
            let columns = tables
                .and_then(|tables| tables.get(table)?.get("columns")?.as_object())
                .ok_or_else(|| {
                    SwitchError::nonsense(PEER, format!("a schema without table {table}"))
                })?;
            if let Some(column) = needed.iter().find(|&&column| !columns.contains_key(column)) {
                let what = format!("a schema without column {column} of table {table}");
                return Err(SwitchError::nonsense(PEER, what));
            }
            let names = columns.keys().cloned().collect();
            client.columns.insert(table.to_owned(), names);
        }
        Ok(client)
    }

    /// Whether this switch's database has the column.
    #[must_use]
    pub fn has(&self, table: &str, column: &str) -> bool {
        self.columns
            .get(table)
            .is_some_and(|columns| columns.contains(column))
    }

    /// Whether the connection can be used for another request.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.torn && self.framer.at_rest() && self.line.is_idle()
    }

    /// Carries a transaction out.
    ///
    /// # Errors
    /// [`SwitchError::Raced`] when a guard did not hold, [`SwitchError::Refused`] with the database's words otherwise;
    /// nothing has changed then. After [`SwitchError::Closed`] and [`SwitchError::TimedOut`] it may have.
    pub fn transact(
        &mut self,
        transaction: Transaction,
        deadline: Instant,
    ) -> Result<Answers, SwitchError> {
        let count = transaction.len();
        let result = self.call("transact", transaction.into_params(DATABASE), deadline)?;
        let Value::Array(results) = result else {
            return Err(SwitchError::nonsense(PEER, "a result that is no list"));
        };
        // A failure at commit stands behind the results of all operations.
        for result in &results {
            if let Some(error) = result.get("error").filter(|error| !error.is_null()) {
                let error = error.as_str().unwrap_or("an error without a name");
                if error == "timed out" {
                    return Err(SwitchError::Raced);
                }
                let details = result.get("details").and_then(Value::as_str);
                let text = details.map_or_else(|| error.to_owned(), |d| format!("{error}: {d}"));
                return Err(SwitchError::refused(text));
            }
        }
        if results.len() != count || results.iter().any(|result| !result.is_object()) {
            return Err(SwitchError::nonsense(
                PEER,
                "fewer or more results than operations",
            ));
        }
        Ok(Answers(results))
    }

    /// Tells the switch that there is something new; [`Self::await_switch`] takes the returned slot's number.
    pub fn announce(transaction: &mut Transaction) -> Slot {
        transaction.mutate("Open_vSwitch", json!([]), "next_cfg", "+=", json!(1));
        transaction.select("Open_vSwitch", json!([]), &["next_cfg"])
    }

    /// Waits until ovs-vswitchd has acted on the announcement, and reads what `then` asks for in the same moment.
    ///
    /// # Errors
    /// [`SwitchError::TimedOut`] when it has not by `deadline`.
    pub fn await_switch(
        &mut self,
        announced: i64,
        then: impl FnOnce(&mut Transaction),
        deadline: Instant,
    ) -> Result<Answers, SwitchError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut transaction = Transaction::new();
        // No row is left whose cur_cfg is behind: true as soon as the switch has caught up, and stays true.
        transaction.wait(
            "Open_vSwitch",
            json!([["cur_cfg", "<", announced]]),
            &["cur_cfg"],
            json!([]),
            u64::try_from(left.as_millis()).unwrap_or(u64::MAX >> 1),
        );
        then(&mut transaction);
        let deadline = deadline + Duration::from_millis(500);
        match self.transact(transaction, deadline) {
            Err(SwitchError::Raced | SwitchError::TimedOut { .. }) => Err(SwitchError::TimedOut {
                peer: "ovs-vswitchd",
                when: "to take the change up; is it running?",
            }),
            other => other,
        }
    }

    /// One request and its answer.
    fn call(
        &mut self,
        method: &str,
        params: Value,
        deadline: Instant,
    ) -> Result<Value, SwitchError> {
        self.last_id += 1;
        let id = self.last_id;
        let request = json!({"method": method, "params": params, "id": id}).to_string();
        if request.len() > MAX_REQUEST {
            return Err(SwitchError::refused(
                "the request is too long for one transaction",
            ));
        }
        let mut out = request;
        self.torn = true;
        loop {
            let heard = self.listen(&out, id, deadline)?;
            match heard {
                Heard::Answer(answer) => {
                    self.torn = false;
                    return answer;
                }
                // The server wants to know whether we live; then it goes on with the answer.
                Heard::Echo(answer) => out = answer,
            }
        }
    }

    /// Sends `out` and reads until there is something to act on.
    fn listen(&mut self, out: &str, id: u64, deadline: Instant) -> Result<Heard, SwitchError> {
        let framer = &mut self.framer;
        let mut heard = None;
        self.line
            .exchange(out.as_bytes(), deadline, "to a request", |mut bytes| {
                while let Some(message) = framer.next(&mut bytes).map_err(framing(PEER))? {
                    match (understand(&message, id)?, &heard) {
                        (Some(Heard::Answer(_)), Some(Heard::Answer(_))) => {
                            return Err(SwitchError::nonsense(PEER, "two answers to one request"));
                        }
                        (None, _) | (Some(_), Some(Heard::Answer(_))) => {}
                        (something, _) => heard = something,
                    }
                }
                Ok(if heard.is_some() {
                    Flow::Enough
                } else {
                    Flow::More
                })
            })?;
        heard.ok_or_else(|| SwitchError::nonsense(PEER, "no answer"))
    }
}

enum Heard {
    Answer(Result<Value, SwitchError>),
    Echo(String),
}

/// What a message means to the request `id`; `None` for what does not matter.
fn understand(message: &[u8], id: u64) -> Result<Option<Heard>, SwitchError> {
    let message: Value = serde_json::from_slice(message)
        .map_err(|error| SwitchError::nonsense(PEER, error.to_string()))?;
    if let Some(method) = message.get("method").and_then(Value::as_str) {
        // Notifications have a null id and want nothing.
        let wanted = message.get("id").filter(|id| !id.is_null());
        return Ok(match (method, wanted) {
            ("echo", Some(theirs)) => {
                let params = message.get("params").cloned().unwrap_or_else(|| json!([]));
                let answer = json!({"id": theirs, "result": params, "error": null});
                Some(Heard::Echo(answer.to_string()))
            }
            _ => None,
        });
    }
    let answered = message.get("id").and_then(Value::as_u64);
    // Late, to a request that was given up; what undoes that one must not fail over it.
    if answered.is_some_and(|answered| (1..id).contains(&answered)) {
        return Ok(None);
    }
    if answered != Some(id) {
        return Err(SwitchError::nonsense(
            PEER,
            "an answer to no request of ours",
        ));
    }
    let answer = match message.get("error").filter(|error| !error.is_null()) {
        None => message
            .get("result")
            .cloned()
            .ok_or_else(|| SwitchError::nonsense(PEER, "an answer without a result")),
        Some(error) => {
            let text = error.get("error").or(Some(error)).and_then(Value::as_str);
            Err(SwitchError::refused(
                text.unwrap_or("an error without a name"),
            ))
        }
    };
    Ok(Some(Heard::Answer(answer)))
}

/// The results of a transaction's operations, in order.
#[derive(Debug)]
pub struct Answers(Vec<Value>);

impl Answers {
    /// The rows of a select.
    pub fn rows(&mut self, slot: Slot) -> Vec<Row> {
        let rows = self.0.get_mut(slot.0).and_then(|r| r.get_mut("rows"));
        match rows.map(Value::take) {
            Some(Value::Array(rows)) => rows
                .into_iter()
                .filter_map(|row| match row {
                    Value::Object(map) => Some(Row(map)),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The only row of a select, if there is exactly one.
    pub fn row(&mut self, slot: Slot) -> Option<Row> {
        let mut rows = self.rows(slot);
        if rows.len() == 1 { rows.pop() } else { None }
    }

    /// The UUID of an inserted row.
    ///
    /// # Errors
    /// [`SwitchError::Nonsense`] when there is none.
    pub fn inserted(&self, slot: Slot) -> Result<Uuid, SwitchError> {
        let uuid = self.0.get(slot.0).and_then(|r| r.get("uuid"));
        uuid.and_then(Uuid::from_json)
            .ok_or_else(|| SwitchError::nonsense(PEER, "no UUID of a new row"))
    }

    /// The number that [`Ovsdb::announce`] selected.
    ///
    /// # Errors
    /// [`SwitchError::Nonsense`] when there is none.
    pub fn announced(&mut self, slot: Slot) -> Result<i64, SwitchError> {
        self.row(slot)
            .and_then(|row| row.integer("next_cfg"))
            .ok_or_else(|| SwitchError::nonsense(PEER, "no next_cfg"))
    }
}

/// The row of a table with that name, selected in a transaction of its own.
///
/// # Errors
/// [`SwitchError`].
pub fn named(
    db: &mut Ovsdb,
    table: &str,
    name: &str,
    columns: &[&str],
    deadline: Instant,
) -> Result<Option<Row>, SwitchError> {
    let mut transaction = Transaction::new();
    let slot = transaction.select(table, equals("name", name), columns);
    Ok(db.transact(transaction, deadline)?.row(slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_to_a_request_given_up_is_passed_over_and_one_to_no_request_is_nonsense() {
        let answer = |id: u64| json!({"id": id, "result": {}, "error": null}).to_string();
        assert!(matches!(understand(answer(2).as_bytes(), 3), Ok(None)));
        assert!(matches!(
            understand(answer(3).as_bytes(), 3),
            Ok(Some(Heard::Answer(Ok(_))))
        ));
        for id in [0, 4] {
            assert!(understand(answer(id).as_bytes(), 3).is_err(), "{id}");
        }
    }
}
