//! `check-policy`: the policy that would be in force, what in it may not be meant, and whether a request would pass.
//! Reads files and account names; decides nothing: the answer is that of [`Authority`], as everywhere.

use std::path::PathBuf;
use std::process::ExitCode;

use blockhost_proto::action::Action;
use blockhost_proto::catalog;
use blockhost_proto::layout::Layout;
use clap::Args;
use serde_json::{Map, Value, json};

use super::print;
use crate::accounts::Accounts;
use crate::compartment::Identities;
use crate::log_error;
use crate::policy::Policy;
use crate::policy::authority::{Authority, ResolvedRule, Subject};
use crate::policy::review::review;
use crate::policy::sockets::{MAIN, SocketName};
use crate::supervisor::config::{
    ConfigError, fits, programs_elsewhere, read_draft, read_policy, witnesses,
};

/// Exit code of a request that would be refused.
const NOT_ALLOWED: u8 = 3;

/// What the command is given.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The file (without it /etc/blockhost/root-agent.yaml); with --as the action and its parameters instead.
    #[arg(value_name = "FILE | ACTION KEY=VALUE")]
    words: Vec<String>,
    /// The file, where an action is given.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Ask for this user, with this primary group where it is another than the user's own; names or numbers.
    #[arg(long = "as", value_name = "USER[:GROUP]")]
    caller: Option<String>,
    /// The socket the caller comes by.
    #[arg(long, value_name = "NAME", requires = "caller", default_value = MAIN)]
    socket: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Why the question has no answer.
#[derive(Debug)]
enum Refusal {
    /// The command is not written as it should be.
    Usage(String),
    /// The policy cannot be used.
    Unusable(String),
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// A policy with everything that it names found on this host.
struct Checked {
    file: PathBuf,
    policy: Policy,
    accounts: Accounts,
    identities: Identities,
    rules: Vec<ResolvedRule>,
}

/// Checks, prints, and gives the exit code.
pub fn run(arguments: &Arguments) -> ExitCode {
    let result = match &arguments.caller {
        None => check(arguments),
        Some(caller) => ask(arguments, caller),
    };
    match result {
        Ok(code) => code,
        Err(Refusal::Usage(text)) => {
            log_error!("{text}; see `blockhost-root-agent check-policy --help`");
            ExitCode::from(2)
        }
        Err(Refusal::Unusable(text)) => {
            if arguments.json {
                print(&format!("{:#}\n", json!({"ok": false, "error": text})));
            }
            log_error!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn load(file: Option<PathBuf>) -> Result<Checked, Refusal> {
    let layout = Layout::from_env();
    let in_force = layout.agent_policy();
    let (file, policy) = match file {
        Some(file) if file != in_force => {
            let policy = read_draft(&file)?;
            (file, policy)
        }
        _ => {
            let policy = read_policy(&in_force)?;
            // As well without which the agent does not start.
            witnesses(&layout.etc().join("ledger-witnesses"))?;
            (in_force, policy)
        }
    };
    let shown = file.display().to_string();
    programs_elsewhere(&layout, &policy, &shown)?;
    let accounts = Accounts::read().map_err(ConfigError::from)?;
    let identities = accounts.identities(&policy).map_err(ConfigError::from)?;
    // Which sockets systemd will pass is not known here; the review says so.
    let named: Vec<SocketName> = policy
        .rules
        .iter()
        .filter_map(|rule| rule.socket.clone())
        .collect();
    let rules = accounts
        .resolve(&policy, &identities, &named, &shown)
        .map_err(ConfigError::from)?;
    accounts
        .socket_groups(&policy, &shown)
        .map_err(ConfigError::from)?;
    fits(&policy, &rules, &accounts.names(&rules))?;
    Ok(Checked {
        file,
        policy,
        accounts,
        identities,
        rules,
    })
}

fn check(arguments: &Arguments) -> Result<ExitCode, Refusal> {
    let file = match (arguments.words.as_slice(), &arguments.file) {
        ([], file) => file.clone(),
        ([file], None) => Some(PathBuf::from(file)),
        _ => {
            let text = "one file at most; to ask about an action say for whom with --as";
            return Err(Refusal::Usage(text.to_owned()));
        }
    };
    let Checked { file, policy, .. } = load(file)?;
    let warnings = review(&policy);
    if arguments.json {
        let shown = json!({
            "ok": true, "file": file, "warnings": warnings, "sha256": policy.digest(), "policy": policy,
        });
        return Ok(print(&format!("{shown:#}\n")));
    }
    let mut text = format!(
        "{}: can be used\nsha256 in the ledger: {}\n\nrules:\n",
        file.display(),
        policy.digest()
    );
    for (number, rule) in (1..).zip(&policy.rules) {
        text.push_str(&format!(
            "  {number}. {}: {}\n",
            rule.subject(),
            rule.actions.join(", ")
        ));
        if let Some(only) = &rule.only {
            let only = serde_json::to_string(only).unwrap_or_default();
            text.push_str(&format!("     only {only}\n"));
        }
    }
    text.push_str(&format!("\nwarnings: {}\n", warnings.len()));
    for warning in &warnings {
        text.push_str(&format!("  {}: {}\n", warning.key, warning.text));
    }
    let whole = serde_json::to_string_pretty(&policy).unwrap_or_default();
    text.push_str(&format!("\nthe policy with all defaults:\n{whole}\n"));
    Ok(print(&text))
}

fn ask(arguments: &Arguments, caller: &str) -> Result<ExitCode, Refusal> {
    let [name, params @ ..] = arguments.words.as_slice() else {
        return Err(Refusal::Usage("--as needs an action".to_owned()));
    };
    let action = parse_action(name, params).map_err(Refusal::Usage)?;
    let checked = load(arguments.file.clone())?;
    let (uid, gid, groups) = credentials(&checked.accounts, caller).map_err(Refusal::Usage)?;
    let authority = Authority::new(&checked.policy.allow, &checked.rules, checked.identities);
    let subject = Subject {
        uid,
        gid,
        groups: &groups,
        socket: &arguments.socket,
    };
    let own = authority.own_process(uid, gid);
    let rights = authority.rights(subject);
    let (allowed, rule, why) = match (authority.permits(&rights, &action), own) {
        (Ok(place), _) => {
            let rule = &checked.policy.rules[place];
            let text = format!("allowed by rule {} ({})", place + 1, rule.subject());
            (true, Some(place + 1), text)
        }
        (Err(_), Some(own)) => {
            let text =
                format!("connections from the agent's own processes ({own}) are refused always");
            (false, None, text)
        }
        (Err(_), None) if rights.is_stranger() => {
            let text = "no rule is for this caller".to_owned();
            (false, None, text)
        }
        (Err(failure), None) => (false, None, failure.message),
    };
    if arguments.json {
        let answer = json!({
            "ok": true, "allowed": allowed, "rule": rule, "why": why, "action": action.name(),
            "uid": uid, "gid": gid, "groups": groups, "socket": arguments.socket,
        });
        print(&format!("{answer:#}\n"));
    } else {
        let word = if allowed { "yes" } else { "no" };
        print(&format!("{word}: {why}\n"));
    }
    Ok(if allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_ALLOWED)
    })
}

/// Numbers of `USER[:GROUP]`, and the groups that list the user.
fn credentials(accounts: &Accounts, text: &str) -> Result<(u32, u32, Vec<u32>), String> {
    let (user, group) = text
        .split_once(':')
        .map_or((text, None), |(user, group)| (user, Some(group)));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten()
    };
    let name = match number(user) {
        Some(uid) => accounts.name_of(uid),
        None => Some(user),
    };
    let account = name.and_then(|name| accounts.user(name));
    let uid = number(user)
        .or(account.map(|identity| identity.uid))
        .ok_or_else(|| format!("there is no user `{}`", user.escape_default()))?;
    let gid = match group {
        Some(group) => number(group)
            .or_else(|| accounts.group(group))
            .ok_or_else(|| format!("there is no group `{}`", group.escape_default()))?,
        None => account
            .map(|identity| identity.gid)
            .ok_or_else(|| format!("there is no account with number {uid}; write USER:GROUP"))?,
    };
    let groups = name.map_or(&[][..], |name| accounts.groups_of(name));
    Ok((uid, gid, groups.to_vec()))
}

/// An action from `key=value` words. A value is a text where the parameter is one, else JSON.
fn parse_action(name: &str, words: &[String]) -> Result<Action, String> {
    let spec = catalog::find(name)
        .ok_or_else(|| format!("there is no action `{}`", name.escape_default()))?;
    let mut params = Map::new();
    for word in words {
        let (key, text) = word
            .split_once('=')
            .ok_or_else(|| format!("`{}` is not KEY=VALUE", word.escape_default()))?;
        let param = spec
            .params
            .iter()
            .find(|param| param.name == key || param.aliases.contains(&key));
        let is_text = param.is_some_and(|param| (param.schema)()["type"] == "string");
        let value = match serde_json::from_str::<Value>(text) {
            Ok(value) if !is_text => value,
            _ => Value::String(text.to_owned()),
        };
        if params.insert(key.to_owned(), value).is_some() {
            return Err(format!("`{}` is given twice", key.escape_default()));
        }
    }
    Action::from_parts(name, &Value::Object(params)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_their_kind_asks() {
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let action = parse_action("iptables-open", &words(&["port=80", "comment=123"]));
        assert_eq!(
            action.expect("valid").params(),
            json!({"port": 80, "proto": "tcp", "comment": "123"})
        );
        for (name, list, said) in [
            ("no-such", &[][..], "no action"),
            ("qm-start", &["vmid"], "KEY=VALUE"),
            ("qm-start", &["vmid=1", "vmid=2"], "twice"),
            ("qm-start", &["vmid=ten"], "vmid"),
            ("qm-start", &["id=100"], "id"),
        ] {
            let error = parse_action(name, &words(list)).expect_err(said);
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn callers_are_found_by_name_and_number() {
        let accounts = Accounts::parse(
            b"alice:x:1001:100::/:/bin/sh\n",
            b"users:x:100:\nops:x:50:alice\n",
        );
        let ask = |text: &str| credentials(&accounts, text);
        assert_eq!(ask("alice"), Ok((1001, 100, vec![50])));
        assert_eq!(ask("1001"), Ok((1001, 100, vec![50])));
        assert_eq!(ask("alice:ops"), Ok((1001, 50, vec![50])));
        assert_eq!(ask("77:7"), Ok((77, 7, vec![])));
        for text in ["bob", "77", "alice:nobodys", "", ":ops", "+5:5", "-1:5"] {
            assert!(ask(text).is_err(), "{text}");
        }
    }
}
