//! What signals ask for: a new policy (SIGHUP), an orderly end (SIGTERM, SIGINT).

use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};

use super::config::{ConfigError, read_policy};
use super::{COMPARTMENT_STOP, Event, LEDGER_STOP, Supervisor, monotonic_us};
use crate::accounts::Accounts;
use crate::ipc::{Control, Role};
use crate::{log_error, log_info, log_warning};

impl Supervisor {
    pub(super) fn reload(&mut self) {
        self.notifier
            .tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()));
        match self.read_again() {
            Ok(()) => log_info!("policy reloaded"),
            Err(error) => log_error!("the policy was not changed: {error}"),
        }
        self.notifier.tell("READY=1");
    }

    fn read_again(&mut self) -> Result<(), ConfigError> {
        let policy = read_policy(&self.layout.agent_policy())?;
        let accounts = Accounts::read()?;
        let file = self.layout.agent_policy().display().to_string();
        let rules = accounts.resolve(&policy, &file)?;
        let fixed =
            |p: &crate::policy::Policy| (p.backend, p.landlock, p.programs.clone(), p.identities);
        if fixed(&policy) != fixed(&self.start.policy) {
            log_warning!(
                "backend, landlock, programs and identities change at the next restart only"
            );
        }
        self.start.users = accounts.names(&rules);
        self.start.rules = rules.clone();
        self.start.policy = policy.clone();
        let message = Control::Policy {
            policy: Box::new(policy),
            rules,
        };
        for (role, running) in &self.running {
            if let Err(error) = running.control.send(&message, None) {
                log_error!(
                    "{}: {error}; killed, it comes back with the new policy",
                    role.as_str()
                );
                let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
            }
        }
        Ok(())
    }

    /// Front first (it drains), then the ledger (it closes what is left), then the compartments.
    pub(super) fn stop(&mut self) {
        self.notifier.tell("STOPPING=1");
        log_info!("stopping");
        self.listener.remove();
        self.restarts.clear();
        let drain = Duration::from_secs(self.start.policy.limits.drain_s + 1);
        self.end(Role::Front, drain);
        self.end(Role::Ledger, LEDGER_STOP);
        for role in Role::COMPARTMENTS {
            self.end(role, COMPARTMENT_STOP);
        }
    }

    /// Asks a child to end and sees to it that it does.
    fn end(&mut self, role: Role, patience: Duration) {
        let Some(running) = self.running.get(&role) else {
            return;
        };
        let _ = running.control.send(&Control::Stop, None);
        let until = Instant::now() + patience;
        while self.running.contains_key(&role) && Instant::now() < until {
            for event in self.wait(Some(until)) {
                match event {
                    Event::Told(role) => self.hear(role),
                    Event::Died(dead) => {
                        // Compartments end by themselves when the ledger closes their channels.
                        self.bury(dead);
                    }
                    Event::Signal(_) | Event::Time => {}
                }
            }
        }
        if let Some(running) = self.running.get(&role) {
            log_warning!(
                "{} did not end in {} s; killed",
                role.as_str(),
                patience.as_secs()
            );
            let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
            self.bury(role);
        }
    }
}
