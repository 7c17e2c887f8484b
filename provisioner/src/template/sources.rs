//! Where the template's packages come from: the host's own apt sources, reduced to the Debian suites of its release.
//! Third-party sources of the host never get into a guest. Parsing is pure.

use std::path::Path;

/// One Debian suite at one mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The mirror.
    pub uri: String,
    /// `bookworm`, `bookworm-updates`, `bookworm-security`.
    pub suite: String,
}

impl Mirror {
    /// As a line of `sources.list`.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("deb {} {} main", self.uri, self.suite)
    }
}

/// No usable source.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// The release is not known.
    #[error(
        "/etc/os-release names no VERSION_CODENAME: the template's release cannot be told; give it with --suite"
    )]
    NoCodename,
    /// No mirror of that release.
    #[error(
        "no source of Debian {suite} main in /etc/apt/sources.list or /etc/apt/sources.list.d; give one with --mirror"
    )]
    NoMirror {
        /// The release.
        suite: String,
    },
}

/// The release of this host, by its code name.
///
/// # Errors
/// [`SourcesError::NoCodename`].
pub fn host_suite() -> Result<String, SourcesError> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.map(|name| name.trim_matches(['"', '\'', ' ']).to_owned());
    name.filter(|name| is_suite(name))
        .ok_or(SourcesError::NoCodename)
}

/// Names that a release may have; anything else could be read as an option by a program it is given to.
#[must_use]
pub fn is_suite(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// The mirrors of `suite` that this host uses.
///
/// # Errors
/// [`SourcesError::NoMirror`].
pub fn host_mirrors(suite: &str) -> Result<Vec<Mirror>, SourcesError> {
    let apt = Path::new("/etc/apt");
    let mut texts = vec![(
        false,
        std::fs::read_to_string(apt.join("sources.list")).unwrap_or_default(),
    )];
    let entries = std::fs::read_dir(apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        let deb822 = file.extension().is_some_and(|e| e == "sources");
        if deb822 || file.extension().is_some_and(|e| e == "list") {
            texts.push((deb822, std::fs::read_to_string(file).unwrap_or_default()));
        }
    }
    let mut mirrors: Vec<Mirror> = Vec::new();
    for (deb822, text) in &texts {
        let found = if *deb822 {
            parse_deb822(text, suite)
        } else {
            parse_list(text, suite)
        };
        for mirror in found {
            if !mirrors.contains(&mirror) {
                mirrors.push(mirror);
            }
        }
    }
    if mirrors.iter().any(|mirror| mirror.suite == suite) {
        Ok(mirrors)
    } else {
        Err(SourcesError::NoMirror {
            suite: suite.to_owned(),
        })
    }
}

/// A source of Debian itself: the right suite, component main, at a path that ends as Debian's do, signed (where it says
/// by whom) with Debian's own keys.
fn accept(
    uri: &str,
    suite: &str,
    release: &str,
    components: &[&str],
    signed_by: Option<&str>,
) -> Option<Mirror> {
    let debian_suite = [
        release,
        &format!("{release}-updates"),
        &format!("{release}-security"),
    ]
    .contains(&suite);
    let path = uri.trim_end_matches('/');
    let debian_path = path.ends_with("/debian") || path.ends_with("/debian-security");
    let debian_key = signed_by.is_none_or(|key| {
        key.split(&[',', ' '][..])
            .all(|key| key.is_empty() || key.starts_with("/usr/share/keyrings/debian-archive-"))
    });
    let fetchable = ["http://", "https://", "file:/"]
        .iter()
        .any(|scheme| uri.starts_with(scheme));
    let plain = uri
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"\"'\\[]".contains(&b));
    let good = debian_suite
        && debian_path
        && debian_key
        && fetchable
        && plain
        && components.contains(&"main");
    good.then(|| Mirror {
        uri: uri.to_owned(),
        suite: suite.to_owned(),
    })
}

fn parse_list(text: &str, release: &str) -> Vec<Mirror> {
    let parse = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let rest = line
            .strip_prefix("deb")
            .filter(|rest| rest.starts_with([' ', '\t', '[']))?
            .trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let components: Vec<&str> = words.collect();
        let signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="));
        accept(uri, suite, release, &components, signed_by)
    };
    text.lines().filter_map(parse).collect()
}

fn parse_deb822(text: &str, release: &str) -> Vec<Mirror> {
    let mut mirrors = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let field = |name: &str| {
            let mut value: Option<String> = None;
            let mut inside = false;
            for line in stanza {
                if line.starts_with([' ', '\t']) {
                    if let (true, Some(value)) = (inside, value.as_mut()) {
                        value.push(' ');
                        value.push_str(line.trim());
                    }
                    continue;
                }
                let (key, rest) = line.split_once(':').unwrap_or((line, ""));
                inside = key.trim().eq_ignore_ascii_case(name);
                if inside {
                    value = Some(rest.trim().to_owned());
                }
            }
            value
        };
        let types = field("Types").unwrap_or_default();
        let disabled = field("Enabled").is_some_and(|v| v.eq_ignore_ascii_case("no"));
        if disabled || !types.split_whitespace().any(|t| t == "deb") {
            continue;
        }
        let (uris, suites) = (
            field("URIs").unwrap_or_default(),
            field("Suites").unwrap_or_default(),
        );
        let (components, signed_by) = (field("Components").unwrap_or_default(), field("Signed-By"));
        let components: Vec<&str> = components.split_whitespace().collect();
        for uri in uris.split_whitespace() {
            for suite in suites.split_whitespace() {
                mirrors.extend(accept(
                    uri,
                    suite,
                    release,
                    &components,
                    signed_by.as_deref(),
                ));
            }
        }
    }
    mirrors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn third_party_sources_never_reach_the_guest() {
        let list = "deb https://packages.example.org/apt tool-bookworm main
deb [signed-by=/usr/share/keyrings/other.gpg] https://repo.example.org/debian bookworm main
deb https://repo.example.org/apt bookworm main
deb http://mirror.example.org/debian bookworm-backports main
deb http://mirror.example.org/debian bookworm contrib
deb http://mirror.example.org/debian trixie main
deb-src http://mirror.example.org/debian bookworm main
deb cdrom:[Debian]/debian bookworm main
# deb http://mirror.example.org/debian bookworm main
debx http://mirror.example.org/debian bookworm main";
        assert_eq!(parse_list(list, "bookworm"), []);
        let stanza =
            "Types: deb\nURIs: https://deb.example.org/node\nSuites: nodistro\nComponents: main\n";
        assert_eq!(parse_deb822(stanza, "bookworm"), []);
        let disabled =
            "Enabled: no\nTypes: deb\nURIs: http://m/debian\nSuites: bookworm\nComponents: main\n";
        assert_eq!(parse_deb822(disabled, "bookworm"), []);
    }

    #[test]
    fn both_formats_of_apt_are_read() {
        let list = "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m/debian/ bookworm main contrib";
        let mirror = |uri: &str, suite: &str| Mirror {
            uri: uri.into(),
            suite: suite.into(),
        };
        assert_eq!(
            parse_list(list, "bookworm"),
            [mirror("http://m/debian/", "bookworm")]
        );
        let stanzas = "Types: deb deb-src\n# a comment\nURIs: http://m/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\nTypes: deb\nURIs: http://m/debian-security\nSuites: bookworm-security\nComponents: main\n";
        assert_eq!(
            parse_deb822(stanzas, "bookworm"),
            [
                mirror("http://m/debian", "bookworm"),
                mirror("http://m/debian", "bookworm-updates"),
                mirror("http://m/debian-security", "bookworm-security")
            ]
        );
    }

    #[test]
    fn names_that_could_be_options_are_no_suites() {
        assert!(!is_suite("--help") && !is_suite("") && !is_suite("a b") && is_suite("bookworm"));
    }
}
