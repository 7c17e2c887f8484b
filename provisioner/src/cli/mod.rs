//! The commands: definitions (from which man pages and completions are made as well) and what they share. Results go to
//! stdout, everything else to stderr.

pub mod build_template;
pub mod create;
pub mod database;
pub mod detect;
pub mod guest;
mod hosts;
pub mod machine;
pub mod metrics;
pub mod onboot;
pub mod show;
pub mod stop_all;
pub mod throttle;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use blockhost_proto::Layout;

use crate::agent::SocketAgent;
use crate::backend::{ActionsBackend, BackendError};
use crate::config::{Config, ConfigError};
use crate::create::{CreateError, World};
use crate::lifecycle::LifecycleError;
use crate::signals::Interrupt;
use crate::store::{self, AnyStore, StoreError};

/// Exit codes, for the help texts.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 configuration or database unusable; 4 no such machine or host;
5 name, number or address taken, pool exhausted or wrong status; 6 the root agent is away or busy; 130 interrupted.";

/// The one for an agent that is away, see [`BackendError::is_agent_away`]: who waits for it, like the engine, tries again.
const AWAY: u8 = 6;

/// Every command of this crate, for man pages and completions.
#[must_use]
pub fn commands() -> Vec<clap::Command> {
    let mut all = vec![
        create::command(),
        build_template::command(),
        detect::command(),
    ];
    all.extend(machine::commands());
    all.extend([
        show::status_command(),
        show::list_command(),
        onboot::command(),
        stop_all::command(),
        metrics::command(),
        throttle::command(),
        database::command(),
        guest::update_gecos_command(),
        guest::exec_command(),
    ]);
    all
}

/// What a failed command says and exits with.
#[derive(Debug)]
pub struct Failure {
    /// One sentence, with a hint.
    pub message: String,
    /// See [`EXIT_CODES`].
    pub code: u8,
}

impl Failure {
    /// A failure of no particular kind.
    #[must_use]
    pub fn new(message: impl Display) -> Self {
        Self {
            message: message.to_string(),
            code: 1,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self {
            message: error.to_string(),
            code: 3,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Damaged { .. }
            | StoreError::Io { .. }
            | StoreError::Locked { .. }
            | StoreError::Unsupported { .. }
            | StoreError::Stranger { .. }
            | StoreError::Server { .. } => 3,
            StoreError::UnknownVm { .. } | StoreError::UnknownHost { .. } => 4,
            _ => 5,
        };
        Self {
            message: error.to_string(),
            code,
        }
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Self {
            message: error.to_string(),
            code: if error.is_agent_away() { AWAY } else { 1 },
        }
    }
}

impl From<LifecycleError> for Failure {
    fn from(error: LifecycleError) -> Self {
        match error {
            LifecycleError::Store(e) => e.into(),
            other if other.is_agent_away() => Self {
                message: other.to_string(),
                code: AWAY,
            },
            other => Self::new(other),
        }
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Store(e) => e.into(),
            CreateError::Backend(e) => e.into(),
            CreateError::Interrupted => Self {
                message: error.to_string(),
                code: 130,
            },
            CreateError::Undone { cause, report } => {
                let mut failure = Self::from(*cause);
                if report.agent_away {
                    // Most of all where it is about what an earlier one left: that is tried again with each attempt.
                    failure.code = AWAY;
                }
                for line in &report.undone {
                    failure.message.push_str(&format!("\n  undone: {line}"));
                }
                for line in &report.failed {
                    failure.message.push_str(&format!("\n  NOT undone: {line}"));
                }
                failure
            }
            other => Self::new(other),
        }
    }
}

/// Prints the failure, if there is one, and gives the exit code.
#[must_use]
pub fn exit(result: Result<ExitCode, Failure>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(failure) => {
            say(&format!("error: {}", failure.message));
            ExitCode::from(failure.code)
        }
    }
}

/// A line on stderr.
pub fn say(text: &str) {
    // Nobody listens: that must not change the outcome.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A result on stdout.
///
/// # Errors
/// [`Failure`] when it cannot be written: a lost result must not look like success.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|e| Failure::new(format!("the result could not be written: {e}")))
}

/// Everything a command works with, owned.
pub struct Setup {
    /// Paths.
    pub layout: Layout,
    /// Settings.
    pub config: Config,
    /// The database.
    pub store: AnyStore,
    /// The machines' host.
    pub backend: ActionsBackend<SocketAgent>,
    /// Raised by signals, where the command catches them.
    pub interrupt: Interrupt,
}

impl Setup {
    /// Reads the configuration of this world and says its warnings.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn load() -> Result<Self, Failure> {
        let layout = Layout::from_env();
        let config = Config::load(&layout)?;
        for warning in &config.warnings {
            say(&format!("warning: {warning}"));
        }
        let store = store::open(&config)?;
        let backend = ActionsBackend::new(SocketAgent::new(&layout));
        Ok(Self {
            layout,
            config,
            store,
            backend,
            interrupt: Interrupt::default(),
        })
    }

    /// From now on SIGINT and SIGTERM raise the flag.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn catch_signals(&mut self) -> Result<(), Failure> {
        self.interrupt = Interrupt::install().map_err(Failure::new)?;
        Ok(())
    }

    /// As the functions of the library take it.
    #[must_use]
    pub fn world(&self) -> World<'_> {
        World {
            layout: &self.layout,
            config: &self.config,
            store: &self.store,
            backend: &self.backend,
            interrupt: &self.interrupt,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_definition_is_sound_and_has_examples() {
        for command in super::commands() {
            let name = command.get_name().to_owned();
            assert!(
                command
                    .get_after_help()
                    .is_some_and(|help| help.to_string().contains("Examples")),
                "{name}"
            );
            command.debug_assert();
        }
    }
}
