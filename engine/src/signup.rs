//! The signup page: fills the template of `engine/signup` with what this host is configured to be. No file is read and
//! nothing is asked of the chain here; `blockhost-generate-signup` calls it.

use crate::chain::Address;
use crate::config::SignupSection;
use crate::crypto::keys::PublicKey;
use blockhost_provisioner::config::{Size, Sizes};
use reqwest::Url;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Bundled by `engine/signup/build.mjs`; its policy already names the hashes of the script and the style in it.
const TEMPLATE: &str = include_str!("../signup/dist/signup.html");

/// What is particular to this host.
#[derive(Debug)]
pub struct Page<'a> {
    /// `signup` of `blockhost.yaml`.
    pub section: &'a SignupSection,
    /// The chain's number.
    pub chain_id: u64,
    /// Where the page asks, in order of preference.
    pub endpoints: &'a [Url],
    /// `BlockhostSubscriptions`.
    pub subscriptions: Address,
    /// `AccessCredentialNFT`.
    pub credentials: Address,
    /// What buyers encrypt to.
    pub server_key: &'a PublicKey,
    /// What buyers sign.
    pub public_secret: &'a str,
    /// Blocks on top of a payment before it counts.
    pub confirmations: u64,
    /// What plans give.
    pub sizes: &'a Sizes,
}

/// What the script reads, with the names of `engine/signup/src/config.ts`.
#[derive(Serialize)]
struct Config<'a> {
    title: &'a str,
    chain_id: u64,
    chain_name: &'a str,
    currency: &'a str,
    rpc_urls: Vec<&'a str>,
    explorer_url: Option<&'a str>,
    contact: Option<&'a str>,
    terms_url: Option<&'a str>,
    subscription_contract: String,
    nft_contract: String,
    server_public_key: String,
    public_secret: &'a str,
    confirmations: u64,
    hue: u16,
    machines: BTreeMap<u64, Size>,
    machine: Size,
}

/// The finished page. The same input gives the same bytes.
#[must_use]
pub fn render(page: &Page<'_>) -> String {
    let section = page.section;
    let numbered = format!("chain {}", page.chain_id);
    let config = Config {
        title: &section.title,
        chain_id: page.chain_id,
        chain_name: section.chain_name.as_deref().unwrap_or(&numbered),
        currency: &section.currency,
        rpc_urls: page.endpoints.iter().map(Url::as_str).collect(),
        explorer_url: section
            .explorer_url
            .as_ref()
            .map(|url| url.as_str().trim_end_matches('/')),
        contact: section.contact.as_ref().map(Url::as_str),
        terms_url: section.terms_url.as_ref().map(Url::as_str),
        subscription_contract: page.subscriptions.to_string(),
        nft_contract: page.credentials.to_string(),
        server_public_key: page.server_key.to_hex(),
        public_secret: page.public_secret,
        confirmations: page.confirmations,
        hue: section.hue,
        machines: page.sizes.entries().collect(),
        machine: page.sizes.otherwise(),
    };
    // A "<" could end the element that the data stands in.
    let data = serde_json::to_string(&config)
        .expect("texts and numbers")
        .replace('<', "\\u003c");
    let mut connect: Vec<String> = Vec::new();
    for url in page.endpoints {
        let origin = url.origin().ascii_serialization();
        if !connect.contains(&origin) {
            connect.push(origin);
        }
    }
    fill(&|mark| {
        Some(match mark {
            "title" => escape(&section.title),
            "description" => escape(&section.description),
            "connect" => escape(&connect.join(" ")),
            "config" => data.clone(),
            _ => return None,
        })
    })
}

/// Fills the marks in one pass: what is filled in is not looked at again, so a title may look like a mark.
fn fill(text_for: &dyn Fn(&str) -> Option<String>) -> String {
    let mut page = String::with_capacity(TEMPLATE.len() + 4096);
    for (n, part) in TEMPLATE.split("@@").enumerate() {
        if n % 2 == 0 {
            page.push_str(part);
        } else {
            page.push_str(&text_for(part).expect("a mark that is known: a test looks at all"));
        }
    }
    page
}

/// Text as text, in an element or in a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '<' | '>' | '"' | '\'' => {
                let _ = write!(escaped, "&#{};", u32::from(c));
            }
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::PrivateKey;
    use blockhost_provisioner::config::Section;

    fn page(section: &SignupSection, endpoints: &[&str], secret: &str) -> String {
        let endpoints: Vec<Url> = endpoints.iter().map(|u| Url::parse(u).unwrap()).collect();
        let text = "vm: {disk_gb: 20}\nplans: {3: {cores: 4, memory_mb: 8192}}\n";
        let host = Section::parse("blockhost.yaml".as_ref(), text).unwrap();
        render(&Page {
            section,
            chain_id: 31337,
            endpoints: &endpoints,
            subscriptions: Address::repeat_byte(1),
            credentials: Address::repeat_byte(2),
            server_key: &PrivateKey::from_bytes(&[7; 32]).unwrap().public_key(),
            public_secret: secret,
            confirmations: 12,
            sizes: &Sizes::read(host).unwrap(),
        })
    }

    fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
        let rest = text.split_once(from).expect(from).1;
        rest.split_once(to).expect(to).0
    }

    #[test]
    fn no_text_of_the_configuration_becomes_markup_or_another_mark() {
        let hostile = "</title></script><script>alert(1)</script>\"'&@@config@@";
        let section = SignupSection {
            title: hostile.into(),
            description: hostile.into(),
            chain_name: Some(hostile.into()),
            ..SignupSection::default()
        };
        let made = page(&section, &["http://127.0.0.1:1/"], hostile);
        let plain = page(
            &SignupSection::default(),
            &["http://127.0.0.1:1/"],
            "secret",
        );
        for tag in ["<script", "</script", "<title", "</title"] {
            assert_eq!(
                made.matches(tag).count(),
                plain.matches(tag).count(),
                "{tag}"
            );
        }
        let data = between(&made, "id=\"config\">", "</script>");
        let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(data["title"], hostile);
        assert_eq!(data["public_secret"], hostile);
        assert_eq!(
            (data["machines"].to_string(), data["machine"].to_string()),
            (
                r#"{"3":{"cores":4,"disk_gb":20,"memory_mb":8192}}"#.into(),
                r#"{"cores":1,"disk_gb":20,"memory_mb":1024}"#.into()
            )
        );
    }

    #[test]
    fn the_policy_permits_the_endpoints_origins_and_nothing_else() {
        let urls = [
            "https://a.example/v3/key",
            "https://a.example/other",
            "http://[::1]:8545/",
        ];
        let made = page(&SignupSection::default(), &urls, "secret");
        let policy = between(&made, "Content-Security-Policy\" content=\"", "\"");
        let directives: Vec<&str> = policy.split("; ").collect();
        assert!(directives.contains(&"default-src 'none'"), "{policy}");
        assert!(
            directives.contains(&"connect-src https://a.example http://[::1]:8545"),
            "{policy}"
        );
        assert!(
            directives.contains(&"require-trusted-types-for 'script'"),
            "{policy}"
        );
        assert!(
            !policy.contains("unsafe") && !policy.contains('*'),
            "{policy}"
        );
    }

    #[test]
    fn a_page_asks_nobody_for_a_part_of_itself() {
        let made = page(
            &SignupSection::default(),
            &["http://127.0.0.1:1/"],
            "secret",
        );
        for outside in [" src=", "@import", "url("] {
            assert!(!made.contains(outside), "{outside}");
        }
        let links = made.matches("<link").count();
        assert_eq!(
            links,
            made.matches("<link rel=\"icon\" href=\"data:").count()
        );
        assert_eq!(
            made,
            page(
                &SignupSection::default(),
                &["http://127.0.0.1:1/"],
                "secret"
            )
        );
    }
}
