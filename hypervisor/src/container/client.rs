//! Asking the containers' service. It runs as a user of its own; whoever else listens at its socket is refused.
#![forbid(unsafe_code)]

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::error::{Error, IoContext, Result};
use crate::host::Host;
use crate::keeper::USER;
use crate::keeper::wire::{Answer, Ask, Line, Refusal, State, socket_path};
use crate::machine::Vmid;
use crate::sys;

/// How long a service that is just starting is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// One request to the service.
pub struct Request(Line);

impl Request {
    /// Connects and asks.
    ///
    /// # Errors
    /// [`Error::Environment`] when there is no service, or another than ours.
    pub fn send(host: &Host, ask: &Ask, descriptors: &[BorrowedFd<'_>]) -> Result<Self> {
        let path = socket_path(&host.layout);
        let uid = match sys::lookup_user(USER).at("cannot read", "/etc/passwd")? {
            Some((uid, _)) if uid != 0 => uid,
            _ => {
                return Err(Error::Environment(format!(
                    "user '{USER}' does not exist: run the setup script"
                )));
            }
        };
        let end = Instant::now() + PATIENCE;
        let line = loop {
            match Line::connect(&path) {
                Ok(line) => break line,
                Err(e) if Instant::now() > end => {
                    return Err(Error::Environment(format!(
                        "the containers' service does not answer at {} ({e}): systemctl start blockhost-containers",
                        path.display()
                    )));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let peer = line.peer().at("cannot look behind", &path)?;
        if peer != uid {
            return Err(Error::Environment(format!(
                "what listens at {} runs as uid {peer} and not as '{USER}'; nothing was asked",
                path.display()
            )));
        }
        line.send(ask, descriptors).at("cannot ask", &path)?;
        Ok(Self(line))
    }

    /// The next answer that is no refusal.
    ///
    /// # Errors
    /// The refusal, in this program's words.
    pub fn answer(&self) -> Result<(Answer, Vec<OwnedFd>)> {
        let (answer, descriptors) = self
            .0
            .receive::<Answer>()
            .at("no answer from", "the containers' service")?;
        let Answer::Refused { refusal, message } = answer else {
            return Ok((answer, descriptors));
        };
        Err(match refusal {
            Refusal::Conflict => Error::Conflict(message),
            Refusal::Timeout => Error::Timeout(message),
            Refusal::Archive => Error::Image {
                image: "template".to_owned(),
                problem: message,
            },
            Refusal::Environment => Error::Environment(message),
            Refusal::Failed => Error::Failed(message),
        })
    }

    /// Says one thing more in the same request.
    ///
    /// # Errors
    /// When the service is gone.
    pub fn tell(&self, ask: &Ask) -> Result<()> {
        self.0
            .send(ask, &[])
            .at("cannot reach", "the containers' service")
    }
}

/// Asks for something that is done or refused; what is to be said about it.
///
/// # Errors
/// As [`Request::answer`].
pub fn ask(host: &Host, ask: &Ask, descriptors: &[BorrowedFd<'_>]) -> Result<Vec<String>> {
    match Request::send(host, ask, descriptors)?.answer()? {
        (Answer::Done { notes }, _) => Ok(notes),
        _ => Err(unexpected()),
    }
}

/// What containers do, in the order they were asked for.
///
/// # Errors
/// When the service cannot be asked: a state is never guessed. What is wrong with one container is said in its own.
pub fn states(host: &Host, vmids: &[Vmid]) -> Result<Vec<State>> {
    if vmids.is_empty() {
        return Ok(Vec::new());
    }
    let ask = Ask::States {
        vmids: vmids.iter().map(|vmid| vmid.get()).collect(),
    };
    match Request::send(host, &ask, &[])?.answer()? {
        (Answer::States { states }, _) if states.len() == vmids.len() => Ok(states),
        _ => Err(unexpected()),
    }
}

/// What one container does.
///
/// # Errors
/// As [`states`], or when nothing is known of it.
pub fn state(host: &Host, vmid: Vmid) -> Result<State> {
    let state = states(host, &[vmid])?.pop().ok_or_else(unexpected)?;
    match state.problem {
        None => Ok(state),
        Some(problem) => Err(Error::Failed(problem)),
    }
}

/// An answer to another question.
pub fn unexpected() -> Error {
    Error::Failed("the containers' service answers something else".to_owned())
}
