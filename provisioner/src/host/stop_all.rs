//! What is shut down with the host: everything that runs on the embedded backend, asked first and forced when it does not
//! listen. Proxmox VE does this itself. `blockhost-vm-stop-all` calls this, its unit calls that when the host goes down.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, mpsc};

use blockhost_proto::value::Seconds;
use serde::Serialize;

use super::{Guest, Kind, ask, foreign_backend, rows};
use crate::agent::Agent;
use crate::backend::BackendError;

/// Guests that are asked at one time: half of the connections that the agent lets a user have by default, as who else asks
/// for something at this time wants some.
const AT_ONCE: usize = 32;

/// What is done with a guest that is still there after its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// Its plug is pulled.
    Force,
    /// It runs on.
    Leave,
}

/// What became of all that ran, by name (`VM 100`, `CT 101`) in the order of numbers.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// Shut themselves down.
    pub shut_down: Vec<String>,
    /// Did not within their time, and were forced.
    pub forced: Vec<String>,
    /// Run on, or it is not known whether they do.
    pub failed: Vec<String>,
}

enum End {
    ShutDown,
    Forced,
    Failed,
}

/// Shuts everything down that runs. Each has `timeout` for it; one that fails keeps no other from it. What happens is
/// said as it happens.
///
/// # Errors
/// When the agent does not say what backend it has.
pub fn stop_all(
    agent: &(impl Agent + Sync),
    timeout: Seconds,
    afterwards: Afterwards,
    say: &mut dyn FnMut(&str),
) -> Result<Stopped, BackendError> {
    let mut stopped = Stopped::default();
    let Some(mut running) = running(agent, &mut stopped, say)? else {
        return Ok(stopped);
    };
    // The youngest first: what others stand on was there before them.
    running.sort_unstable_by(|a, b| b.cmp(a));
    let workers = running.len().min(AT_ONCE);
    let queue = Mutex::new(VecDeque::from(running));
    let (sender, ends) = mpsc::channel();
    let mut all = std::thread::scope(|scope| {
        for _ in 0..workers {
            let (queue, sender) = (&queue, sender.clone());
            scope.spawn(move || {
                let next = || {
                    queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front()
                };
                while let Some(guest) = next() {
                    let (end, words) = stop(agent, guest, timeout, afterwards);
                    // Nobody to tell is no reason to let the others run.
                    let _ = sender.send((guest, end, words));
                }
            });
        }
        drop(sender);
        let mut all = Vec::new();
        for (guest, end, words) in ends {
            say(&format!("{guest} {words}"));
            all.push((guest, end));
        }
        all
    });
    all.sort_unstable_by_key(|(guest, _)| *guest);
    for (guest, end) in all {
        let list = match end {
            End::ShutDown => &mut stopped.shut_down,
            End::Forced => &mut stopped.forced,
            End::Failed => &mut stopped.failed,
        };
        list.push(guest.to_string());
    }
    Ok(stopped)
}

/// Says what would be shut down.
///
/// # Errors
/// As [`stop_all`].
pub fn would_stop(
    agent: &impl Agent,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<String>, BackendError> {
    let mut stopped = Stopped::default();
    let mut running = running(agent, &mut stopped, say)?.unwrap_or_default();
    running.sort_unstable();
    Ok(running.iter().map(ToString::to_string).collect())
}

/// All that runs; `None` where another backend sees to that.
fn running(
    agent: &impl Agent,
    stopped: &mut Stopped,
    say: &mut dyn FnMut(&str),
) -> Result<Option<Vec<Guest>>, BackendError> {
    if let Some(other) = foreign_backend(agent)? {
        say(&format!("{other} shuts its own down"));
        return Ok(None);
    }
    let mut running = Vec::new();
    for kind in Kind::ALL {
        match rows(agent, kind) {
            Ok(list) => {
                let those = list.into_iter().filter(|row| row.runs);
                running.extend(those.map(|row| Guest {
                    vmid: row.vmid,
                    kind,
                }));
            }
            Err(e) => {
                let what = format!("the list of {}s", kind.word());
                say(&format!("{what}: {e}"));
                stopped.failed.push(what);
            }
        }
    }
    Ok(Some(running))
}

fn stop(
    agent: &impl Agent,
    guest: Guest,
    timeout: Seconds,
    afterwards: Afterwards,
) -> (End, String) {
    let Guest { vmid, kind } = guest;
    let refused = match ask(agent, &kind.shutdown(vmid, timeout)) {
        Ok(_) => return (End::ShutDown, "is shut down".to_owned()),
        Err(e) => e,
    };
    // Whoever took it away in the meantime.
    if refused.is_not_found() {
        return (End::ShutDown, "is gone".to_owned());
    }
    let why = if refused.is_timeout() {
        format!("did not shut down within {} s", timeout.get())
    } else {
        refused.to_string()
    };
    if afterwards == Afterwards::Leave {
        return (End::Failed, format!("runs on: {why}"));
    }
    match ask(agent, &kind.stop(vmid)) {
        Ok(_) => (End::Forced, format!("was stopped by force: {why}")),
        Err(e) => (End::Failed, format!("could not be stopped: {why}; {e}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use blockhost_proto::ErrorCode;
    use blockhost_proto::action::Action;
    use blockhost_proto::client::{CallError, Reply};
    use serde_json::json;

    use super::*;

    /// A host that writes down what it was asked to change, and answers so.
    struct Host {
        backend: &'static str,
        asked: Mutex<Vec<String>>,
        refuses: &'static [(&'static str, ErrorCode)],
    }

    impl Host {
        fn new(refuses: &'static [(&'static str, ErrorCode)]) -> Self {
            Self {
                backend: "embedded",
                asked: Mutex::default(),
                refuses,
            }
        }

        fn asked(&self) -> Vec<String> {
            let mut asked = self.asked.lock().unwrap().clone();
            asked.sort();
            asked
        }
    }

    impl Agent for Host {
        fn call(&self, action: &Action, _: Option<Duration>) -> Result<Reply, CallError> {
            let number = action.params()["vmid"].as_u64().unwrap_or_default();
            let what = format!("{} {number}", action.name());
            if let Some((_, code)) = self
                .refuses
                .iter()
                .find(|(refused, _)| *refused == what.trim_end_matches(" 0"))
            {
                return Err(CallError::Refused {
                    code: *code,
                    message: "on purpose".to_owned(),
                });
            }
            let mut reply = Reply {
                output: String::new(),
                receipt: None,
                extra: serde_json::Map::new(),
            };
            match action {
                Action::AgentInfo(_) => {
                    reply.extra.insert("backend".into(), self.backend.into());
                }
                Action::QmList(_) => {
                    reply.output = json!([{"vmid": 105, "status": "running"}, {"vmid": 101, "status": "paused"},
                        {"vmid": 102, "status": "stopped"}])
                    .to_string();
                }
                Action::PctList(_) => {
                    reply.output = json!([{"vmid": 104, "status": "running"}, {"vmid": 103, "status": "stopped"}]).to_string();
                }
                _ => self.asked.lock().unwrap().push(what),
            }
            Ok(reply)
        }
    }

    fn run(host: &Host, afterwards: Afterwards) -> (Stopped, String) {
        let mut said = String::new();
        let timeout = "30".parse().unwrap();
        let stopped = stop_all(host, timeout, afterwards, &mut |line| {
            said.push_str(&format!("{line}\n"));
        });
        (stopped.unwrap(), said)
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn all_that_runs_is_shut_down_and_nothing_else_is_touched() {
        let host = Host::new(&[]);
        let (stopped, _) = run(&host, Afterwards::Force);
        assert_eq!(stopped.shut_down, ["VM 101", "CT 104", "VM 105"]);
        assert!(stopped.forced.is_empty() && stopped.failed.is_empty());
        assert_eq!(
            host.asked(),
            ["pct-shutdown 104", "qm-shutdown 101", "qm-shutdown 105"]
        );
    }

    #[test]
    fn what_does_not_listen_is_forced_and_left_only_where_that_is_wished() {
        let deaf: &[(&str, ErrorCode)] = &[
            ("qm-shutdown 105", ErrorCode::Timeout),
            ("pct-shutdown 104", ErrorCode::Failed),
        ];
        let host = Host::new(deaf);
        let (stopped, said) = run(&host, Afterwards::Force);
        assert_eq!(stopped.shut_down, ["VM 101"]);
        assert_eq!(stopped.forced, ["CT 104", "VM 105"]);
        assert_eq!(
            host.asked(),
            ["pct-stop 104", "qm-shutdown 101", "qm-stop 105"]
        );
        assert!(
            said.contains("VM 105 was stopped by force: did not shut down within 30 s"),
            "{said}"
        );
        let host = Host::new(deaf);
        let (stopped, said) = run(&host, Afterwards::Leave);
        assert_eq!(stopped.failed, ["CT 104", "VM 105"]);
        assert_eq!(host.asked(), ["qm-shutdown 101"]);
        assert!(said.contains("CT 104 runs on"), "{said}");
    }

    #[test]
    fn one_that_cannot_be_stopped_or_a_list_that_fails_keeps_no_other_from_it_and_is_named() {
        let host = Host::new(&[
            ("qm-shutdown 105", ErrorCode::Timeout),
            ("qm-stop 105", ErrorCode::Failed),
            ("qm-shutdown 101", ErrorCode::NotFound),
            ("pct-list", ErrorCode::Busy),
        ]);
        let (stopped, said) = run(&host, Afterwards::Force);
        assert_eq!(
            stopped,
            Stopped {
                shut_down: names(&["VM 101"]),
                forced: Vec::new(),
                failed: names(&["the list of CTs", "VM 105"]),
            }
        );
        assert!(
            said.contains("VM 101 is gone") && said.contains("on purpose"),
            "{said}"
        );
    }

    #[test]
    fn another_backend_shuts_its_own_down_and_who_does_not_say_which_is_an_error() {
        let mut host = Host::new(&[]);
        host.backend = "proxmox";
        assert_eq!(run(&host, Afterwards::Force).0, Stopped::default());
        assert!(host.asked().is_empty());
        let silent = Host::new(&[("agent-info", ErrorCode::Failed)]);
        assert!(would_stop(&silent, &mut |_| ()).is_err());
        let host = Host::new(&[]);
        assert_eq!(
            would_stop(&host, &mut |_| ()).unwrap(),
            ["VM 101", "CT 104", "VM 105"]
        );
        assert!(host.asked().is_empty());
    }

    #[test]
    fn more_than_are_asked_at_once_are_all_asked() {
        struct Many(Mutex<usize>);
        impl Agent for Many {
            fn call(&self, action: &Action, _: Option<Duration>) -> Result<Reply, CallError> {
                let mut reply = Reply {
                    output: "[]".to_owned(),
                    receipt: None,
                    extra: serde_json::Map::new(),
                };
                match action {
                    Action::AgentInfo(_) => {
                        reply.extra.insert("backend".into(), "embedded".into());
                    }
                    Action::QmList(_) => {
                        let rows: Vec<_> = (100..300)
                            .map(|vmid| json!({"vmid": vmid, "status": "running"}))
                            .collect();
                        reply.output = json!(rows).to_string();
                    }
                    Action::QmShutdown(_) => *self.0.lock().unwrap() += 1,
                    _ => {}
                }
                Ok(reply)
            }
        }
        let host = Many(Mutex::default());
        let stopped =
            stop_all(&host, "1".parse().unwrap(), Afterwards::Force, &mut |_| ()).unwrap();
        assert_eq!(stopped.shut_down.len(), 200);
        assert_eq!(*host.0.lock().unwrap(), 200);
    }
}
