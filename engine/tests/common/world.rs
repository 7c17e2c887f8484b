//! A host in a directory: configuration, keys, a provisioner of small scripts, something that answers on the agent's
//! socket, a chain with contracts, and the engine's real binary.

mod stand_ins;

use super::{Anvil, KEYS, address, done, program, wallet};
use alloy::primitives::{Address, Bytes, U256};
use alloy::providers::DynProvider;
use blockhost_engine::chain::bindings::{AccessCredentialNFT, BlockhostSubscriptions, MockUSD};
use blockhost_engine::crypto::ecies;
use blockhost_engine::crypto::keys::PrivateKey;
use blockhost_proto::layout::Layout;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What buyers sign.
pub const PUBLIC_SECRET: &str = "blockhost test secret";

/// Where a crash is wanted, once.
pub type CrashAt = Arc<Mutex<Option<&'static str>>>;

/// The host.
pub struct World {
    pub dir: tempfile::TempDir,
    pub layout: Layout,
    pub anvil: Anvil,
    pub owner: DynProvider,
    pub pos: Address,
    pub nft: Address,
    pub usd: Address,
    server_key: PrivateKey,
    crash_at: CrashAt,
    events: Arc<Mutex<Vec<serde_json::Value>>>,
}

impl World {
    /// Makes one, or says why the test is skipped. The engine reaches the chain through a relay that can kill it.
    pub async fn new() -> Option<Self> {
        let anvil = Anvil::start(&[])?;
        let Some(node) = node() else {
            eprintln!("skipped: no node in PATH for the test provisioner");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let owner = anvil.account(0);
        let pos = *BlockhostSubscriptions::deploy(owner.clone())
            .await
            .unwrap()
            .address();
        let nft = *AccessCredentialNFT::deploy(owner.clone(), "C".into(), "C".into())
            .await
            .unwrap()
            .address();
        let usd = *MockUSD::deploy(owner.clone(), "USD".into(), "USD".into(), 6)
            .await
            .unwrap()
            .address();
        let crash_at = CrashAt::default();
        let events = Arc::default();
        let world = Self {
            dir,
            layout,
            anvil,
            owner,
            pos,
            nft,
            usd,
            server_key: PrivateKey::generate().unwrap(),
            crash_at,
            events,
        };
        world.open_shop().await;
        for made in [
            world.layout.etc(),
            world.layout.state(),
            world.layout.run(),
            world
                .layout
                .provisioner_manifest()
                .parent()
                .unwrap()
                .to_owned(),
        ] {
            std::fs::create_dir_all(made).unwrap();
        }
        world.write_provisioner(&node);
        let relay = world.start_relay();
        world.write_config(&format!("http://127.0.0.1:{relay}"));
        world.start_agent();
        Some(world)
    }

    async fn open_shop(&self) {
        let pos = BlockhostSubscriptions::new(self.pos, self.owner.clone());
        done(pos.setPrimaryStablecoin(self.usd).send()).await;
        done(pos.createPlan("small".into(), U256::from(50)).send()).await;
        let usd = MockUSD::new(self.usd, self.owner.clone());
        done(usd.mint(address(1), U256::from(1_000_000_000u64)).send()).await;
        let usd = MockUSD::new(self.usd, self.anvil.account(1));
        done(usd.approve(self.pos, U256::MAX).send()).await;
    }

    fn write_config(&self, rpc: &str) {
        let etc = self.layout.etc();
        let write = |name: &str, text: &str| std::fs::write(etc.join(name), text).unwrap();
        write("server.key", &self.server_key.to_hex());
        write("deployer.key", KEYS[0]);
        write(
            "web3-defaults.yaml",
            &format!(
                "blockchain:\n  chain_id: 31337\n  rpc_url: '{rpc}'\n  nft_contract: '{}'\n  subscription_contract: '{}'\n  poll_interval_s: 1\ndeployer:\n  private_key_file: '/etc/blockhost/deployer.key'\n",
                self.nft, self.pos
            ),
        );
        write(
            "blockhost.yaml",
            "server: {key_file: '/etc/blockhost/server.key'}\nengine: {first_retry_s: 1, max_attempts: 3}\n",
        );
        write(
            "db.yaml",
            "db_file: /var/lib/blockhost/vms.json\nvmid_range: {start: 100, end: 999}\nip_pool: {network: '10.77.0.0/24', start: 100, end: 200, gateway: '10.77.0.1'}\n",
        );
    }

    /// Adds a line to the engine's section of the configuration.
    pub fn set_engine(&self, line: &str) {
        let text = format!(
            "server: {{key_file: '/etc/blockhost/server.key'}}\nengine:\n  first_retry_s: 1\n  max_attempts: 3\n  {line}\n"
        );
        std::fs::write(self.layout.etc().join("blockhost.yaml"), text).unwrap();
    }

    fn write_provisioner(&self, node: &Path) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/provisioner.mjs");
        let mut commands = serde_json::Map::new();
        for verb in ["create", "resume", "destroy", "update-gecos"] {
            let path = self.dir.path().join(verb);
            // Under the lock of the machines' database, like every program that changes it.
            let lock = self.layout.state().join("vms.json.lock");
            let text = format!(
                "#!/bin/sh\nexec flock '{}' '{}' '{}' {verb} \"$@\"\n",
                lock.display(),
                node.display(),
                script.display()
            );
            super::install_script(&text, &path);
            commands.insert(verb.into(), path.display().to_string().into());
        }
        let manifest = serde_json::json!({"name": "scripts", "version": "1", "display_name": "Test", "commands": commands, "setup": {}, "root_agent_actions": [], "config_keys": []});
        std::fs::write(self.layout.provisioner_manifest(), manifest.to_string()).unwrap();
    }

    /// Makes the next matching moment the last of the engine: a verb's "before" or "after", "rpc:<method>:before|after",
    /// "ledger:before|after".
    pub fn crash_once(&self, at: &'static str) {
        let verb = at.split(':').next().unwrap();
        if matches!(verb, "rpc" | "ledger") {
            *self.crash_at.lock().unwrap() = Some(at);
        } else {
            std::fs::write(self.dir.path().join("crash"), at).unwrap();
        }
    }

    /// True once the crash that was asked for has happened.
    pub fn has_crashed(&self) -> bool {
        self.crash_at.lock().unwrap().is_none() && !self.dir.path().join("crash").exists()
    }

    /// Configures where the chain is asked, and how often by itself.
    pub fn set_endpoints(&self, poll_interval_s: u64, urls: &[String]) {
        let path = self.layout.etc().join("web3-defaults.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let list: Vec<String> = urls.iter().map(|url| format!("'{url}'")).collect();
        let lines: Vec<String> = text
            .lines()
            .filter(|line| !line.starts_with("  rpc_url"))
            .map(|line| {
                if line.starts_with("  poll_interval_s:") {
                    let list = list.join(", ");
                    format!("  poll_interval_s: {poll_interval_s}\n  rpc_urls: [{list}]")
                } else {
                    line.to_owned()
                }
            })
            .collect();
        std::fs::write(path, lines.join("\n") + "\n").unwrap();
    }

    /// Starts the engine's binary.
    pub fn engine(&self, args: &[&str]) -> Running {
        self.engine_with(args, &[])
    }

    /// Starts it with more in its environment.
    pub fn engine_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Running {
        let log = self.dir.path().join("engine.log");
        let stderr = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = program(env!("CARGO_BIN_EXE_blockhost-engine"))
            .args(args)
            .env("BLOCKHOST_ROOT", self.dir.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        std::fs::write(self.dir.path().join("engine.pid"), child.id().to_string()).unwrap();
        Running { child, log }
    }

    /// Runs `blockhost` and gives its stdout.
    pub fn operator(&self, args: &[&str]) -> String {
        let done = program(env!("CARGO_BIN_EXE_blockhost"))
            .args(args)
            .env("BLOCKHOST_ROOT", self.dir.path())
            .output()
            .unwrap();
        String::from_utf8(done.stdout).unwrap()
    }

    /// All jobs, oldest first.
    pub fn jobs(&self) -> Vec<serde_json::Value> {
        let mut jobs: Vec<serde_json::Value> =
            serde_json::from_str(&self.operator(&["jobs", "--json"])).unwrap();
        jobs.reverse();
        jobs
    }

    /// State of the job of an event.
    pub fn state_of(&self, event: &str) -> String {
        let job = self
            .jobs()
            .into_iter()
            .find(|job| job["event"] == event)
            .unwrap_or_else(|| panic!("no job for {event}"));
        job["state"].as_str().unwrap().to_owned()
    }

    /// What the provisioner's scripts did.
    pub fn effects(&self) -> Vec<String> {
        std::fs::read_to_string(self.dir.path().join("effects"))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// The record of a machine.
    pub fn machine(&self, name: &str) -> serde_json::Value {
        let text = std::fs::read_to_string(self.layout.state().join("vms.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["vms"][name].clone()
    }

    /// Changes the record of a machine, as another program would.
    pub fn change_machine(&self, name: &str, key: &str, value: serde_json::Value) {
        let path = self.layout.state().join("vms.json");
        let mut all: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        all["vms"][name][key] = value;
        std::fs::write(path, all.to_string()).unwrap();
    }

    /// The engine's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("engine.log")).unwrap_or_default()
    }

    /// Events that reached the agent, in order.
    pub fn recorded(&self) -> Vec<String> {
        self.events
            .lock()
            .unwrap()
            .iter()
            .map(|event| event["action"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The same, whole.
    pub fn recorded_events(&self) -> Vec<serde_json::Value> {
        self.events.lock().unwrap().clone()
    }

    /// Configures where the ledger is anchored, and when.
    pub fn set_anchor(&self, contract: Address, settings: &str) {
        self.set_engine(&format!(
            "max_fee_gwei: 1000\nledger_anchor: {{look_every_s: 1, {settings}}}"
        ));
        let path = self.layout.etc().join("web3-defaults.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let key = format!("  poll_interval_s: 1\n  ledger_anchor_contract: '{contract}'\n");
        std::fs::write(path, text.replace("  poll_interval_s: 1\n", &key)).unwrap();
    }

    /// The signature of the customer.
    pub fn signature(&self) -> [u8; 65] {
        wallet(1).sign_message(PUBLIC_SECRET.as_bytes()).unwrap()
    }

    /// What is encrypted to this host with.
    pub fn server_public_key(&self) -> blockhost_engine::crypto::keys::PublicKey {
        self.server_key.public_key()
    }

    /// What the signup page sends: the signature as text, encrypted to the server.
    pub fn user_encrypted(&self) -> Vec<u8> {
        let text = format!("0x{}", hex::encode(self.signature()));
        ecies::encrypt(&self.server_key.public_key(), text.as_bytes()).unwrap()
    }

    /// The customer buys.
    pub async fn buy(&self, days: u64, user_encrypted: Vec<u8>) {
        let pos = BlockhostSubscriptions::new(self.pos, self.anvil.account(1));
        done(
            pos.buySubscription(
                U256::from(1),
                U256::from(days),
                U256::from(1),
                Bytes::from(user_encrypted),
            )
            .send(),
        )
        .await;
    }

    /// The customer extends.
    pub async fn extend(&self, id: u64, days: u64) {
        let pos = BlockhostSubscriptions::new(self.pos, self.anvil.account(1));
        done(
            pos.extendSubscription(U256::from(id), U256::from(days), U256::from(1))
                .send(),
        )
        .await;
    }

    /// The owner cancels.
    pub async fn cancel(&self, id: u64) {
        // A fresh one: the engine sends from this account too, and this side remembers nonces.
        let pos = BlockhostSubscriptions::new(self.pos, self.anvil.account(0));
        done(pos.cancelSubscription(U256::from(id)).send()).await;
    }

    /// How many credentials there are.
    pub async fn minted(&self) -> u64 {
        AccessCredentialNFT::new(self.nft, self.owner.clone())
            .totalSupply()
            .call()
            .await
            .unwrap()
            .to()
    }
}

/// A started engine; ends with its test.
pub struct Running {
    pub child: Child,
    log: PathBuf,
}

impl Running {
    /// Asks it to end in good order, as systemd does.
    pub fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for its end. Prints the log when it does not come.
    pub fn wait(&mut self, limit: Duration) -> std::process::ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the engine did not end; its log:\n{}",
                std::fs::read_to_string(&self.log).unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn node() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join("node"))
        .find(|path| path.is_file())
}
