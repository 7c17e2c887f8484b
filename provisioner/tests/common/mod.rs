//! A world in a temporary directory, and a recorder in the agent's place: it keeps machines in memory, writes down what
//! it is asked, and fails where a test says so. The real agent and backend are met in the end-to-end tests.

#![allow(dead_code, reason = "each test program uses its part")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use blockhost_proto::action::Action;
use blockhost_proto::client::{CallError, Reply};
use blockhost_proto::{ErrorCode, Layout};
use blockhost_provisioner::agent::Agent;
use blockhost_provisioner::backend::ActionsBackend;
use blockhost_provisioner::cloudinit::Source;
use blockhost_provisioner::config::Config;
use blockhost_provisioner::create::World;
use blockhost_provisioner::plan::CreateRequest;
use blockhost_provisioner::signals::Interrupt;
use blockhost_provisioner::store::{JsonStore, Pools};
use serde_json::{Map, json};

/// What the recorder knows of a machine.
#[derive(Debug, Clone)]
pub struct FakeMachine {
    pub name: String,
    pub running: bool,
    pub template: bool,
    /// Whether it starts with the host.
    pub onboot: bool,
}

type Deed = Box<dyn FnOnce()>;

/// What happens beside it, once, as soon as this action was done.
#[derive(Default)]
pub struct Meanwhile(RefCell<Option<(&'static str, Deed)>>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

/// The recorder.
#[derive(Debug, Default)]
pub struct Recorder {
    meanwhile: Meanwhile,
    pub machines: RefCell<BTreeMap<u32, FakeMachine>>,
    /// Numbers of containers, which the list of them does not always name.
    pub containers: RefCell<Vec<u32>>,
    pub hidden: RefCell<Vec<u32>>,
    pub routes: RefCell<Vec<String>>,
    pub asked: RefCell<Vec<&'static str>>,
    /// The action that fails, every time.
    pub broken: RefCell<Vec<&'static str>>,
    /// How they fail; refused, unless something else is said here.
    pub breaks_with: RefCell<Option<fn() -> CallError>>,
    /// Raised when this action was done.
    pub interrupt_after: RefCell<Option<(&'static str, Interrupt)>>,
    pub snippets: std::path::PathBuf,
    /// Machines that were made and not cloned, as they stand in the request.
    pub created: RefCell<Vec<serde_json::Value>>,
    /// Limits that were asked for, as they stand in the request.
    pub limits: RefCell<Vec<serde_json::Value>>,
    /// How often counters were asked for: one second passes between two.
    pub looks: std::cell::Cell<u64>,
}

pub fn refused(code: ErrorCode, message: &str) -> CallError {
    CallError::Refused {
        code,
        message: message.to_owned(),
    }
}

fn said(output: impl ToString) -> Reply {
    Reply {
        output: output.to_string(),
        receipt: None,
        extra: Map::new(),
    }
}

impl Recorder {
    pub fn after(&self, action: &'static str, deed: impl FnOnce() + 'static) {
        *self.meanwhile.0.borrow_mut() = Some((action, Box::new(deed)));
    }

    fn nonce_of(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.snippets.join(format!("{name}-user.yaml")))
            .unwrap_or_default();
        let rest = text.split("printf %s ").nth(1).unwrap_or_default();
        rest.split(' ').next().unwrap_or_default().to_owned()
    }
}

impl Agent for &Recorder {
    fn call(&self, action: &Action, _: Option<Duration>) -> Result<Reply, CallError> {
        let name = action.name();
        self.asked.borrow_mut().push(name);
        if self.broken.borrow().contains(&name) {
            let refused = || refused(ErrorCode::Failed, "broken on purpose");
            return Err(self.breaks_with.borrow().map_or_else(refused, |how| how()));
        }
        let mut machines = self.machines.borrow_mut();
        let absent = || refused(ErrorCode::NotFound, "no such machine");
        let reply = match action {
            Action::QmList(_) => {
                let rows = machines
                    .iter()
                    .map(|(vmid, m)| json!({"vmid": vmid, "name": m.name, "status": "running"}));
                said(rows.collect::<serde_json::Value>())
            }
            Action::PctList(_) => {
                let list = self.containers.borrow();
                said(
                    list.iter()
                        .map(|vmid| json!({"vmid": vmid}))
                        .collect::<serde_json::Value>(),
                )
            }
            Action::QmCreate(a) => {
                self.created.borrow_mut().push(action.params());
                machines.insert(
                    a.vmid.get(),
                    FakeMachine {
                        name: a.name.to_string(),
                        running: false,
                        template: false,
                        onboot: false,
                    },
                );
                said("")
            }
            Action::QmTemplate(a) => {
                machines.get_mut(&a.vmid.get()).ok_or_else(absent)?.template = true;
                said("")
            }
            Action::QmImportdisk(a) => {
                let mut reply = said("");
                let volume = format!("local:{vmid}/vm-{vmid}-disk-0.qcow2", vmid = a.vmid);
                reply.extra.insert("volume".into(), volume.into());
                reply
            }
            Action::QmClone(a) => {
                let vmid = a.newid.get();
                let container = [&self.containers, &self.hidden]
                    .iter()
                    .any(|list| list.borrow().contains(&vmid));
                if container || machines.contains_key(&vmid) {
                    let message = format!(
                        "unable to create VM {vmid} - CT {vmid} already exists on node 'pve'"
                    );
                    return Err(refused(ErrorCode::Conflict, &message));
                }
                machines.insert(
                    a.newid.get(),
                    FakeMachine {
                        name: a.name.to_string(),
                        running: false,
                        template: false,
                        onboot: false,
                    },
                );
                said("")
            }
            Action::QmConfig(a) => {
                let m = machines.get(&a.vmid.get()).ok_or_else(absent)?;
                let template = if m.template { "1" } else { "0" };
                let disk = if m.template {
                    ""
                } else {
                    "local:9000/base-9000-disk-0.qcow2/"
                };
                let disk = format!(
                    "{disk}{vmid}/vm-{vmid}-disk-0.qcow2,size=10G",
                    vmid = a.vmid
                );
                said(json!({"name": m.name, "template": template, "scsi0": disk}))
            }
            Action::QmStatus(a) => {
                let m = machines.get(&a.vmid.get()).ok_or_else(absent)?;
                said(json!({"status": if m.running { "running" } else { "stopped" }}))
            }
            Action::QmSet(a) => {
                let machine = machines.get_mut(&a.vmid.get()).ok_or_else(absent)?;
                let options = action.params()["options"].clone();
                if let Some(onboot) = options.get("onboot") {
                    machine.onboot = onboot == "1" || *onboot == 1;
                }
                said("")
            }
            Action::QmStart(a) => {
                machines.get_mut(&a.vmid.get()).ok_or_else(absent)?.running = true;
                said("")
            }
            Action::QmStop(a) => {
                machines.get_mut(&a.vmid.get()).ok_or_else(absent)?.running = false;
                said("")
            }
            Action::QmShutdown(a) => {
                machines.get_mut(&a.vmid.get()).ok_or_else(absent)?.running = false;
                said("")
            }
            Action::QmDestroy(a) => {
                machines.remove(&a.vmid.get()).ok_or_else(absent)?;
                said("")
            }
            Action::VmThrottle(_) => {
                self.limits.borrow_mut().push(action.params());
                said("")
            }
            Action::QmMetrics(a) => {
                let look = self.looks.get() + 1;
                self.looks.set(look);
                let rows = machines
                    .iter()
                    .filter(|(vmid, m)| a.vmid.map_or(!m.template, |only| only.get() == **vmid))
                    .map(|(vmid, m)| counters(*vmid, m, look));
                said(rows.collect::<serde_json::Value>())
            }
            Action::Ip6RouteAdd(a) => {
                let address = a.address.to_string();
                let mut routes = self.routes.borrow_mut();
                // As the agent: one that is there is fine.
                if !routes.contains(&address) {
                    routes.push(address);
                }
                said("")
            }
            Action::Ip6RouteDel(a) => {
                let address = a.address.to_string();
                let mut routes = self.routes.borrow_mut();
                let at = routes
                    .iter()
                    .position(|r| *r == address)
                    .ok_or_else(absent)?;
                routes.remove(at);
                said("")
            }
            Action::QmGuestExec(a) => {
                let name = machines.get(&a.vmid.get()).ok_or_else(absent)?.name.clone();
                let mut reply = said("exit code 0");
                reply.extra.insert("exitcode".into(), 0.into());
                reply
                    .extra
                    .insert("stdout".into(), self.nonce_of(&name).into());
                reply
            }
            _ => said(""),
        };
        if let Some((after, interrupt)) = &*self.interrupt_after.borrow()
            && *after == name
        {
            interrupt.raise();
        }
        let deed = self
            .meanwhile
            .0
            .borrow_mut()
            .take_if(|(after, _)| *after == name);
        if let Some((_, deed)) = deed {
            deed();
        }
        Ok(reply)
    }
}

fn counters(vmid: u32, machine: &FakeMachine, look: u64) -> serde_json::Value {
    json!({
        "vmid": vmid, "name": machine.name, "state": if machine.running { "running" } else { "stopped" },
        "at_ms": look * 1000, "started": if machine.running { 7 } else { 0 }, "uptime_s": look, "cpus": 1,
        "cpu_ms": look * 10, "memory_used": 1 << 20, "memory_total": 2 << 20, "disk_used": 0, "disk_total": 0,
        "disk_reads": look, "disk_writes": look, "disk_read_bytes": look * 1000, "disk_written_bytes": look,
        "net_in_bytes": null, "net_out_bytes": null, "net_connections": null, "guest_agent": true,
    })
}

/// A world with a database, a template at 9000 and no agent.
pub struct TestWorld {
    pub directory: tempfile::TempDir,
    pub layout: Layout,
    pub config: Config,
    pub store: JsonStore,
    pub recorder: Recorder,
    pub interrupt: Interrupt,
}

pub const DB_YAML: &str = "db_file: /var/lib/blockhost/vms.json
vmid_range: {start: 100, end: 109}
ip_pool: {network: 10.77.0.0/24, start: 100, end: 120, gateway: 10.77.0.1}
ipv6_pool: {start: 16, end: 64}
";

impl TestWorld {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        for path in [layout.etc(), layout.state(), layout.run()] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::write(layout.etc().join("db.yaml"), DB_YAML).unwrap();
        let broker = "{\"prefix\": \"fd77:b10c::/64\", \"gateway\": \"fd77:b10c::1\"}";
        std::fs::write(layout.etc().join("broker-allocation.json"), broker).unwrap();
        let config = Config::load(&layout).unwrap();
        let store = JsonStore::new(&config.db.db_file, Pools::of(&config));
        let recorder = Recorder {
            snippets: layout.snippets(),
            ..Recorder::default()
        };
        let template = FakeMachine {
            name: "blockhost-template".into(),
            running: false,
            template: true,
            onboot: false,
        };
        recorder.machines.borrow_mut().insert(9000, template);
        Self {
            directory,
            layout,
            config,
            store,
            recorder,
            interrupt: Interrupt::default(),
        }
    }

    pub fn with<T>(&self, work: impl FnOnce(&World<'_>) -> T) -> T {
        let backend = ActionsBackend::new(&self.recorder);
        work(&World {
            layout: &self.layout,
            config: &self.config,
            store: &self.store,
            backend: &backend,
            interrupt: &self.interrupt,
        })
    }

    /// Nothing of any machine is left: neither at the backend nor in the database nor on disk.
    pub fn assert_empty(&self) {
        assert_eq!(
            self.recorder
                .machines
                .borrow()
                .keys()
                .copied()
                .collect::<Vec<_>>(),
            [9000]
        );
        assert!(self.recorder.routes.borrow().is_empty());
        let snippets = std::fs::read_dir(self.layout.snippets())
            .into_iter()
            .flatten()
            .count();
        assert_eq!(snippets, 0);
        let text = std::fs::read_to_string(self.store.path()).unwrap();
        let database: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(database["allocated_ips"], json!([]));
        assert_eq!(database["allocated_ipv6"], json!([]));
        assert!(database.get("reservations").is_none());
        assert!(!self.layout.provisioning_lock().exists());
    }
}

pub fn request(name: &str) -> CreateRequest {
    CreateRequest {
        name: name.parse().unwrap(),
        wallet: "0x52908400098527886E0F7030069857D2E4169EE7"
            .parse()
            .unwrap(),
        signature: None,
        nft_token_id: None,
        expiry_days: Some(30),
        cores: None,
        memory_mib: None,
        disk_gib: None,
        purpose: String::new(),
        source: Source::Template("nft-auth".into()),
        ip: None,
        ipv6: None,
        vmid: None,
        skip_mint: true,
        mock: false,
    }
}
