//! Which ports are to be open right now: a knock opens them for its time; once its sender was seen to log in, only for
//! that address, and for as long as that login shows signs of life. Pure but for the clock that it is given.

use super::message::Knock;
use blockhost_proto::value::{L4Proto, Port, SourceNet};
use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

/// A login without a sign of life for so long is over.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Knocks at a time.
pub const MOST_AT_ONCE: usize = 64;
/// File systems keep times coarsely: a login may look so much older than it is.
const COARSE: Duration = Duration::from_secs(2);

/// A rule of the firewall.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The port.
    pub port: Port,
    /// Transport protocol.
    pub proto: L4Proto,
    /// From where.
    pub source: Option<SourceNet>,
}

/// A login, as the host's hook left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Login {
    /// From where: a single address.
    pub from: SourceNet,
    /// The last sign of life.
    pub seen: SystemTime,
}

/// A knock that was let in.
#[derive(Debug, Clone)]
struct Open {
    knock: Knock,
    since: SystemTime,
    until: Instant,
    login: Option<SourceNet>,
}

/// All of them. Kept in memory alone: what an engine opened is closed with it.
#[derive(Debug, Default)]
pub struct Knocks {
    open: Vec<Open>,
}

impl Knocks {
    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Lets one in.
    pub fn open(&mut self, knock: Knock, now: Instant, wall: SystemTime) {
        let until = now + knock.duration;
        self.open.push(Open {
            knock,
            since: wall,
            until,
            login: None,
        });
    }

    /// Ends all.
    pub fn close_all(&mut self) {
        self.open.clear();
    }

    /// Ends what is over, narrows to logins that were seen, and gives the rules that are to stand.
    pub fn rules(
        &mut self,
        now: Instant,
        wall: SystemTime,
        login: Option<Login>,
    ) -> BTreeSet<Rule> {
        // A time that is still to come is no sign of life.
        let alive = login.filter(|login| {
            wall.duration_since(login.seen)
                .is_ok_and(|age| age < HEARTBEAT_LIMIT)
        });
        self.open.retain_mut(|open| {
            if let Some(from) = open.login {
                return alive.is_some_and(|login| login.from == from);
            }
            if now >= open.until {
                return false;
            }
            if let Some(login) = alive
                && login.seen + COARSE >= open.since
                && open
                    .knock
                    .source
                    .is_none_or(|source| source.contains(login.from.address()))
            {
                open.login = Some(login.from);
            }
            true
        });
        self.open
            .iter()
            .flat_map(|open| {
                let source = open.login.or(open.knock.source);
                open.knock.ports.iter().map(move |port| Rule {
                    port: *port,
                    proto: open.knock.proto,
                    source,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knock(source: Option<&str>) -> Knock {
        Knock {
            command: "in".into(),
            ports: [Port::try_from(22_u16).unwrap()].into(),
            proto: L4Proto::Tcp,
            source: source.map(|source| source.parse().unwrap()),
            duration: Duration::from_secs(300),
        }
    }

    fn sources(rules: &BTreeSet<Rule>) -> Vec<String> {
        rules
            .iter()
            .map(|rule| {
                rule.source
                    .map_or("any".to_owned(), |source| source.to_string())
            })
            .collect()
    }

    fn login(address: &str, seen: SystemTime) -> Option<Login> {
        Some(Login {
            from: address.parse().unwrap(),
            seen,
        })
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_knock_nobody_follows_ends_with_its_time() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut knocks = Knocks::default();
        knocks.open(knock(None), now, wall);
        assert_eq!(sources(&knocks.rules(now, wall, None)), ["any"]);
        assert_eq!(
            sources(&knocks.rules(now + 299 * SECOND, wall, None)),
            ["any"]
        );
        assert!(knocks.rules(now + 300 * SECOND, wall, None).is_empty());
        assert!(knocks.is_empty());
    }

    #[test]
    fn after_a_login_only_its_address_gets_in_and_only_while_it_lives() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut knocks = Knocks::default();
        knocks.open(knock(None), now, wall);
        let seen = wall + 10 * SECOND;
        let rules = knocks.rules(
            now + 11 * SECOND,
            wall + 11 * SECOND,
            login("198.51.100.7", seen),
        );
        assert_eq!(sources(&rules), ["198.51.100.7/32"]);
        // Longer than the knock, while the heart beats.
        let beat = wall + 3000 * SECOND;
        let rules = knocks.rules(
            now + 3100 * SECOND,
            wall + 3100 * SECOND,
            login("198.51.100.7", beat),
        );
        assert_eq!(sources(&rules), ["198.51.100.7/32"]);
        let rules = knocks.rules(
            now + 3900 * SECOND,
            wall + 3900 * SECOND,
            login("198.51.100.7", beat),
        );
        assert!(rules.is_empty());
    }

    #[test]
    fn a_login_from_before_or_from_elsewhere_or_from_the_future_narrows_nothing() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let cases = [
            (None, "198.51.100.7", wall - 60 * SECOND),
            (None, "198.51.100.7", wall + 60 * SECOND),
            (Some("192.0.2.0/24"), "198.51.100.7", wall),
        ];
        for (source, address, seen) in cases {
            let mut knocks = Knocks::default();
            knocks.open(knock(source), now, wall);
            let rules = knocks.rules(now, wall, login(address, seen));
            assert_eq!(sources(&rules), [source.unwrap_or("any")], "{address}");
        }
        let mut knocks = Knocks::default();
        knocks.open(knock(Some("192.0.2.0/24")), now, wall);
        assert_eq!(
            sources(&knocks.rules(now, wall, login("192.0.2.9", wall))),
            ["192.0.2.9/32"]
        );
    }

    #[test]
    fn another_login_ends_a_narrowed_knock_and_does_not_inherit_it() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut knocks = Knocks::default();
        knocks.open(knock(None), now, wall);
        knocks.rules(now, wall, login("198.51.100.7", wall));
        assert!(
            knocks
                .rules(now, wall, login("203.0.113.5", wall))
                .is_empty()
        );
    }
}
