//! What is said over a websocket: on which chain the node is, and that it is to tell of new blocks. Pure, no socket: text
//! comes in, and what follows from it goes out. Nothing of what a node says is believed here; the connection is
//! [`super::socket`]'s.

use serde::Deserialize;
use serde_json::{Value, json};

const CHAIN_ID: u64 = 1;
const SUBSCRIBE: u64 = 2;
/// Messages that nobody asked for, before the node is left alone: some send a few of other subscriptions at a change.
const MOST_FOREIGN: u32 = 64;
/// Longer names of subscriptions are not taken.
const LONGEST_NAME: usize = 128;
/// Characters of a node's own words that are repeated.
const LONGEST_QUOTE: usize = 200;

/// What a message came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// This is to be answered.
    Ask(String),
    /// From now on it tells of new blocks.
    Subscribed,
    /// There is a new block, it says, of this number.
    Head(u64),
}

/// Why no more is heard from a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// Of no use.
    #[error("is on chain id {0}")]
    WrongChain(u64),
    /// It does not want to.
    #[error("refused {what}: error {code}: {message}")]
    Refused {
        /// What it was asked.
        what: &'static str,
        /// Its number.
        code: i64,
        /// Its words, shortened.
        message: String,
    },
    /// Not an answer to what was asked.
    #[error("gave no usable answer to {0}")]
    Unusable(&'static str),
    /// More of it than a mistake explains.
    #[error("sends messages that nobody asked for")]
    Foreign,
}

#[derive(Debug)]
enum Stage {
    Greeting,
    Subscribing,
    /// Under this name.
    Subscribed(String),
}

/// One connection's talk.
#[derive(Debug)]
pub struct Session {
    chain_id: u64,
    stage: Stage,
    foreign: u32,
    last: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    error: Option<Refusal>,
    #[serde(default)]
    params: Option<Params>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Params {
    subscription: String,
    result: Head,
}

#[derive(Deserialize)]
struct Head {
    number: String,
    hash: String,
}

impl Session {
    /// With a node that has to be on this chain.
    #[must_use]
    pub const fn new(chain_id: u64) -> Self {
        Self {
            chain_id,
            stage: Stage::Greeting,
            foreign: 0,
            last: None,
        }
    }

    /// What is said first.
    #[must_use]
    pub fn begin(&self) -> String {
        request(CHAIN_ID, "eth_chainId", &json!([]))
    }

    /// Whether it tells of new blocks.
    #[must_use]
    pub const fn is_subscribed(&self) -> bool {
        matches!(self.stage, Stage::Subscribed(_))
    }

    /// A message that is no text.
    ///
    /// # Errors
    /// [`Breach::Foreign`] when there were too many of its kind.
    pub fn heard_bytes(&mut self) -> Result<Heard, Breach> {
        self.foreign += 1;
        if self.foreign > MOST_FOREIGN {
            return Err(Breach::Foreign);
        }
        Ok(Heard::Nothing)
    }

    /// A message.
    ///
    /// # Errors
    /// [`Breach`]: this node is of no use.
    pub fn heard(&mut self, text: &str) -> Result<Heard, Breach> {
        let Ok(message) = serde_json::from_str::<Message>(text) else {
            return self.heard_bytes();
        };
        let id = message.id.as_ref().and_then(Value::as_u64);
        match (&self.stage, id) {
            (Stage::Greeting, Some(CHAIN_ID)) => {
                let result = answer(message, "which chain it is on")?;
                let chain_id = number(&result).ok_or(Breach::Unusable("which chain it is on"))?;
                if chain_id != self.chain_id {
                    return Err(Breach::WrongChain(chain_id));
                }
                self.stage = Stage::Subscribing;
                let params = json!(["newHeads"]);
                Ok(Heard::Ask(request(SUBSCRIBE, "eth_subscribe", &params)))
            }
            (Stage::Subscribing, Some(SUBSCRIBE)) => {
                let result = answer(message, "to tell of new blocks")?;
                if result.is_empty() || result.len() > LONGEST_NAME {
                    return Err(Breach::Unusable("to tell of new blocks"));
                }
                self.stage = Stage::Subscribed(result);
                Ok(Heard::Subscribed)
            }
            (Stage::Subscribed(name), None) => {
                let told = message
                    .params
                    .filter(|_| message.method.as_deref() == Some("eth_subscription"))
                    .filter(|params| params.subscription == *name)
                    .and_then(|params| Some((number(&params.result.number)?, params.result.hash)));
                let Some((head, hash)) = told else {
                    return self.heard_bytes();
                };
                // The same again is no news; the same number with another hash is another history.
                if self.last.as_ref() == Some(&hash) {
                    return self.heard_bytes();
                }
                self.last = Some(hash);
                Ok(Heard::Head(head))
            }
            _ => self.heard_bytes(),
        }
    }
}

fn request(id: u64, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

fn answer(message: Message, what: &'static str) -> Result<String, Breach> {
    if let Some(refusal) = message.error {
        return Err(Breach::Refused {
            what,
            code: refusal.code,
            message: refusal.message.chars().take(LONGEST_QUOTE).collect(),
        });
    }
    match message.result {
        Some(Value::String(text)) => Ok(text),
        _ => Err(Breach::Unusable(what)),
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    // `from_str_radix` would take a sign.
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subscribed() -> Session {
        let mut session = Session::new(31337);
        assert!(session.begin().contains("eth_chainId"));
        let asked = session.heard(r#"{"jsonrpc":"2.0","id":1,"result":"0x7a69"}"#);
        assert!(matches!(asked, Ok(Heard::Ask(text)) if text.contains("newHeads")));
        assert_eq!(
            session.heard(r#"{"jsonrpc":"2.0","id":2,"result":"0xabc"}"#),
            Ok(Heard::Subscribed)
        );
        session
    }

    fn head(subscription: &str, number: &str, hash: &str) -> String {
        json!({"jsonrpc": "2.0", "method": "eth_subscription", "params":
            {"subscription": subscription, "result": {"number": number, "hash": hash, "parentHash": "0x0"}}})
        .to_string()
    }

    #[test]
    fn a_new_block_is_told_once_and_another_of_its_number_again() {
        let mut session = subscribed();
        let mut heard = |hash: &str| session.heard(&head("0xabc", "0x10", hash)).unwrap();
        assert_eq!(heard("0xa"), Heard::Head(16));
        assert_eq!(heard("0xa"), Heard::Nothing);
        assert_eq!(heard("0xb"), Heard::Head(16));
    }

    #[test]
    fn a_node_on_another_chain_or_without_subscriptions_is_left_with_a_reason() {
        let mut session = Session::new(1);
        let foreign = session.heard(r#"{"id":1,"result":"0x5"}"#);
        assert_eq!(foreign, Err(Breach::WrongChain(5)));
        let mut session = Session::new(5);
        session.heard(r#"{"id":1,"result":"0x5"}"#).unwrap();
        let long = "x".repeat(5000);
        let refused = session
            .heard(&json!({"id": 2, "error": {"code": -32601, "message": long}}).to_string())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("-32601") && refused.len() < 300,
            "{refused}"
        );
        for bad in [
            json!("5"),
            json!("0x+5"),
            json!(5),
            json!(null),
            json!("0x10000000000000005"),
        ] {
            let mut session = Session::new(5);
            let heard = session.heard(&json!({"id": 1, "result": bad}).to_string());
            assert_eq!(
                heard,
                Err(Breach::Unusable("which chain it is on")),
                "{bad}"
            );
        }
        let mut session = Session::new(5);
        session.heard(r#"{"id":1,"result":"0x5"}"#).unwrap();
        let name = json!({"id": 2, "result": "n".repeat(129)}).to_string();
        assert!(matches!(session.heard(&name), Err(Breach::Unusable(_))));
    }

    #[test]
    fn what_nobody_asked_for_wakes_nobody_and_ends_the_talk_when_there_is_more_of_it() {
        for foreign in [
            head("0xother", "0x10", "0xa"),
            head("0xabc", "16", "0xa"),
            head("0xabc", "0x10", "0xa").replace("eth_subscription", "eth_logs"),
            format!("[{}]", head("0xabc", "0x10", "0xa")),
            r#"{"id":1,"result":"0x5"}"#.to_owned(),
            r#"{"id":3,"method":"eth_sign","params":[]}"#.to_owned(),
            "{".repeat(10_000),
            "no json".to_owned(),
            String::new(),
        ] {
            let mut session = subscribed();
            let mut last = Ok(Heard::Nothing);
            for _ in 0..=MOST_FOREIGN {
                assert_eq!(last, Ok(Heard::Nothing), "{foreign}");
                last = session.heard(&foreign);
            }
            assert_eq!(last, Err(Breach::Foreign), "{foreign}");
        }
    }

    #[test]
    fn no_block_counts_before_the_chain_is_known() {
        let mut session = Session::new(31337);
        let early = head("0xabc", "0x10", "0xa");
        assert_eq!(session.heard(&early), Ok(Heard::Nothing));
        // Nor is an answer taken for another question.
        assert_eq!(
            session.heard(r#"{"id":2,"result":"0xabc"}"#),
            Ok(Heard::Nothing)
        );
        assert!(!session.is_subscribed());
    }

    proptest! {
        #[test]
        fn whatever_comes_it_ends_in_an_answer(texts in prop::collection::vec(".{0,60}", 0..20)) {
            let mut session = subscribed();
            for text in texts {
                if session.heard(&text).is_err() {
                    break;
                }
            }
        }
    }
}
