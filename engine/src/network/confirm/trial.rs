//! A change between its record and its end: the steps, the judgement, the operator. Has no decisions about the way back;
//! [`super::run`] makes them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use blockhost_ledger::failpoint;
use blockhost_proto::client::default_timeout;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::Receipt;
use zbus::Connection;

use super::guard::Guard;
use super::plan::{Condition, Plan, Step, gateways};
use super::probe::{Prober, Target, reach};
use super::record::{Deadline, Note, Phase};
use super::report::{Outcome, Report, StepReport};
use super::store::{Journal, Store};
use super::verify::{self, Levels};
use super::{APPLY, LATER, Options, Stage, manager};
use crate::network::observe::{self, Observed, observe};

/// How long a condition may take to become true: the switch acts on its own.
const SOON: Duration = Duration::from_secs(3);
/// A neighbour that was heard of so recently counts as reachable before a change.
const RECENTLY: Duration = Duration::from_secs(30);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);

/// What has to be reachable: what the operator named, and the default gateways that answered before.
#[derive(Debug, Clone, Default)]
pub(super) struct Reachable {
    probes: Vec<Target>,
    gateways: Vec<IpAddr>,
}

impl Reachable {
    pub(super) async fn now(observed: &Observed, probes: &[Target]) -> Self {
        let mut gateways = Vec::new();
        let since = Instant::now().checked_sub(RECENTLY);
        for target in targets(observed) {
            if attempt(&target, since).await.is_ok() {
                gateways.extend(match target {
                    Target::Gateway { address, .. } => Some(address),
                    _ => None,
                });
            }
        }
        Self {
            probes: probes.to_vec(),
            gateways,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.probes.is_empty() && self.gateways.is_empty()
    }

    fn names(&self) -> Vec<String> {
        let gateways = self.gateways.iter().map(|g| format!("gateway {g}"));
        let probes = self.probes.iter().map(ToString::to_string);
        probes.chain(gateways).collect()
    }

    /// What is not.
    async fn missing(&self, observed: &Observed, since: Instant) -> Vec<String> {
        let mut wrong = Vec::new();
        let now = targets(observed);
        let leads = |wanted: &IpAddr| {
            now.iter()
                .find(|t| matches!(t, Target::Gateway { address, .. } if address == wanted))
        };
        for gateway in &self.gateways {
            match leads(gateway) {
                None => wrong.push(format!("no default route leads to {gateway} any more")),
                Some(target) => wrong.extend(attempt(target, Some(since)).await.err()),
            }
        }
        for probe in &self.probes {
            wrong.extend(attempt(probe, Some(since)).await.err());
        }
        wrong
    }
}

fn targets(observed: &Observed) -> Vec<Target> {
    let found = gateways(observed).into_iter();
    let number = |dev: &str| observed.link(dev).map_or(0, |link| link.index);
    found
        .map(|(address, dev)| Target::Gateway {
            address,
            device: number(&dev),
        })
        .collect()
}

async fn attempt(target: &Target, since: Option<Instant>) -> Result<(), String> {
    let target = target.clone();
    tokio::task::spawn_blocking(move || reach(&target, since))
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}

pub(super) struct Trial<'a> {
    pub layout: &'a Layout,
    pub store: &'a Store,
    pub options: &'a Options,
    pub bus: Option<&'a Connection>,
    pub before: &'a Observed,
    pub wanted: Reachable,
    pub plan: &'a Plan,
    pub id: &'a str,
    pub journal: Journal,
    pub guard: Guard,
    pub report: Report,
    pub receipts: Vec<(String, Option<Receipt>)>,
}

impl Trial<'_> {
    /// All steps and the judgement; why it cannot stay.
    pub(super) async fn carry_out(
        &mut self,
        tell: &mut (dyn FnMut(Stage<'_>) + Send),
    ) -> Result<(), String> {
        self.make_checkpoint().await?;
        self.report.reached = self.wanted.names();
        let lost_to = self.wanted.probes.first().cloned();
        let lost_to = lost_to.or_else(|| targets(self.before).into_iter().next());
        let prober = lost_to.as_ref().and_then(Prober::start);
        let done = self.steps_and_judgement(tell).await;
        if let Some(prober) = prober {
            let stopped = tokio::task::spawn_blocking(|| prober.stop());
            self.report.loss = stopped.await.ok().flatten();
        }
        done
    }

    async fn steps_and_judgement(
        &mut self,
        tell: &mut (dyn FnMut(Stage<'_>) + Send),
    ) -> Result<(), String> {
        for (number, step) in self.plan.steps.iter().enumerate() {
            let done = self.step(number, step).await?;
            tell(Stage::Step(&done));
            self.report.steps.push(done);
        }
        self.judge().await?;
        failpoint::reach("net-change", b"judged");
        Ok(())
    }

    async fn make_checkpoint(&mut self) -> Result<(), String> {
        let managed = manager::managed(self.before.network_manager.as_ref(), &self.plan.devices);
        let (Some(bus), false) = (self.bus, managed.is_empty()) else {
            return Ok(());
        };
        let made = manager::checkpoint(bus, &managed, APPLY + LATER).await;
        let path = made.map_err(|error| error.to_string())?;
        failpoint::reach("net-change", b"checkpoint-made");
        let noted = self.journal.note(&Note::Checkpoint(path.clone()));
        if let Err(error) = noted {
            // Nobody would know of it.
            let _ = manager::roll_back(bus, &path).await;
            return Err(error.to_string());
        }
        self.report.checkpoint = true;
        failpoint::reach("net-change", b"checkpointed");
        Ok(())
    }

    /// Nothing may be done any more when the record was moved on by somebody, or when nobody watches.
    fn still_ours(&mut self) -> Result<Duration, String> {
        let known = self.store.read(Phase::Pending, self.id);
        let known = known.map_err(|_| "it is being taken back by another process".to_owned())?;
        if !self.guard.watches() {
            return Err("the process that watched over it died".to_owned());
        }
        match known.deadline().left() {
            Duration::ZERO => Err("it took too long".to_owned()),
            left => Ok(left),
        }
    }

    async fn step(&mut self, number: usize, step: &Step) -> Result<StepReport, String> {
        for condition in &step.requires {
            becomes_true(condition).await?;
        }
        self.still_ours()?;
        let noted = self.journal.note(&Note::Started(number));
        noted.map_err(|error| error.to_string())?;
        failpoint::reach("net-change", format!("starting-{number}").as_bytes());
        let left = self.still_ours()?;
        let action = &step.forward.0;
        let name = action.name();
        let time = default_timeout(action).min(left);
        let asked = async {
            let mut client = Client::connect_layout(self.layout).await?;
            client.call_with_timeout(action, time).await
        };
        let reply = asked.await.map_err(|error| format!("{name}: {error}"))?;
        failpoint::reach("net-change", format!("done-{number}").as_bytes());
        let index = reply.receipt.as_ref().map(|receipt| receipt.index);
        let noted = self.journal.note(&Note::Done(number, index));
        noted.map_err(|error| error.to_string())?;
        self.receipts.push((name.to_owned(), reply.receipt));
        Ok(StepReport {
            action: name.to_owned(),
            params: action.params(),
            output: reply.output,
            receipt: index,
        })
    }

    /// All four levels, until they are good or have had their time.
    async fn judge(&mut self) -> Result<(), String> {
        let since = Instant::now();
        loop {
            let left = self.still_ours()?;
            self.report.levels = self.look(since).await;
            if self.report.levels.are_good() {
                return Ok(());
            }
            if since.elapsed() > self.options.settle.min(left) {
                let wrong: Vec<String> = self.report.levels.all().collect();
                return Err(wrong.join("; "));
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn look(&self, since: Instant) -> Levels {
        let now = observe(self.layout, self.bus).await;
        let expect = &self.plan.expect;
        let mut links = verify::links(expect, &now);
        let manager = self.before.network_manager.as_ref();
        links.extend(verify::manager(&self.plan.devices, manager, &now));
        let mut levels = Levels {
            switch: verify::switch(expect, &now),
            links,
            reachability: self.wanted.missing(&now, since).await,
            ledger: Vec::new(),
        };
        // It is read whole for this: once is enough.
        if levels.are_good() {
            let (layout, receipts) = (self.layout.clone(), self.receipts.clone());
            let proved = tokio::task::spawn_blocking(move || verify::ledger(&layout, &receipts));
            let wrong = proved.await;
            levels.ledger = wrong.unwrap_or_else(|error| vec![error.to_string()]);
        }
        levels
    }

    /// From now on it is the operator's.
    pub(super) async fn hand_to_operator(&mut self, time: Duration) -> Result<(), String> {
        self.still_ours()?;
        if let (Some(bus), Ok(known)) = (self.bus, self.store.read(Phase::Pending, self.id))
            && let Some(checkpoint) = known.checkpoint()
        {
            let given = manager::adjust(bus, checkpoint, time + LATER).await;
            given.map_err(|error| error.to_string())?;
        }
        let noted = self.journal.note(&Note::Waiting(Deadline::within(time)));
        noted.map_err(|error| error.to_string())?;
        failpoint::reach("net-change", b"waiting");
        Ok(())
    }

    /// Waits for the operator; `Some` where it has to be taken back here.
    pub(super) async fn operator_decides(&mut self) -> Option<String> {
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        while self.store.is(Phase::Pending, self.id) {
            if !self.guard.watches() && self.store.is(Phase::Pending, self.id) {
                return Some("the process that watched over it died".to_owned());
            }
            tokio::select! {
                _ = &mut interrupted => return Some("it was interrupted".to_owned()),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        None
    }

    /// Waits until whoever moved the record on has ended it, and tells how.
    pub(super) async fn ended_elsewhere(mut self) -> Report {
        let under_way = [Phase::Pending, Phase::Reverting, Phase::Confirmed];
        while under_way.iter().any(|phase| self.store.is(*phase, self.id)) {
            tokio::time::sleep(EVERY).await;
        }
        self.report.outcome = Outcome::Confirmed;
        match self.store.last() {
            Some(ended) if ended.id == self.id && !ended.confirmed => {
                self.report.reverted(&ended);
            }
            Some(ended) if ended.id == self.id => {}
            // The disk may be full. Where every step is as it should be, it stays.
            _ => {
                let levels = self.look(Instant::now()).await;
                if !levels.are_good() {
                    self.report.outcome = Outcome::Reverted;
                }
            }
        }
        self.guard.gone().await;
        self.report
    }
}

async fn becomes_true(condition: &Condition) -> Result<(), String> {
    let until = Instant::now() + SOON;
    loop {
        let links = observe::links().map_err(|error| error.to_string())?;
        if verify::holds(condition, &links) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(match condition {
                Condition::Hardware { dev, mac } => format!(
                    "{dev} does not take over the hardware address {mac}; give it to the bridge first (ovs-add-br with hwaddr), or use a bridge of its own"
                ),
                Condition::Carries { dev, .. } => format!("{dev} does not carry what it should"),
            });
        }
        tokio::time::sleep(EVERY / 5).await;
    }
}
