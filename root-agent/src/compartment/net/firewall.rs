//! Opening and closing ports with the host's own iptables: state is read with the binary's `-save` personality, changed
//! with its `-restore --noflush` one, one transaction per family. What to change is decided in [`super::rules`].

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use blockhost_proto::action::{IptablesClose, IptablesOpen, IptablesSet};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{Comment, L4Proto, Port, SourceNet};
use serde_json::{Map, Value, json};

use super::rules::{Family, Rule, State};
use crate::compartment::{Done, Failure, before_undo};
use crate::confine::programs::FIREWALL;
use crate::exec::{Ended, OpenError, Output, Program, Run, Sandbox};
use crate::failpoint;

/// Where Debian puts the multi-call binary. The legacy one needs a lock file and more than `CAP_NET_ADMIN`.
const XTABLES: &str = "/usr/sbin/xtables-nft-multi";

/// A rule set of several ten thousand rules still fits; a torn one must not be acted on.
const SAVE_CAP: usize = 16 << 20;

/// Others change the rules too: a transaction that lost against theirs is planned anew this often.
const ATTEMPTS: u32 = 4;

/// The xtables binary, opened before confinement.
#[derive(Debug)]
pub(super) struct Firewall {
    xtables: Program,
    sandbox: Sandbox,
    root: PathBuf,
}

/// The families a rule concerns, and the rule as it stands there.
struct Wanted {
    families: Vec<Family>,
    rule: Rule,
}

impl Wanted {
    fn new(port: Port, protocol: L4Proto, comment: &Comment, source: Option<SourceNet>) -> Self {
        let families = match source.map(SourceNet::address) {
            None => vec![Family::V4, Family::V6],
            Some(IpAddr::V4(_)) => vec![Family::V4],
            Some(IpAddr::V6(_)) => vec![Family::V6],
        };
        // Everything of one family has no source match; the kernel does not print one either.
        let source = source
            .filter(|net| net.prefix() > 0)
            .map(|net| (net.address(), net.prefix()));
        let rule = Rule {
            protocol: protocol.as_str().to_owned(),
            port: port.get(),
            source,
            comment: comment.to_string(),
        };
        Wanted { families, rule }
    }

    fn describe(&self) -> String {
        let Rule {
            protocol,
            port,
            source,
            comment,
        } = &self.rule;
        let from = source
            .map(|(address, prefix)| format!(" from {address}/{prefix}"))
            .unwrap_or_default();
        let families: Vec<&str> = self.families.iter().map(|family| family.name()).collect();
        format!(
            "port {port}/{protocol}{from} ({families}, comment {comment})",
            families = families.join(" and ")
        )
    }
}

fn too_many(most: usize) -> Failure {
    let message = format!(
        "{most} ports are open already; close some with iptables-close, or have `limits.firewall_rules` of \
         root-agent.yaml raised"
    );
    Failure::new(ErrorCode::Conflict, message)
}

/// As [`too_many`], for a whole list.
pub(super) fn too_many_given(given: usize, most: usize) -> Failure {
    let message = format!(
        "{given} rules are more than the {most} of `limits.firewall_rules` of root-agent.yaml; give fewer, or have it raised"
    );
    Failure::new(ErrorCode::Conflict, message)
}

impl Firewall {
    pub(super) fn open(configured: Option<&Path>, root: &Path) -> Result<Self, OpenError> {
        let xtables = Program::open(configured.unwrap_or(Path::new(XTABLES)))?;
        let sandbox = FIREWALL.for_program(&xtables, &[], &[])?;
        Ok(Firewall {
            xtables,
            sandbox,
            root: root.to_path_buf(),
        })
    }

    pub(super) fn program(&self) -> &Path {
        self.xtables.path()
    }

    pub(super) fn open_port(
        &self,
        action: &IptablesOpen,
        most: usize,
        deadline: Instant,
    ) -> Result<Done, Failure> {
        let wanted = Wanted::new(action.port, action.proto, &action.comment, action.source);
        let mut added: Vec<Family> = Vec::new();
        // A second family that takes all the time must not leave the first one open.
        let until = before_undo(deadline);
        for &family in &wanted.families {
            match self.change(family, "filter", State::parse, until, |state| {
                let lacks = state.lacks(&wanted.rule);
                // Every packet passes these rules, so their number is bounded.
                if lacks && state.len() >= most {
                    return Err(too_many(most));
                }
                Ok(state.plan_open(&wanted.rule).map(|plan| (plan, lacks)))
            }) {
                Ok(Some(true)) => {
                    added.push(family);
                    failpoint::reach("net-rule-added", family.name().as_bytes());
                }
                Ok(_) => {}
                Err(mut failure) => {
                    // Half open is neither what was asked for nor what was there.
                    for &done in &added {
                        if let Err(undo) = self.change_filter(done, deadline, |state| {
                            state.plan_close(&wanted.rule).map(|plan| (plan, ()))
                        }) {
                            failure.message = format!(
                                "{}; the {} rule added before could not be removed either: {}",
                                failure.message,
                                done.name(),
                                undo.message
                            );
                        }
                    }
                    return Err(failure);
                }
            }
        }
        let output = if added.is_empty() {
            format!("{} was open already", wanted.describe())
        } else {
            format!("opened {}", wanted.describe())
        };
        Ok(Done {
            output,
            ..Done::default()
        })
    }

    pub(super) fn close_port(
        &self,
        action: &IptablesClose,
        deadline: Instant,
    ) -> Result<Done, Failure> {
        let wanted = Wanted::new(action.port, action.proto, &action.comment, action.source);
        let mut closed = false;
        let mut failed: Option<Failure> = None;
        for &family in &wanted.families {
            match self.change_filter(family, deadline, |state| {
                state.plan_close(&wanted.rule).map(|plan| (plan, ()))
            }) {
                Ok(Some(())) => {
                    closed = true;
                    failpoint::reach("net-rule-removed", family.name().as_bytes());
                }
                Ok(None) => {}
                // The other family is closed all the same: an error must not keep a port open.
                Err(failure) => failed = Some(failure),
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None if closed => Ok(Done {
                output: format!("closed {}", wanted.describe()),
                ..Done::default()
            }),
            None => Err(Failure::new(
                ErrorCode::NotFound,
                format!(
                    "no rule of this agent opens {}; comment, port, protocol and source must be those it was opened with",
                    wanted.describe()
                ),
            )),
        }
    }

    /// Makes these the only open ports. A family that fails does not keep the other from it: both are asked for, and the same
    /// again completes it.
    pub(super) fn set_ports(
        &self,
        action: &IptablesSet,
        most: usize,
        deadline: Instant,
    ) -> Result<Done, Failure> {
        let all: Vec<Wanted> = action
            .rules
            .iter()
            .map(|rule| Wanted::new(rule.port, rule.proto, &rule.comment, rule.source))
            .collect();
        if all.len() > most {
            return Err(too_many_given(all.len(), most));
        }
        let (mut opened, mut closed) = (0, 0);
        let plan = |family, state: &State| {
            let mut rules: Vec<Rule> = Vec::new();
            for wanted in all.iter().filter(|all| all.families.contains(&family)) {
                // Everything of a family and everything is one rule there.
                if !rules.contains(&wanted.rule) {
                    rules.push(wanted.rule.clone());
                }
            }
            let counts = (state.missing(&rules), state.surplus(&rules));
            Ok(state.plan_set(&rules).map(|plan| (plan, counts)))
        };
        let done = |family: Family, (missing, surplus)| {
            opened += missing;
            closed += surplus;
            failpoint::reach("net-rules-set", family.name().as_bytes());
        };
        self.both_families("filter", State::parse, deadline, plan, done)?;
        Ok(Done {
            output: format!(
                "{} ports are open and no others; {opened} rules made, {closed} taken away, both families counted",
                all.len()
            ),
            ..Done::default()
        })
    }

    /// The open ports of both families, from the rules themselves. Nothing changes by it.
    pub(super) fn open_ports(&self, deadline: Instant) -> Result<Done, Failure> {
        let mut list: Vec<(Rule, Vec<&str>)> = Vec::new();
        let mut clean = true;
        for family in [Family::V4, Family::V6] {
            let state = State::parse(&self.read(family, "filter", deadline)?);
            clean &= state.is_clean();
            for rule in state.rules() {
                match list.iter_mut().find(|(known, _)| known == rule) {
                    Some((_, families)) => families.push(family.name()),
                    None => list.push((rule.clone(), vec![family.name()])),
                }
            }
        }
        let shown = list.into_iter().map(|(rule, families)| {
            let mut entry = json!({
                "port": rule.port, "proto": rule.protocol, "comment": rule.comment, "families": families,
            });
            if let Some((address, prefix)) = rule.source {
                entry["source"] = format!("{address}/{prefix}").into();
            }
            entry
        });
        Ok(Done {
            output: shown.collect::<Value>().to_string(),
            extra: Map::from_iter([("clean".to_owned(), clean.into())]),
        })
    }

    /// Reads, plans, applies, in the filter table.
    fn change_filter<T>(
        &self,
        family: Family,
        deadline: Instant,
        plan: impl Fn(&State) -> Option<(String, T)>,
    ) -> Result<Option<T>, Failure> {
        self.change(family, "filter", State::parse, deadline, |state| {
            Ok(plan(state))
        })
    }

    /// Brings a table of both families to what is planned for each, and hands on what was done. A family that fails does not
    /// keep the other from it: both are asked for, and the same again completes it.
    pub(super) fn both_families<S, T>(
        &self,
        table: &str,
        parse: impl Fn(&str) -> S,
        deadline: Instant,
        plan: impl Fn(Family, &S) -> Result<Option<(String, T)>, Failure>,
        mut done: impl FnMut(Family, T),
    ) -> Result<(), Failure> {
        let mut failed = None;
        for family in [Family::V4, Family::V6] {
            match self.change(family, table, &parse, deadline, |state| plan(family, state)) {
                Ok(Some(what)) => done(family, what),
                Ok(None) => {}
                Err(failure) => failed = Some(failure),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Reads, plans, applies; again when somebody else was quicker. `None`: nothing to change.
    pub(super) fn change<S, T>(
        &self,
        family: Family,
        table: &str,
        parse: impl Fn(&str) -> S,
        deadline: Instant,
        plan: impl Fn(&S) -> Result<Option<(String, T)>, Failure>,
    ) -> Result<Option<T>, Failure> {
        let mut attempt = 1;
        loop {
            let state = parse(&self.read(family, table, deadline)?);
            let Some((input, result)) = plan(&state)? else {
                return Ok(None);
            };
            let output = self.restore(family, input.as_bytes(), deadline)?;
            match output.ended {
                Ended::Exited(0) => return Ok(Some(result)),
                Ended::TimedOut => {
                    return Err(Failure::new(
                        ErrorCode::Timeout,
                        format!(
                            "the {} rules could not be changed in time; whether they are as before is not known: ask again",
                            family.name()
                        ),
                    ));
                }
                _ if attempt < ATTEMPTS => attempt += 1,
                _ => {
                    let message = format!(
                        "the {} rules could not be changed: {}",
                        family.name(),
                        output.complaint()
                    );
                    return Err(Failure::new(ErrorCode::Failed, message));
                }
            }
        }
    }

    pub(super) fn read(
        &self,
        family: Family,
        table: &str,
        deadline: Instant,
    ) -> Result<String, Failure> {
        let arg0 = match family {
            Family::V4 => "iptables-nft-save",
            Family::V6 => "ip6tables-nft-save",
        };
        let run = Run::new(&self.xtables, deadline)
            .arg0(arg0)
            .args(["-t", table])
            .keep(SAVE_CAP)
            .sandbox(&self.sandbox)
            .root(&self.root);
        let output = run
            .run()
            .map_err(|error| Failure::new(ErrorCode::Failed, error.to_string()))?;
        let cannot = |why: &str| {
            let message = format!("the {} rules cannot be read: {why}", family.name());
            Failure::new(
                if output.ended == Ended::TimedOut {
                    ErrorCode::Timeout
                } else {
                    ErrorCode::Failed
                },
                message,
            )
        };
        if !output.ok() {
            return Err(cannot(&output.complaint()));
        }
        let saved = output
            .stdout
            .whole()
            .ok_or_else(|| cannot("there are more than this agent is willing to read"))?;
        // Chains of other programs may hold any bytes in their comments; ours are ASCII.
        let saved = crate::exec::escape(&saved);
        // Such a table is printed as if it were empty; acting on that would repeat our rules for ever.
        let incompatible = |text: &str| {
            text.lines()
                .any(|line| line.starts_with('#') && line.contains("incompatible"))
        };
        if incompatible(&saved) || incompatible(&output.stderr.to_text()) {
            return Err(cannot(&format!(
                "the {table} table was made with nft and holds what iptables cannot express; move those rules to a table of another name"
            )));
        }
        Ok(saved)
    }

    fn restore(&self, family: Family, input: &[u8], deadline: Instant) -> Result<Output, Failure> {
        let arg0 = match family {
            Family::V4 => "iptables-nft-restore",
            Family::V6 => "ip6tables-nft-restore",
        };
        let run = Run::new(&self.xtables, deadline)
            .arg0(arg0)
            .args(["--noflush"])
            .stdin(input)
            .sandbox(&self.sandbox)
            .root(&self.root);
        run.run()
            .map_err(|error| Failure::new(ErrorCode::Failed, error.to_string()))
    }
}
