//! Section `broker` of `network.yaml`: who gives this host its IPv6 network, and for how long it is asked for.

use reqwest::Url;
use serde::{Deserialize, Deserializer};
use std::net::IpAddr;

/// A lease that nobody chose, seconds: thirty days.
const USUAL_LEASE_S: u64 = 30 * 86_400;
/// Shorter ones would end before somebody could look after a renewal that fails; longer ones are for no broker to give.
const LEASES_S: std::ops::RangeInclusive<u64> = 3600..=366 * 86_400;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSection {
    /// Where the broker is; `/v1/allocations` comes behind it.
    #[serde(deserialize_with = "url")]
    pub url: Url,
    /// What the host calls the place of its contract; `eip155:<chain id>` where it is missing.
    #[serde(default, deserialize_with = "source")]
    pub source: Option<String>,
    /// Seconds that an allocation is asked for: an hour to a year.
    #[serde(default = "usual", deserialize_with = "seconds")]
    pub lease_s: u64,
}

const fn usual() -> u64 {
    USUAL_LEASE_S
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let seconds = u64::deserialize(from)?;
    if LEASES_S.contains(&seconds) {
        return Ok(seconds);
    }
    let (first, last) = (LEASES_S.start(), LEASES_S.end());
    let message = format!("it must be from {first} to {last} seconds");
    Err(serde::de::Error::custom(message))
}

fn source<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(Some(text));
    }
    Err(serde::de::Error::custom(
        "it must be 1 to 64 of letters, digits, - _ . and :",
    ))
}

/// HTTPS, so that nobody on the way gives this host a network; plain HTTP to the host itself only, where a proxy may be.
fn url<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    let text = String::deserialize(from)?;
    read_url(&text).map_err(serde::de::Error::custom)
}

fn read_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is not a URL; write https://broker.example")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must not hold a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must end with a path: no ? and no #");
    }
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let here = address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    match url.scheme() {
        "https" if !host.is_empty() => Ok(url),
        "http" if here => Ok(url),
        "http" => Err("it must begin with https: (http: to a loopback address only)"),
        _ => Err("it must begin with https:"),
    }
}

impl BrokerSection {
    /// The address that allocations are asked of.
    #[must_use]
    pub fn allocations(&self) -> Url {
        let mut url = self.url.clone();
        let path = format!("{}/v1/allocations", self.url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    /// The broker's name and port, for messages.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BrokerSection, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_section_is_an_address_and_the_rest_has_defaults() {
        let section = read("url: https://broker.example").unwrap();
        assert_eq!(
            (section.source.as_deref(), section.lease_s),
            (None, USUAL_LEASE_S)
        );
        for (url, asked) in [
            (
                "https://broker.example",
                "https://broker.example/v1/allocations",
            ),
            (
                "https://broker.example/",
                "https://broker.example/v1/allocations",
            ),
            (
                "https://broker.example:8443/eu/",
                "https://broker.example:8443/eu/v1/allocations",
            ),
            (
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8080/v1/allocations",
            ),
            ("http://[::1]:8080", "http://[::1]:8080/v1/allocations"),
        ] {
            let section = read(&format!("{{url: '{url}', lease_s: 3600, source: evm-1}}")).unwrap();
            assert_eq!(section.allocations().as_str(), asked);
        }
        let section = read("url: https://user.example:8443/eu").unwrap();
        assert_eq!(section.host(), "user.example:8443");
    }

    #[test]
    fn what_somebody_on_the_way_could_answer_and_what_is_no_lease_is_refused() {
        for (text, part) in [
            ("url: http://broker.example", "https"),
            ("url: http://10.0.0.1", "https"),
            ("url: http://localhost.example", "https"),
            ("url: http://127.0.0.1.example", "https"),
            ("url: ftp://broker.example", "https"),
            ("url: broker.example", "URL"),
            ("url: https://a:b@broker.example", "password"),
            ("url: https://broker.example/?a=b", "?"),
            ("url: 'https://broker.example/#a'", "#"),
            ("{url: 'https://b.example', lease_s: 0}", "3600"),
            ("{url: 'https://b.example', lease_s: 3599}", "3600"),
            ("{url: 'https://b.example', lease_s: 31622401}", "3600"),
            ("{url: 'https://b.example', lease_s: -1}", "lease_s"),
            ("{url: 'https://b.example', source: ''}", "64"),
            ("{url: 'https://b.example', source: 'a b'}", "64"),
            ("{url: 'https://b.example', token: x}", "token"),
            ("lease_s: 3600", "url"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
