//! The request envelope: from a frame's payload to a typed action, or to the refusal that is to be answered.

use serde_json::{Map, Value};

use crate::action::Action;
use crate::response::{ErrorCode, Response};
use crate::{escape, json};

/// Bytes that an `id` may have.
pub const MAX_ID: usize = 64;
/// Bytes that an error message may have: foreign text in it is cut long before.
const MAX_MESSAGE: usize = 512;

/// A request that is valid in itself. Whether this caller may make it is policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub action: Action,
    /// The client's own mark, echoed in the answer.
    pub id: Option<String>,
    /// Validate and authorise, but do nothing.
    pub dry_run: bool,
}

/// A request that is refused before anything happened. All texts are safe for a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Why.
    pub code: ErrorCode,
    /// One sentence.
    pub message: String,
    /// The client's mark, where one could be read. Raw: only for the answer, never for a log.
    pub id: Option<String>,
    /// The catalog name, or the unknown name escaped and cut; `None` where there was none.
    pub action_name: Option<String>,
}

impl Refusal {
    /// The answer.
    #[must_use]
    pub fn to_response(&self) -> Response {
        Response::refusal(self.id.clone(), self.code, self.message.clone())
    }
}

impl Request {
    /// A plain request.
    #[must_use]
    pub fn new(action: impl Into<Action>) -> Self {
        Self {
            action: action.into(),
            id: None,
            dry_run: false,
        }
    }

    /// The frame's payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut map = Map::new();
        map.insert("action".into(), self.action.name().into());
        map.insert("params".into(), self.action.params());
        if let Some(id) = &self.id {
            map.insert("id".into(), id.clone().into());
        }
        if self.dry_run {
            map.insert("dry_run".into(), true.into());
        }
        Value::Object(map).to_string().into_bytes()
    }
}

/// Reads one frame's payload.
///
/// # Errors
/// [`Refusal`] with `bad_json` (syntax, envelope), `unknown_action` or `bad_params`, and the `id` where there is a valid one.
pub fn decode_request(payload: &[u8]) -> Result<Request, Refusal> {
    let mut refusal = Refusal {
        code: ErrorCode::BadJson,
        message: String::new(),
        id: None,
        action_name: None,
    };
    match read(payload, &mut refusal) {
        Ok(request) => Ok(request),
        Err((code, mut message)) => {
            escape::cut(&mut message, MAX_MESSAGE);
            Err(Refusal {
                code,
                message,
                ..refusal
            })
        }
    }
}

fn read(payload: &[u8], seen: &mut Refusal) -> Result<Request, (ErrorCode, String)> {
    let envelope = |message: String| (ErrorCode::BadJson, message);
    let map = match json::parse(payload) {
        Ok(Value::Object(map)) => map,
        Ok(other) => {
            return Err(envelope(format!(
                "a request is an object, not {}",
                json::kind(&other)
            )));
        }
        Err(error) => return Err(envelope(format!("the request is not valid JSON: {error}"))),
    };
    // First the id, so that every later refusal can be matched to its request.
    match map.get("id") {
        None => {}
        Some(Value::String(id)) if id.len() <= MAX_ID => seen.id = Some(id.clone()),
        Some(_) => {
            return Err(envelope(format!(
                "id must be a text of at most {MAX_ID} bytes"
            )));
        }
    }
    if let Some(key) = map
        .keys()
        .find(|key| !matches!(key.as_str(), "action" | "params" | "id" | "dry_run"))
    {
        return Err(envelope(format!(
            "a request has no field \"{}\"; known: action, params, id, dry_run",
            escape::shown(key)
        )));
    }
    let dry_run = match map.get("dry_run") {
        None => false,
        Some(Value::Bool(flag)) => *flag,
        Some(other) => {
            return Err(envelope(format!(
                "dry_run must be true or false, not {}",
                json::kind(other)
            )));
        }
    };
    let name = match map.get("action") {
        Some(Value::String(name)) => name,
        Some(other) => {
            return Err(envelope(format!(
                "action must be a text, not {}",
                json::kind(other)
            )));
        }
        None => return Err(envelope("the field \"action\" is missing".to_owned())),
    };
    seen.action_name = Some(
        crate::catalog::find(name).map_or_else(|| escape::shown(name), |spec| spec.name.to_owned()),
    );
    let none = Value::Object(Map::new());
    let action = Action::from_parts(name, map.get("params").unwrap_or(&none))
        .map_err(|e| (e.code(), e.to_string()))?;
    Ok(Request {
        action,
        id: seen.id.clone(),
        dry_run,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Refusal {
        decode_request(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_refusal_says_what_was_wrong() {
        for (text, part) in [
            ("[]", "object"),
            (r#"{"action":"qm-stat"}"#, "qm-stat"),
            (r#"{"action":"qm-start","params":{"vmid":7}}"#, "vmid"),
        ] {
            assert!(refused(text).message.contains(part), "{}", refused(text));
        }
    }

    #[test]
    fn the_id_is_echoed_even_when_the_rest_is_refused() {
        let refusal = refused(r#"{"action":"qm-stat","id":"x\n1"}"#);
        assert_eq!(
            (refusal.code, refusal.id.as_deref()),
            (ErrorCode::UnknownAction, Some("x\n1"))
        );
        let refusal = refused(&format!(
            r#"{{"action":"qm-list","id":"{}"}}"#,
            "i".repeat(65)
        ));
        assert_eq!((refusal.code, refusal.id), (ErrorCode::BadJson, None));
    }

    #[test]
    fn an_action_name_cannot_forge_a_log_line() {
        let refusal = refused(r#"{"action":"x\nMay 1 root: ok\u001b[2J"}"#);
        for text in [&refusal.message, refusal.action_name.as_ref().unwrap()] {
            assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text:?}");
        }
    }

    #[test]
    fn params_may_be_missing_but_not_null() {
        assert!(decode_request(br#"{"action":"qm-list"}"#).is_ok());
        assert_eq!(
            refused(r#"{"action":"qm-list","params":null}"#).code,
            ErrorCode::BadParams
        );
    }

    #[test]
    fn a_request_survives_the_wire() {
        let request = Request {
            id: Some("7".into()),
            dry_run: true,
            ..decode_request(br#"{"action":"qm-start","params":{"vmid":100}}"#).unwrap()
        };
        assert_eq!(decode_request(&request.encode()), Ok(request));
    }
}
