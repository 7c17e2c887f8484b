//! The manager's socket: a few questions of Docker's language over HTTP, none of which changes anything. Every answer has a
//! time and a size; one that exceeds them is no answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use blockhost_proto::escape;
use blockhost_proto::value::ContainerId;
use reqwest::{Client, Response, StatusCode};

use super::api::{Inspected, Listed, NETWORK_LABELS, Nonsense, inspected, listed};
use crate::chain::rpc::install_tls_provider;

/// The oldest version that has everything asked here; Docker of 2019 and Podman of today speak it.
const VERSION: &str = "v1.40";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a list.
const MAX_LIST: usize = 16 << 20;
/// Bytes about one container.
const MAX_ONE: usize = 1 << 20;
/// Bytes of an event.
const MAX_EVENT: usize = 256 << 10;

/// Why the manager could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The socket, or HTTP.
    #[error("the container manager at {} does not answer: {}", socket.display(), chain(source))]
    Http {
        /// Its socket.
        socket: PathBuf,
        /// What happened.
        source: reqwest::Error,
    },
    /// It took too long.
    #[error("the container manager at {} did not answer {what} in time", socket.display())]
    Slow {
        /// Its socket.
        socket: PathBuf,
        /// The question.
        what: String,
    },
    /// It refused.
    #[error("the container manager answers {status} to {what}")]
    Status {
        /// The question.
        what: String,
        /// Its answer.
        status: StatusCode,
    },
    /// Too much of an answer.
    #[error("the container manager's answer to {what} is longer than {limit} bytes")]
    Long {
        /// The question.
        what: String,
        /// What is taken.
        limit: usize,
    },
    /// What it said.
    #[error(transparent)]
    Nonsense(#[from] Nonsense),
    /// The stream of events ended.
    #[error("the container manager ended its events")]
    Ended,
}

/// HTTP's own sentence says little; its causes say more.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    escape::shown_up_to(&text, 200)
}

/// The way to a manager.
#[derive(Debug, Clone)]
pub struct Manager {
    client: Client,
    socket: PathBuf,
    patience: Duration,
}

/// What happens to containers, one after the other.
#[derive(Debug)]
pub struct Events {
    response: Response,
    pending: Vec<u8>,
    socket: PathBuf,
}

impl Manager {
    /// Prepares; nothing is asked yet.
    ///
    /// # Errors
    /// [`ManagerError::Http`].
    pub fn new(socket: &Path) -> Result<Self, ManagerError> {
        install_tls_provider();
        let client = Client::builder()
            .unix_socket(socket)
            .connect_timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let socket = socket.to_owned();
        match client {
            Ok(client) => Ok(Self {
                client,
                socket,
                patience: PATIENCE,
            }),
            Err(source) => Err(ManagerError::Http { socket, source }),
        }
    }

    fn failed(&self, source: reqwest::Error) -> ManagerError {
        let socket = self.socket.clone();
        ManagerError::Http { socket, source }
    }

    async fn ask(&self, what: &str) -> Result<Response, ManagerError> {
        // The name is for HTTP's sake; the socket is where it goes.
        let url = format!("http://manager/{VERSION}/{what}");
        let response = self
            .client
            .get(url)
            .send()
            .await
            .map_err(|source| self.failed(source))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(ManagerError::Status {
                what: what.to_owned(),
                status,
            }),
        }
    }

    /// The whole of an answer.
    async fn get(&self, what: &str, limit: usize) -> Result<Vec<u8>, ManagerError> {
        let whole = async {
            let mut response = self.ask(what).await?;
            let mut body = Vec::new();
            while let Some(part) = response.chunk().await.map_err(|e| self.failed(e))? {
                if body.len() + part.len() > limit {
                    let what = what.to_owned();
                    return Err(ManagerError::Long { what, limit });
                }
                body.extend_from_slice(&part);
            }
            Ok(body)
        };
        tokio::time::timeout(self.patience, whole)
            .await
            .unwrap_or_else(|_| {
                Err(ManagerError::Slow {
                    socket: self.socket.clone(),
                    what: what.to_owned(),
                })
            })
    }

    /// The running containers that have a label of a network.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn list(&self) -> Result<Vec<Listed>, ManagerError> {
        let mut all: Vec<Listed> = Vec::new();
        for label in NETWORK_LABELS {
            // `{"label":["..."]}`; a label of ours has nothing else to be written in another way.
            let what = format!("containers/json?filters=%7B%22label%22%3A%5B%22{label}%22%5D%7D");
            for one in listed(&self.get(&what, MAX_LIST).await?)? {
                if all.iter().all(|other| other.id != one.id) {
                    all.push(one);
                }
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// One container; `None` where it is gone.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn inspect(&self, id: &ContainerId) -> Result<Option<Inspected>, ManagerError> {
        match self.get(&format!("containers/{id}/json"), MAX_ONE).await {
            Ok(body) => Ok(Some(inspected(&body, id)?)),
            Err(ManagerError::Status {
                status: StatusCode::NOT_FOUND,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for what happens from now on.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn events(&self) -> Result<Events, ManagerError> {
        // `{"type":["container"]}`
        let what = "events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D";
        let response = tokio::time::timeout(self.patience, self.ask(what))
            .await
            .unwrap_or_else(|_| {
                Err(ManagerError::Slow {
                    socket: self.socket.clone(),
                    what: what.to_owned(),
                })
            })?;
        Ok(Events {
            response,
            pending: Vec::new(),
            socket: self.socket.clone(),
        })
    }
}

impl Events {
    /// Waits until something has happened. What it was is not believed: whoever hears of it looks for himself.
    ///
    /// # Errors
    /// [`ManagerError`]; the stream is over then.
    pub async fn next(&mut self) -> Result<(), ManagerError> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                self.pending.drain(..=end);
                return Ok(());
            }
            if self.pending.len() > MAX_EVENT {
                return Err(ManagerError::Long {
                    what: "events".to_owned(),
                    limit: MAX_EVENT,
                });
            }
            let part = self.response.chunk().await.map_err(|source| {
                let socket = self.socket.clone();
                ManagerError::Http { socket, source }
            })?;
            match part {
                Some(part) => self.pending.extend_from_slice(&part),
                None => return Err(ManagerError::Ended),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    /// How a manager answers every question: these bytes, then filler without end where there is some, then silence.
    struct Lie {
        begins: &'static str,
        goes_on: &'static [u8],
    }

    /// A manager that answers so, and the way to it.
    fn lying(directory: &Path, lie: Lie) -> Manager {
        let socket = directory.join("m.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut question = [0; 4096];
                let _ = stream.read(&mut question).await;
                let _ = stream.write_all(lie.begins.as_bytes()).await;
                while !lie.goes_on.is_empty() && stream.write_all(lie.goes_on).await.is_ok() {}
                // Open, and silent.
                let _ = stream.read(&mut question).await;
            }
        });
        let mut manager = Manager::new(&socket).expect("a way");
        manager.patience = Duration::from_secs(60);
        manager
    }

    const ENDLESS: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[";

    #[tokio::test]
    async fn an_answer_without_end_or_from_nobody_is_no_answer() {
        let filler = [b' '; 65536];
        let filler: &'static [u8] = Box::leak(Box::new(filler));
        let long = Lie {
            begins: ENDLESS,
            goes_on: filler,
        };
        let directory = tempfile::tempdir().expect("a directory");
        let error = lying(directory.path(), long)
            .list()
            .await
            .expect_err("long");
        assert!(matches!(error, ManagerError::Long { .. }), "{error}");

        let error = Manager::new(Path::new("/nonexistent/m.sock"))
            .expect("a way")
            .list()
            .await;
        let error = error.expect_err("nobody").to_string();
        assert!(
            error.contains("/nonexistent/m.sock") && error.contains("No such file"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_manager_that_falls_silent_is_given_up() {
        for begins in ["", "HTTP/1.1 200 OK\r\n", ENDLESS] {
            let directory = tempfile::tempdir().expect("a directory");
            let silent = Lie {
                begins,
                goes_on: b"",
            };
            let mut manager = lying(directory.path(), silent);
            manager.patience = Duration::from_millis(100);
            let error = manager.list().await.expect_err("silent");
            assert!(
                matches!(error, ManagerError::Slow { .. }),
                "{begins}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn refusals_detours_and_nonsense_are_told() {
        for (begins, part) in [
            ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "500"),
            (
                "HTTP/1.1 302 There\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
                "302",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
                "makes no sense",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
                "makes no sense",
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n", "does not answer"),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let manager = lying(
                directory.path(),
                Lie {
                    begins,
                    goes_on: b"",
                },
            );
            let error = manager.list().await.expect_err(begins).to_string();
            assert!(error.contains(part), "{begins}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[tokio::test]
    async fn events_are_counted_one_by_one_and_one_without_end_ends_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let two = "HTTP/1.1 200 OK\r\n\r\n{\"Action\":\"die\"}\n{\"Action\":\"start\"}\n";
        let manager = lying(
            directory.path(),
            Lie {
                begins: two,
                goes_on: b"",
            },
        );
        let mut events = manager.events().await.expect("events");
        events.next().await.expect("one");
        events.next().await.expect("another");
        let silent = tokio::time::timeout(Duration::from_millis(50), events.next()).await;
        assert!(silent.is_err(), "there was no third");

        let directory = tempfile::tempdir().expect("a directory");
        let endless = Lie {
            begins: "HTTP/1.1 200 OK\r\n\r\n",
            goes_on: b"xxxxxxxxxxxxxxxx",
        };
        let mut events = lying(directory.path(), endless)
            .events()
            .await
            .expect("events");
        let error = events.next().await.expect_err("too long");
        assert!(matches!(error, ManagerError::Long { .. }), "{error}");
    }
}
