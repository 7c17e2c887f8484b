//! Section `signup` of `blockhost.yaml`: what the signup page shows beside what the chain says. Used by
//! `blockhost-generate-signup` alone; checked with the rest of the file, so that an error has its line.

use reqwest::Url;
use serde::{Deserialize, Deserializer};

/// The section. Other programs' keys may stand in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SignupSection {
    /// Name of the offer: title and heading of the page.
    pub title: String,
    /// The sentence below it.
    pub description: String,
    /// Name of the chain; without it, its number.
    pub chain_name: Option<String>,
    /// What the chain's gas is paid in.
    pub currency: String,
    /// Endpoints for browsers; without them, those of `web3-defaults.yaml`.
    #[serde(deserialize_with = "endpoints")]
    pub rpc_urls: Vec<Url>,
    /// A block explorer.
    #[serde(deserialize_with = "link")]
    pub explorer_url: Option<Url>,
    /// Where to ask: `https:` or `mailto:`.
    #[serde(deserialize_with = "link")]
    pub contact: Option<Url>,
    /// The operator's terms.
    #[serde(deserialize_with = "link")]
    pub terms_url: Option<Url>,
    /// The page's colour, as an angle in degrees.
    #[serde(deserialize_with = "angle")]
    pub hue: u16,
}

impl Default for SignupSection {
    fn default() -> Self {
        Self {
            title: "BlockHost".into(),
            description: "Rent a machine with your wallet. No account, no email: your wallet pays, and only your wallet opens the access details.".into(),
            chain_name: None,
            currency: "ETH".into(),
            rpc_urls: Vec::new(),
            explorer_url: None,
            contact: None,
            terms_url: None,
            hue: 262,
        }
    }
}

/// An address that a page may ask: plain HTTP(S), with a host that cannot be taken for something else in the page's
/// policy, and without credentials that it would give away.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("{text:?} is not a URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "{text:?} is no http: or https: URL, which is what browsers ask"
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The value holds a password: it is not repeated.
        return Err("the URL holds a user name or password; the page is public".into());
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    if !url.host_str().is_some_and(|host| host.bytes().all(plain)) {
        return Err(format!("{text:?} has an unusual host name"));
    }
    Ok(url)
}

fn endpoints<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Url>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let urls: Result<_, _> = texts.iter().map(|text| endpoint(text)).collect();
    urls.map_err(serde::de::Error::custom)
}

fn link<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Url>, D::Error> {
    let text = Option::<String>::deserialize(from)?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    match Url::parse(&text) {
        // Any other kind of link could be a program.
        Ok(url) if matches!(url.scheme(), "https" | "http" | "mailto") => Ok(Some(url)),
        _ => Err(serde::de::Error::custom(format_args!(
            "{text:?} is no https:, http: or mailto: link"
        ))),
    }
}

fn angle<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    match u16::deserialize(from)? {
        degrees @ 0..360 => Ok(degrees),
        more => Err(serde::de::Error::custom(format_args!(
            "{more} is no angle from 0 to 359"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_gives_something_away_or_widens_the_policy_is_refused() {
        for bad in [
            "https://user:secret@node.example/",
            "https://secret@node.example/",
            "wss://node.example/",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "https://a;script-src.example/",
            "https://a'b.example/",
            "https://a,b.example/",
            "https://*.example/",
            "node.example",
            "",
        ] {
            let error = endpoint(bad).expect_err(bad);
            assert!(!error.contains("secret"), "{error}");
        }
        for good in [
            "https://node.example/v3/key?x=1",
            "http://127.0.0.1:8545",
            "http://[::1]:8545/",
        ] {
            endpoint(good).expect(good);
        }
    }

    #[test]
    fn a_link_that_could_be_a_program_is_refused() {
        for bad in ["javascript:alert(1)", "data:text/html,x", "//x", "x"] {
            let json = serde_json::json!({"contact": bad});
            assert!(
                serde_json::from_value::<SignupSection>(json).is_err(),
                "{bad}"
            );
        }
        let json =
            serde_json::json!({"contact": "mailto:x@y.example", "hue": 359, "terms_url": ""});
        let section: SignupSection = serde_json::from_value(json).expect("good");
        assert_eq!(section.terms_url, None);
        assert!(serde_json::from_value::<SignupSection>(serde_json::json!({"hue": 360})).is_err());
    }
}
