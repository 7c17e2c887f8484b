//! What each method does. A call is let in, its arguments are read into types, polkit is asked where something changes, the
//! ledger is told on whose behalf, and the root agent does it. Whatever may take long runs where it holds up nobody.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use blockhost_ledger::index;
use blockhost_ledger::service::Service;
use blockhost_proto::action::{Action, AgentInfo, OvsDelPort, OvsList};
use blockhost_proto::client::tokio::call_once;
use blockhost_proto::client::{CallError, Reply};
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{EventName, SwitchIfName, Vmid};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use zbus::Connection;

use super::access::{Caller, Permission, Ticket, Turnstile, authorise};
use super::answers;
use super::error::BusError;
use super::probe::Probe;
use crate::log;
use crate::network::attach::{self, Wanted};
use crate::network::bindings::{self, Binding};
use crate::network::observe::{self, EVERYTHING, ObserveError, Observed, Switch};
use crate::network::picture::picture;

pub(super) type Answer<T> = Result<T, BusError>;

/// How old what is told of the switch may be.
const FRESH: Duration = Duration::from_millis(250);

/// The service's state.
pub(super) struct Desk {
    pub(super) layout: Layout,
    pub(super) bus: Connection,
    pub(super) ledger: Arc<Service>,
    turnstile: Turnstile,
    probe: Probe,
    /// What was last seen of the switch, and when.
    seen: Mutex<Option<(Instant, Option<Switch>)>>,
    /// One verification at a time: it reads everything there is.
    pub(super) verifying: Arc<Mutex<()>>,
    /// One attachment at a time: which number is free is decided on what is there.
    attaching: Mutex<()>,
    height: AtomicU64,
    backend: Lock<Option<String>>,
}

fn read<T>(name: &str, text: &str) -> Answer<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error| BusError::argument(name, error))
}

impl Desk {
    pub(super) fn new(layout: Layout, bus: Connection) -> Self {
        let dir = layout.ledger();
        let index = index::default_path(&dir);
        Self {
            ledger: Arc::new(Service::new(dir, None, index)),
            layout,
            bus,
            turnstile: Turnstile::default(),
            probe: Probe::default(),
            seen: Mutex::default(),
            verifying: Arc::default(),
            attaching: Mutex::default(),
            height: AtomicU64::new(0),
            backend: Lock::default(),
        }
    }

    pub(super) async fn enter(&self, caller: &Caller) -> Answer<Ticket> {
        self.turnstile.enter(&self.bus, caller).await
    }

    pub(super) async fn authorise(&self, caller: &Caller, permission: Permission) -> Answer<u32> {
        authorise(&self.bus, caller, permission).await
    }

    async fn act(&self, action: impl Into<Action>) -> Result<Reply, CallError> {
        let reply = call_once(&self.layout, &action.into()).await;
        // Also where it failed: nobody knows how far it came.
        self.look_again().await;
        reply
    }

    /// Puts on record who wants this of us: to the agent, we are the caller.
    pub(super) async fn on_behalf(
        &self,
        uid: u32,
        method: &str,
        resource: &str,
        arguments: Value,
    ) -> Answer<()> {
        let params = json!({
            "category": "network", "action": "bus-call", "resource": resource,
            "data": {"method": method, "caller_uid": uid, "arguments": arguments},
        });
        let event = Action::from_parts("ledger-append", &params)
            .map_err(|error| BusError::Failed(format!("the call cannot be recorded: {error}")))?;
        call_once(&self.layout, &event).await?;
        Ok(())
    }

    async fn observe(&self) -> Observed {
        observe::observe_beside(&self.layout, Some(&self.bus), self.seen()).await
    }

    /// The switch as it was a moment ago. Each look of the agent's is on record: callers that come together share one.
    async fn seen(&self) -> Result<Option<Switch>, ObserveError> {
        let mut last = self.seen.lock().await;
        if let Some((at, switch)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(switch.clone());
        }
        let switch = observe::look_at_switch(&self.layout, &EVERYTHING).await?;
        *last = Some((Instant::now(), switch.clone()));
        Ok(switch)
    }

    /// What was seen is no longer so.
    pub(super) async fn look_again(&self) {
        *self.seen.lock().await = None;
    }

    async fn switch(&self) -> Answer<Switch> {
        self.seen().await?.ok_or_else(no_switch)
    }

    // --- looking -------------------------------------------------------------------------------------------------

    pub(super) async fn ping(&self, _: Caller) -> Answer<String> {
        Ok("pong".to_owned())
    }

    pub(super) async fn list_ports(
        &self,
        caller: Caller,
    ) -> Answer<Vec<(String, String, i64, u32)>> {
        let _ticket = self.enter(&caller).await?;
        let observed = Observed {
            switch: Some(self.switch().await?),
            ..Observed::default()
        };
        Ok(answers::ports(&observed))
    }

    pub(super) async fn system_state(&self, caller: Caller) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let (observed, dns) = tokio::join!(self.observe(), self.probe.dns_works(&self.layout));
        Ok(answers::system_state(&observed, dns).to_string())
    }

    pub(super) async fn interface_bindings(&self, caller: Caller) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        Ok(answers::interface_bindings(&self.observe().await).to_string())
    }

    pub(super) async fn bridge_topology(&self, caller: Caller, bridge: String) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let observed = self.observe().await;
        let shown = picture(&observed);
        let shown = shown
            .bridge(&bridge)
            .ok_or_else(|| missing(&observed, &bridge))?;
        Ok(serde_json::to_string(shown)?)
    }

    pub(super) async fn validate_bridge(&self, caller: Caller, bridge: String) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let observed = self.observe().await;
        let shown = picture(&observed);
        let shown = shown
            .bridge(&bridge)
            .ok_or_else(|| missing(&observed, &bridge))?;
        Ok(answers::validate(shown, &observed).to_string())
    }

    pub(super) async fn network_manager(&self, caller: Caller) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let Some(manager) = observe::network_manager(&self.bus).await? else {
            return Ok("null".to_owned());
        };
        let mut answer = serde_json::to_value(manager)?;
        answer["introspection"] = observe::introspection(&self.bus).await?.into();
        Ok(answer.to_string())
    }

    pub(super) async fn dump_flows(&self, caller: Caller, bridge: String) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let list = OvsList {
            bridge: Some(read("bridge", &bridge)?),
            flows: true,
            owner: None,
        };
        let switch = observe::look_at_switch(&self.layout, &list).await?;
        let switch = switch.ok_or_else(no_switch)?;
        let found = switch.bridges.into_iter().next();
        let found =
            found.ok_or_else(|| BusError::NotFound(format!("there is no bridge {bridge}")))?;
        if let Some(error) = &found.error {
            return Err(BusError::Failed(super::error::sentence(error)));
        }
        let answer = json!({
            "bridge": found.name, "owners": found.owners, "meters": found.meters, "flows": found.flows,
            "flows_left_out": found.flows_left_out,
        });
        Ok(answer.to_string())
    }

    // --- changing ------------------------------------------------------------------------------------------------

    pub(super) async fn add_port(
        &self,
        caller: Caller,
        bridge: String,
        port: String,
    ) -> Answer<i64> {
        let _ticket = self.enter(&caller).await?;
        let bridge: SwitchIfName = read("bridge", &bridge)?;
        let port: SwitchIfName = read("port", &port)?;
        let uid = self.authorise(&caller, Permission::ManagePorts).await?;
        let _one_at_a_time = self.attaching.lock().await;
        self.look_again().await;
        let add = attach::plain(bridge, port, &self.switch().await?)?;
        let (bridge, port) = (&add.bridge, &add.port);
        let arguments = json!({"bridge": bridge.as_str(), "port": port.as_str()});
        self.on_behalf(uid, "AddPort", &format!("ovs:{bridge}/{port}"), arguments)
            .await?;
        let reply = self.act(add).await?;
        Ok(ofport(&reply)
            .and_then(|number| i64::try_from(number).ok())
            .unwrap_or(-1))
    }

    pub(super) async fn del_port(
        &self,
        caller: Caller,
        bridge: String,
        port: String,
    ) -> Answer<()> {
        let _ticket = self.enter(&caller).await?;
        let bridge: SwitchIfName = read("bridge", &bridge)?;
        let port: SwitchIfName = read("port", &port)?;
        let uid = self.authorise(&caller, Permission::ManagePorts).await?;
        let _one_at_a_time = self.attaching.lock().await;
        self.look_again().await;
        attach::is_free_to_go(&bridge, &port, &self.observe().await)?;
        let arguments = json!({"bridge": bridge.as_str(), "port": port.as_str()});
        self.on_behalf(uid, "DelPort", &format!("ovs:{bridge}/{port}"), arguments)
            .await?;
        self.act(OvsDelPort { bridge, port }).await?;
        Ok(())
    }

    pub(super) async fn create_container_interface(
        &self,
        caller: Caller,
        ifname: String,
        container: String,
        vmid: u32,
    ) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let wanted = Wanted {
            device: read("ifname", &ifname)?,
            container: read::<EventName>("container", &container)?,
            vmid: Vmid::try_from(vmid).map_err(|error| BusError::argument("vmid", error))?,
        };
        let uid = self
            .authorise(&caller, Permission::ManageContainers)
            .await?;
        let _one_at_a_time = self.attaching.lock().await;
        self.look_again().await;
        let observed = self.observe().await;
        let known = self.files(bindings::list).await?;
        let plan = attach::plan(&wanted, &observed, &known)?;
        let resource = format!("ovs:{}/{}", plan.add.bridge, plan.add.port);
        let arguments = json!({"ifname": wanted.device.as_str(), "container": wanted.container.as_str(), "vmid": vmid});
        self.on_behalf(uid, "CreateContainerInterface", &resource, arguments)
            .await?;
        if let Some(rename) = &plan.rename {
            self.act(rename.clone()).await?;
        }
        let reply = self.act(plan.add.clone()).await?;
        let binding = Binding {
            vmid: wanted.vmid,
            index: plan.index,
            device: plan.add.port.clone(),
            bridge: plan.add.bridge.clone(),
            container: wanted.container,
            created: now(),
        };
        let written = {
            let binding = binding.clone();
            self.files(move |layout| bindings::write(layout, &binding))
                .await
        };
        if let Err(error) = written {
            if !plan.attached_before {
                self.take_back(plan.add.bridge, plan.add.port).await;
            }
            return Err(error);
        }
        Ok(answers::binding_answer(&self.layout, &binding, ofport(&reply)).to_string())
    }

    /// Half an attachment is none.
    async fn take_back(&self, bridge: SwitchIfName, port: SwitchIfName) {
        if let Err(error) = self
            .act(OvsDelPort {
                bridge,
                port: port.clone(),
            })
            .await
        {
            log::error(
                "a port whose binding could not be written stays on the switch",
                &[("port", &port), ("error", &error)],
            );
        }
    }

    pub(super) async fn remove_container_interface(
        &self,
        caller: Caller,
        ifname: String,
    ) -> Answer<()> {
        let _ticket = self.enter(&caller).await?;
        let name: SwitchIfName = read("ifname", &ifname)?;
        let uid = self
            .authorise(&caller, Permission::ManageContainers)
            .await?;
        let _one_at_a_time = self.attaching.lock().await;
        self.look_again().await;
        let known = {
            let name = name.clone();
            self.files(move |layout| bindings::find(layout, name.as_str()))
                .await?
        };
        // By the binding; without one by the device of that name, as long as its port belongs to a machine.
        let device = match &known {
            Some(binding) => binding.device.clone(),
            None => self.device_called(&name).await?,
        };
        let switch = self.switch().await?;
        // The switch says whose a port is. A binding may be older: the device can have become another machine's since.
        let found = switch
            .port(device.as_str())
            .filter(|(_, port)| attach::is_of(port, known.as_ref()));
        let on = match found {
            Some((bridge, _)) => Some(read::<SwitchIfName>("the port's bridge", &bridge.name)?),
            None => None,
        };
        if on.is_none() && known.is_none() {
            return Err(BusError::NotFound(format!(
                "no container's interface is called {name}"
            )));
        }
        let resource = format!(
            "ovs:{}/{device}",
            on.as_ref().map_or("-", SwitchIfName::as_str)
        );
        self.on_behalf(
            uid,
            "RemoveContainerInterface",
            &resource,
            json!({"ifname": name.as_str()}),
        )
        .await?;
        if let Some(bridge) = on {
            let gone = self
                .act(OvsDelPort {
                    bridge,
                    port: device,
                })
                .await;
            if let Err(error) = gone
                && error.code() != Some(ErrorCode::NotFound)
            {
                return Err(error.into());
            }
        }
        if let Some(Binding { vmid, index, .. }) = known {
            self.files(move |layout| bindings::remove(layout, vmid, index))
                .await?;
        }
        Ok(())
    }

    async fn device_called(&self, name: &SwitchIfName) -> Answer<SwitchIfName> {
        let observed = self.observe().await;
        match observed.link(name.as_str()) {
            Some(link) => read("the device's name", &link.name),
            // Its device may be gone and the port left.
            None => Ok(name.clone()),
        }
    }

    /// Work on the files of bindings.
    async fn files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Layout) -> Result<T, bindings::BindingError> + Send + 'static,
    ) -> Answer<T> {
        let layout = self.layout.clone();
        Ok(tokio::task::spawn_blocking(move || work(&layout)).await??)
    }

    // --- properties ----------------------------------------------------------------------------------------------

    pub(super) fn height(&self) -> u64 {
        self.height.load(Ordering::Relaxed)
    }

    pub(super) fn set_height(&self, height: u64) {
        self.height.store(height, Ordering::Relaxed);
    }

    /// `proxmox` or `embedded`; asked of the agent once, `unknown` until it answers.
    pub(super) async fn backend(&self) -> String {
        let known = self
            .backend
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(backend) = known {
            return backend;
        }
        let info = Action::from(AgentInfo {});
        match agent_backend(call_once(&self.layout, &info)).await {
            Some(backend) => {
                let mut known = self.backend.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(backend).clone()
            }
            None => "unknown".to_owned(),
        }
    }
}

async fn agent_backend(asked: impl Future<Output = Result<Reply, CallError>>) -> Option<String> {
    asked
        .await
        .ok()?
        .extra
        .get("backend")?
        .as_str()
        .map(str::to_owned)
}

fn no_switch() -> BusError {
    BusError::Unavailable("there is no switch: Open vSwitch is not running".to_owned())
}

fn ofport(reply: &Reply) -> Option<u64> {
    reply.extra.get("ofport").and_then(Value::as_u64)
}

/// Why there is no such bridge: because it is not there, or because nobody could look.
fn missing(observed: &Observed, bridge: &str) -> BusError {
    let shown = blockhost_proto::escape::shown(bridge);
    match observed
        .problems
        .iter()
        .find(|problem| problem.part == "switch")
    {
        Some(problem) => BusError::Unavailable(super::error::sentence(&problem.what)),
        None => BusError::NotFound(format!("there is no bridge {shown} on this host")),
    }
}

/// RFC 3339 in whole seconds.
fn now() -> String {
    let now = jiff::Timestamp::now();
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
