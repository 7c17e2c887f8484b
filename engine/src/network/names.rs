//! Names of network interfaces: `vi<vmid>` for machines, prefix and hash for what has no number, and what comes out of
//! templates. Pure. Two things never get one name unnoticed: [`Names`] says so before anything is made.

use std::collections::BTreeMap;

use blake2::{Blake2s256, Digest};
use blockhost_proto::value::{IfIndex, IfName, Vmid};

/// What the kernel takes, in bytes.
pub const MAX: usize = 15;
/// Characters of a hash in a name, at least: 5 bits each.
const HASH_MIN: usize = 8;
/// The longest prefix that leaves room for them.
const PREFIX_MAX: usize = MAX - HASH_MIN;
/// RFC 4648, lower case: no character that a tool or a case-blind reader takes for another.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Why there is no such name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The prefix of a derived name.
    #[error("\"{}\" cannot begin a derived interface name: a letter, then up to {} of a-z, 0-9 and _", given.escape_debug(), PREFIX_MAX - 1)]
    Prefix {
        /// What was given.
        given: String,
    },
    /// A template.
    #[error("the name template \"{}\" is not usable: {why}", given.escape_debug())]
    Template {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two things would get one name.
    #[error("the interface name {name} of {} is taken by {}; rename one of them, or change the template", wanted.escape_debug(), holder.escape_debug())]
    Collision {
        /// The name.
        name: IfName,
        /// Who wants it.
        wanted: String,
        /// Who has it.
        holder: String,
    },
}

/// The name of a machine's interface: `vi100` for the first, `vi100_1` for the next.
#[must_use]
pub fn machine(vmid: Vmid, index: IfIndex) -> IfName {
    known_good(match index.get() {
        0 => format!("vi{vmid}"),
        index => format!("vi{vmid}_{index}"),
    })
}

/// A name for what is known by its parts (a network and a peer, a host and a tunnel): the prefix, then as much of the
/// parts' hash as fits, 40 bits at least. `("a", "bc")` and `("ab", "c")` are different identities.
///
/// # Errors
/// [`NameError::Prefix`].
pub fn derived(prefix: &str, identity: &[&str]) -> Result<IfName, NameError> {
    let good = (1..=PREFIX_MAX).contains(&prefix.len())
        && prefix.starts_with(|c: char| c.is_ascii_lowercase())
        && prefix.chars().all(is_plain);
    if !good {
        return Err(NameError::Prefix {
            given: prefix.to_owned(),
        });
    }
    let hash = base32(&identity_hash(prefix, identity), MAX - prefix.len());
    Ok(known_good(format!("{prefix}{hash}")))
}

/// How interfaces are called: text with `{container}` and `{index}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
}

impl Template {
    /// Reads a template. It names the container somewhere and begins with a letter a-z.
    ///
    /// # Errors
    /// [`NameError::Template`].
    pub fn read(text: &str) -> Result<Self, NameError> {
        let refuse = |why| {
            Err(NameError::Template {
                given: text.chars().take(64).collect(),
                why,
            })
        };
        let rest = text.replace("{container}", "").replace("{index}", "");
        if !text.contains("{container}") {
            return refuse("without {container} all containers would have one name");
        }
        if rest.contains(['{', '}']) {
            return refuse("only {container} and {index} may stand in braces");
        }
        if text.len() > 64 || !rest.chars().all(is_plain) {
            return refuse("beside the braces: a-z, 0-9 and _, 64 characters at most");
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return refuse(
                "it begins with a letter a-z, so that no tool takes the name for a number",
            );
        }
        Ok(Self {
            text: text.to_owned(),
        })
    }

    /// The name of a container's interface. What does not stand in `[a-z0-9_]` becomes `_` or lower case; what is too
    /// long keeps its beginning and gets a hash of everything for its end.
    #[must_use]
    pub fn render(&self, container: &str, index: IfIndex) -> IfName {
        let filled = self
            .text
            .replace("{container}", container)
            .replace("{index}", &index.to_string());
        let plain: String = filled
            .chars()
            .map(|c| match c.to_ascii_lowercase() {
                c if is_plain(c) => c,
                _ => '_',
            })
            .collect();
        if plain.len() <= MAX {
            return known_good(plain);
        }
        let number = index.to_string();
        let hash = identity_hash("template", &[&self.text, container, &number]);
        // Every character of `plain` is one byte.
        let stem: String = plain.chars().take(MAX - HASH_MIN - 1).collect();
        known_good(format!("{stem}_{}", base32(&hash, HASH_MIN)))
    }
}

/// Who has which name: fed with what is there and what is wanted, it finds collisions before anything is made.
#[derive(Debug, Clone, Default)]
pub struct Names {
    holders: BTreeMap<IfName, String>,
}

impl Names {
    /// What a host says of an interface that is there: its name and, from `ifalias` or the switch's `external_ids`, whose
    /// it is. One that says nothing is somebody else's.
    pub fn observe(&mut self, name: IfName, identity: Option<&str>) {
        let holder =
            identity.map_or_else(|| "an interface that is not ours".to_owned(), str::to_owned);
        self.holders.insert(name, holder);
    }

    /// Takes a name for an identity; taking it again for the same one is no collision.
    ///
    /// # Errors
    /// [`NameError::Collision`], with both identities.
    pub fn claim(&mut self, name: IfName, identity: &str) -> Result<IfName, NameError> {
        match self.holders.get(&name) {
            Some(holder) if holder != identity => Err(NameError::Collision {
                name,
                wanted: identity.to_owned(),
                holder: holder.clone(),
            }),
            Some(_) => Ok(name),
            None => {
                self.holders.insert(name.clone(), identity.to_owned());
                Ok(name)
            }
        }
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

/// The parts with their lengths, so that no two lists of parts are one text.
fn identity_hash(kind: &str, parts: &[&str]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    for part in [&[kind], parts].concat() {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

fn base32(bytes: &[u8], length: usize) -> String {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    (0..length)
        .map(|at| {
            let value = (0..5).fold(0, |sum, more| sum << 1 | bit(at * 5 + more));
            char::from(BASE32[usize::from(value)])
        })
        .collect()
}

fn known_good(name: String) -> IfName {
    match name.parse() {
        Ok(name) => name,
        Err(error) => unreachable!("a name was made that breaks its own rule: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(number: u8) -> IfIndex {
        IfIndex::try_from(u64::from(number)).expect("in range")
    }

    #[test]
    fn machines_interfaces_are_called_as_everybody_expects() {
        let vmid = |number: u64| Vmid::try_from(number).expect("in range");
        assert_eq!(machine(vmid(100), index(0)).as_str(), "vi100");
        assert_eq!(machine(vmid(100), index(1)).as_str(), "vi100_1");
        assert_eq!(machine(vmid(999_999), index(31)).as_str(), "vi999999_31");
    }

    #[test]
    fn a_derived_name_stays_the_same_for_ever() {
        // Interfaces of running hosts have these names: another hash would orphan them.
        let name = derived("vx", &["network", "peer"]).expect("good");
        assert_eq!(name.as_str().len(), MAX);
        assert_eq!(name, derived("vx", &["network", "peer"]).expect("good"));
        assert_eq!(name.as_str(), VX_NETWORK_PEER);
    }
    /// BLAKE2s-256 of `2 vx`, `7 network`, `4 peer` with 8-byte lengths, by Python's hashlib and base64.
    const VX_NETWORK_PEER: &str = "vxof44a6kqa4d3v";

    #[test]
    fn parts_that_join_to_one_text_are_still_different_identities() {
        let name = |parts: &[&str]| derived("wg", parts).expect("good");
        assert_ne!(name(&["a", "bc"]), name(&["ab", "c"]));
        assert_ne!(name(&["abc"]), name(&["abc", ""]));
        assert_ne!(name(&["ABC"]), name(&["abc"]), "case counts");
        assert_ne!(
            derived("w", &["x"]).expect("good").as_str()[1..9],
            derived("v", &["x"]).expect("good").as_str()[1..9],
            "the prefix is part of the identity"
        );
    }

    #[test]
    fn prefixes_that_leave_no_room_or_break_names_are_refused() {
        for bad in ["", "Vx", "1x", "_x", "a-b", "abcdefgh", "ä", "a b", "a/"] {
            assert!(
                matches!(derived(bad, &["x"]), Err(NameError::Prefix { .. })),
                "{bad}"
            );
        }
        assert_eq!(
            derived("abcdefg", &["x"]).expect("good").as_str().len(),
            MAX
        );
    }

    #[test]
    fn a_template_that_cannot_tell_containers_apart_is_refused() {
        for bad in [
            "vi",
            "vi_{index}",
            "{container}",
            "1{container}",
            "vi-{container}",
            "vi_{vmid}_{container}",
            "vi_{{container}}",
            "vi_{container",
            "Vi_{container}",
            "",
        ] {
            assert!(
                matches!(Template::read(bad), Err(NameError::Template { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn what_fits_is_readable_and_what_does_not_keeps_its_beginning() {
        let template = Template::read("vi_{container}").expect("good");
        let render = |name| template.render(name, index(0)).to_string();
        assert_eq!(render("web-1"), "vi_web_1");
        assert_eq!(render("Web.1"), "vi_web_1");
        assert_eq!(render("123456789012"), "vi_123456789012");
        let long = render("container-name");
        assert!(long.starts_with("vi_con_") && long.len() == MAX, "{long}");
        assert_ne!(long, render("container-nome"));
        assert_ne!(
            long,
            render("container_name"),
            "the hash is of the real name"
        );
        let numbered = Template::read("v{index}_{container}").expect("good");
        assert_eq!(numbered.render("a", index(3)).as_str(), "v3_a");
    }

    #[test]
    fn two_things_with_one_name_are_told_before_anything_is_made() {
        let template = Template::read("vi_{container}").expect("good");
        let mut names = Names::default();
        let mut claim = |container: &str| {
            names.claim(
                template.render(container, index(0)),
                &format!("container {container}"),
            )
        };
        claim("web-1").expect("free");
        claim("web-1").expect("its own");
        let error = claim("web_1").expect_err("taken").to_string();
        assert!(
            error.contains("vi_web_1")
                && error.contains("container web-1")
                && error.contains("container web_1"),
            "{error}"
        );
        let name = machine(Vmid::try_from(100u64).expect("in range"), index(0));
        names.observe(name.clone(), None);
        assert!(
            names.claim(name, "machine 100").is_err(),
            "a foreign interface"
        );
    }

    proptest! {
        #[test]
        fn every_rendered_name_is_one_that_kernel_and_switch_take(container in ".{0,40}", number in 0u8..32) {
            for text in ["vi_{container}", "v{index}{container}", "a_{container}_{index}"] {
                let name = Template::read(text).unwrap().render(&container, index(number));
                prop_assert!(name.as_str().len() <= MAX);
                prop_assert!(name.as_str().chars().all(is_plain), "{name}");
                prop_assert!(blockhost_proto::value::SwitchIfName::try_from(name.as_str()).is_ok(), "{name}");
            }
        }

        #[test]
        fn no_two_containers_get_one_name_silently(
            containers in proptest::collection::hash_set("[a-zA-Z0-9._ -]{1,24}", 2..40), numbers in 1u8..4
        ) {
            let template = Template::read("vi_{container}_{index}").unwrap();
            let mut names = Names::default();
            let mut given = BTreeMap::new();
            for container in &containers {
                for number in 0..numbers {
                    let identity = format!("{container} {number}");
                    if let Ok(name) = names.claim(template.render(container, index(number)), &identity) {
                        prop_assert_eq!(given.insert(name, identity), None);
                    }
                }
            }
        }

        #[test]
        fn derived_names_of_different_identities_differ(
            identities in proptest::collection::hash_set(proptest::collection::vec("[a-z0-9]{0,4}", 0..4), 2..200)
        ) {
            let mut names = Names::default();
            for parts in &identities {
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                let name = derived("tunnel_", &parts).unwrap();
                prop_assert_eq!(name.as_str().len(), MAX);
                let identity = format!("{parts:?}");
                prop_assert!(names.claim(name, &identity).is_ok());
            }
        }
    }
}
