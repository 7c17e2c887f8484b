//! What signals ask for: a new policy (SIGHUP), an orderly end (SIGTERM, SIGINT).

use std::time::{Duration, Instant};

use blockhost_proto::escape::shown_up_to;
use rustix::process::{Signal, pidfd_send_signal};

use super::config::{ConfigError, fits, programs_elsewhere, read_policy, wanted_sockets};
use super::{COMPARTMENT_STOP, Event, LEDGER_STOP, Supervisor, SupervisorError, monotonic_us};
use crate::accounts::Accounts;
use crate::ipc::{Control, Role};
use crate::policy::sockets::SocketName;
use crate::{log_error, log_info, log_warning};

impl Supervisor {
    pub(super) fn reload(&mut self) {
        self.notifier
            .tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()));
        match self.read_again() {
            Ok(()) => log_info!("policy reloaded"),
            Err(error) => {
                log_error!("the policy was not changed: {error}");
                let reason = shown_up_to(&error.to_string(), 900);
                if let Some(ledger) = self.running.get(&Role::Ledger) {
                    // A ledger that does not listen is found out elsewhere; the log has it in any case.
                    let _ = ledger
                        .control
                        .send(&Control::PolicyRefused { reason }, None);
                }
            }
        }
        self.notifier.tell("READY=1");
    }

    fn read_again(&mut self) -> Result<(), SupervisorError> {
        let policy = read_policy(&self.layout.agent_policy())?;
        let accounts = Accounts::read().map_err(ConfigError::from)?;
        let file = self.layout.agent_policy().display().to_string();
        programs_elsewhere(&self.layout, &policy, &file)?;
        let identities = self.start.identities;
        let rules = accounts
            .resolve(&policy, &identities, &self.sockets.passed(), &file)
            .map_err(ConfigError::from)?;
        let wanted = wanted_sockets(&self.layout, &policy, &accounts, &identities)?;
        let users = accounts.names(&rules);
        fits(&policy, &rules, &users)?;
        // The last step that can fail: from here on everything is in force.
        let change = self.sockets.plan(&wanted)?;
        // Who is started anew before the next restart is told nothing else than the others were.
        let effective = policy.without_restart(&self.start.policy);
        if effective != policy {
            log_warning!(
                "backend, landlock, wireguard, programs, images, containers and identities change at the next restart only"
            );
        }
        self.start.users = users.clone();
        self.start.rules = rules.clone();
        self.start.policy = effective;
        let message = Control::Policy {
            policy: Box::new(policy),
            rules,
            users,
        };
        // The front last: what it lets through by new rules, the others must judge by them too.
        let inwards = Role::COMPARTMENTS
            .into_iter()
            .chain([Role::Ledger, Role::Front]);
        for role in inwards {
            let Some(running) = self.running.get(&role) else {
                continue;
            };
            if let Err(error) = running.control.send(&message, None) {
                log_error!(
                    "{}: {error}; killed, it comes back with the new policy",
                    role.as_str()
                );
                let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
            }
        }
        let (new, gone) = self.sockets.apply(change);
        self.change_listening(&new, &gone);
        Ok(())
    }

    fn change_listening(&self, new: &[SocketName], gone: &[SocketName]) {
        let Some(front) = self.running.get(&Role::Front) else {
            return;
        };
        let unlisten = |name: &SocketName| {
            let message = Control::Unlisten {
                socket: name.clone(),
            };
            front
                .control
                .send(&message, None)
                .map_err(|e| e.to_string())
        };
        let told = gone.iter().try_for_each(unlisten).and_then(|()| {
            self.hand_over_sockets(new.iter())
                .map_err(|e| e.to_string())
        });
        if let Err(error) = told {
            log_error!("front: {error}; killed, it comes back with the new sockets");
            let _ = pidfd_send_signal(&front.pidfd, Signal::KILL);
        }
    }

    /// Front first (it drains), then the ledger (it closes what is left), then the compartments.
    pub(super) fn stop(&mut self) {
        self.notifier.tell("STOPPING=1");
        log_info!("stopping");
        self.sockets.remove();
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
