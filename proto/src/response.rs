//! What the agent answers: codes, receipts, and the encoding with its cut of over-long output.
//! The front process encodes with it, both clients decode with it.

use std::fmt;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{escape, json, request};

/// Why a request was refused or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The length in front of the message is impossible; the connection is closed.
    BadFrame,
    /// Not strict JSON, or not a request envelope.
    BadJson,
    /// No such action in the catalog.
    UnknownAction,
    /// The action's parameters break a rule of their types.
    BadParams,
    /// This caller may not do this, or a policy allowlist does not hold the value.
    Forbidden,
    /// What the action is about does not exist.
    NotFound,
    /// It exists already, or is in a state that does not allow this.
    Conflict,
    /// A limit is reached or the ledger cannot record now; try again later.
    Busy,
    /// The time limit passed.
    Timeout,
    /// It was tried and failed; the message says why.
    Failed,
    /// A fault of the agent itself.
    Internal,
}

impl ErrorCode {
    /// Every code, for documentation and tests.
    pub const ALL: [Self; 11] = [
        Self::BadFrame,
        Self::BadJson,
        Self::UnknownAction,
        Self::BadParams,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::Busy,
        Self::Timeout,
        Self::Failed,
        Self::Internal,
    ];

    /// As it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::BadJson => "bad_json",
            Self::UnknownAction => "unknown_action",
            Self::BadParams => "bad_params",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::Internal => "internal",
        }
    }

    /// When the agent answers with it, for the protocol reference.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::BadFrame => {
                "the announced length is 0 or over the limit, or the frame did not arrive in time"
            }
            Self::BadJson => "not strict JSON, or not a request envelope",
            Self::UnknownAction => "no such action in the catalog",
            Self::BadParams => "a parameter is missing, unknown or breaks the rule of its type",
            Self::Forbidden => {
                "this caller may not do this, or an allowlist does not hold the value"
            }
            Self::NotFound => "what the action is about does not exist",
            Self::Conflict => "it exists already, or its state does not allow this",
            Self::Busy => "a limit is reached or the ledger cannot record now; try again later",
            Self::Timeout => "the time limit passed",
            Self::Failed => "it was tried and failed; the message says why",
            Self::Internal => "a fault of the agent itself",
        }
    }

    /// The code of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the ledger holds the request's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Leaf index, from 0.
    pub index: u64,
    /// RFC 6962 leaf hash, 64 lower-case hex digits.
    pub leaf: String,
}

impl Receipt {
    fn is_well_formed(&self) -> bool {
        self.leaf.len() == 64
            && self
                .leaf
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The request's `id`, echoed.
    pub id: Option<String>,
    /// Where the ledger holds it, for requests that were executed.
    pub receipt: Option<Receipt>,
    /// Success or refusal.
    pub body: Body,
}

/// The two kinds of answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// `"ok": true`.
    Success {
        /// Text for the caller, empty where there is nothing to say.
        output: String,
        /// Fields of this action, such as `address` of `generate-wallet`.
        extra: Map<String, Value>,
    },
    /// `"ok": false`.
    Refusal {
        /// The machine-readable reason.
        code: ErrorCode,
        /// One readable sentence.
        message: String,
    },
}

/// Fields that an action's `extra` cannot overwrite.
pub const RESERVED_FIELDS: [&str; 7] = [
    "ok",
    "output",
    "error",
    "code",
    "id",
    "receipt",
    "truncated",
];

/// A text that is not an answer of the agent.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// Not JSON as this protocol has it.
    #[error("the answer is not valid JSON: {0}")]
    Json(#[from] json::JsonError),
    /// JSON, but not an answer.
    #[error("the answer lacks or misuses the field \"{field}\"")]
    Shape {
        /// The field in question.
        field: &'static str,
    },
}

/// An answer as it is written: fields in reading order, long texts cut.
struct View<'a> {
    response: &'a Response,
    text_limit: usize,
    with_extra: bool,
    truncated: bool,
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.response.body {
            Body::Success { output, extra } => {
                map.serialize_entry("ok", &true)?;
                map.serialize_entry("output", escape::cut_to(output, self.text_limit))?;
                let fields = extra
                    .iter()
                    .filter(|(key, _)| self.with_extra && !RESERVED_FIELDS.contains(&key.as_str()));
                for (key, value) in fields {
                    map.serialize_entry(key, value)?;
                }
            }
            Body::Refusal { code, message } => {
                map.serialize_entry("ok", &false)?;
                map.serialize_entry("error", escape::cut_to(message, self.text_limit))?;
                map.serialize_entry("code", code.as_str())?;
            }
        }
        if let Some(id) = &self.response.id {
            map.serialize_entry("id", id)?;
        }
        if let Some(receipt) = &self.response.receipt {
            map.serialize_entry("receipt", receipt)?;
        }
        if self.truncated {
            map.serialize_entry("truncated", &true)?;
        }
        map.end()
    }
}

impl Response {
    /// A success without further fields.
    #[must_use]
    pub fn success(id: Option<String>, output: impl Into<String>) -> Self {
        Self {
            id,
            receipt: None,
            body: Body::Success {
                output: output.into(),
                extra: Map::new(),
            },
        }
    }

    /// A refusal.
    #[must_use]
    pub fn refusal(id: Option<String>, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            id,
            receipt: None,
            body: Body::Refusal {
                code,
                message: message.into(),
            },
        }
    }

    /// The JSON payload, at most `limit` bytes: an over-long `output` (or error message) is cut at a character boundary
    /// and the answer then says `"truncated": true`. Where even an empty output does not fit because of the extra fields,
    /// those are dropped first, so the answer is always valid JSON and always within `limit` (which must be at least 512).
    #[must_use]
    pub fn encode(&self, limit: usize) -> Vec<u8> {
        let whole = self.render(usize::MAX, true, false);
        if whole.len() <= limit {
            return whole;
        }
        let with_extra = self.render(0, true, true).len() <= limit;
        // Escaping makes the encoded length a monotonic function of the cut: search for the longest that fits.
        let text = match &self.body {
            Body::Success { output, .. } => output.len(),
            Body::Refusal { message, .. } => message.len(),
        };
        let (mut low, mut high) = (0, text);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.render(middle, with_extra, true).len() <= limit {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        self.render(low, with_extra, true)
    }

    /// Straight into bytes: an answer is on every client's critical path.
    fn render(&self, text_limit: usize, with_extra: bool, truncated: bool) -> Vec<u8> {
        let view = View {
            response: self,
            text_limit,
            with_extra,
            truncated,
        };
        serde_json::to_vec(&view)
            .expect("texts and numbers always serialise, and memory takes every byte")
    }

    /// Reads an answer, as a client does.
    ///
    /// # Errors
    /// [`ResponseError`] for anything that is not an answer in this protocol's shape.
    pub fn decode(payload: &[u8]) -> Result<Self, ResponseError> {
        let shape = |field| ResponseError::Shape { field };
        let Value::Object(mut map) = json::parse(payload)? else {
            return Err(shape("ok"));
        };
        let text = |map: &mut Map<String, Value>, field: &'static str| match map.remove(field) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(shape(field)),
        };
        let ok = map
            .remove("ok")
            .and_then(|v| v.as_bool())
            .ok_or(shape("ok"))?;
        let id = if map.contains_key("id") {
            Some(
                text(&mut map, "id")
                    .ok()
                    .filter(|id| id.len() <= request::MAX_ID)
                    .ok_or(shape("id"))?,
            )
        } else {
            None
        };
        let receipt = match map.remove("receipt") {
            None => None,
            // An object by itself: serde would take a list for a struct.
            Some(value @ Value::Object(_)) => Some(
                Receipt::deserialize(value)
                    .ok()
                    .filter(Receipt::is_well_formed)
                    .ok_or(shape("receipt"))?,
            ),
            Some(_) => return Err(shape("receipt")),
        };
        let body = if ok {
            Body::Success {
                output: text(&mut map, "output")?,
                extra: map,
            }
        } else {
            let message = text(&mut map, "error")?;
            let code = text(&mut map, "code")?;
            Body::Refusal {
                code: ErrorCode::from_name(&code).ok_or(shape("code"))?,
                message,
            }
        };
        Ok(Self { id, receipt, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_the_wire() {
        let mut extra = Map::new();
        extra.insert("address".into(), "0x0".into());
        let response = Response {
            id: Some("7".into()),
            receipt: Some(Receipt {
                index: 41,
                leaf: "ab".repeat(32),
            }),
            body: Body::Success {
                output: "line\n\u{1f600}".into(),
                extra,
            },
        };
        assert_eq!(
            Response::decode(&response.encode(1 << 20)).unwrap(),
            response
        );
        let refusal = Response::refusal(None, ErrorCode::Busy, "later");
        assert_eq!(Response::decode(&refusal.encode(1 << 20)).unwrap(), refusal);
    }

    #[test]
    fn long_output_is_cut_at_a_character_and_says_so() {
        for output in [
            "\u{1f600}".repeat(1000),
            "\u{1}".repeat(1000),
            "a".repeat(5000),
        ] {
            let payload = Response::success(Some("x".into()), output.clone()).encode(1024);
            assert!(
                payload.len() <= 1024 && payload.len() > 1000,
                "{}",
                payload.len()
            );
            let Body::Success { output: cut, extra } = Response::decode(&payload).unwrap().body
            else {
                panic!("refused")
            };
            assert!(output.starts_with(&cut) && !cut.is_empty());
            assert_eq!(extra["truncated"], Value::Bool(true));
        }
    }

    #[test]
    fn extra_fields_cannot_pass_for_fields_of_the_agent() {
        let mut extra = Map::new();
        extra.insert("ok".into(), false.into());
        extra.insert("receipt".into(), "forged".into());
        let response = Response {
            id: None,
            receipt: None,
            body: Body::Success {
                output: String::new(),
                extra,
            },
        };
        assert_eq!(response.encode(1024), br#"{"ok":true,"output":""}"#);
    }

    #[test]
    fn answers_of_another_shape_are_refused() {
        for text in [
            "[]",
            "{}",
            r#"{"ok":1,"output":""}"#,
            r#"{"ok":true}"#,
            r#"{"ok":false,"error":"x","code":"odd"}"#,
            r#"{"ok":true,"output":"","receipt":[1,"a"]}"#,
            r#"{"ok":true,"output":"","id":1}"#,
        ] {
            assert!(Response::decode(text.as_bytes()).is_err(), "{text}");
        }
    }
}
