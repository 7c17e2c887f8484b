//! The main job on real components: chain, agent, engine, a real Debian guest. The scenario asserts every step; here it
//! runs while hostile clients hammer the agent, and a second purchase loses its engine in the middle and is cancelled.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blockhost_proto::corpus::hostile_requests;
use blockhost_tests::command::{run, with_args};
use blockhost_tests::customer::{encrypt_to_server, poll};
use blockhost_tests::namespace::{find, test_ran_inside};
use blockhost_tests::report::{Report, Style};
use blockhost_tests::scenario::{self, DAYS, Host, ScenarioError};
use blockhost_tests::world::services::start_engine;
use blockhost_tests::world::{self, PROGRAMS, built_programs};

/// Template build, two boots and their ends without KVM, on a machine that does other things as well.
const LIMIT: Duration = Duration::from_secs(1200);
/// Kept between runs of the tests for the template in it; the rest is made anew.
const PLACE: &str = "/var/tmp/blockhost-tests";

/// Sends the whole list again and again until told to stop.
struct Attack {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    thread: JoinHandle<Vec<String>>,
}

impl Attack {
    fn start(socket: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU32::new(0));
        let (socket, stopped, count) =
            (socket.to_owned(), Arc::clone(&stop), Arc::clone(&answered));
        let thread = thread::spawn(move || {
            let mut wrong = Vec::new();
            for hostile in hostile_requests().iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                match code_of(&socket, &hostile.bytes) {
                    Ok(code) if code == hostile.expected_code.as_str() => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(code) => wrong.push(format!("{}: {code}", hostile.name)),
                    Err(error) => wrong.push(format!("{}: {error}", hostile.name)),
                }
                // Hostile, not a load test: the guest needs the processor.
                thread::sleep(Duration::from_millis(20));
            }
            wrong
        });
        Self {
            stop,
            answered,
            thread,
        }
    }

    fn end(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        let wrong = self.thread.join().expect("the attacker does not panic");
        assert!(
            wrong.is_empty(),
            "hostile requests were answered wrongly:\n{}",
            wrong.join("\n")
        );
        self.answered.load(Ordering::Relaxed)
    }
}

fn code_of(socket: &Path, bytes: &[u8]) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    // The agent may close before it has read all of a frame that is too long.
    let _ = stream.write_all(bytes);
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut body)?;
    let answer: serde_json::Value = serde_json::from_slice(&body)?;
    Ok(answer["code"].as_str().unwrap_or("success").to_owned())
}

fn possible() -> Result<(), String> {
    for program in ["qemu-system-x86_64", "mmdebstrap", "ssh"] {
        find(program)
            .ok_or_else(|| format!("{program} is not installed; run: bash scripts/setup.sh"))?;
    }
    world::possible(PROGRAMS)
}

#[test]
fn a_paid_subscription_becomes_a_machine_and_ends_while_hostile_clients_hammer_the_agent() {
    const NAME: &str =
        "a_paid_subscription_becomes_a_machine_and_ends_while_hostile_clients_hammer_the_agent";
    if let Err(reason) = possible() {
        println!("skipped: {reason}");
        return;
    }
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(NAME, &init, LIMIT) {
        return;
    }
    let mut report = Report::new(Style::Plain);
    let mut host = scenario::open_host(Path::new(PLACE), &built_programs(), &mut report)
        .expect("the host opens");
    let attack = Attack::start(&host.world.layout.agent_socket());
    let outcome = scenario::business(&mut host, &mut report).expect("the whole main job");
    let hostile = attack.end();
    assert!(
        hostile > 100,
        "only {hostile} hostile requests were sent meanwhile"
    );
    assert_eq!(outcome.purchase.subscription, 1);
    assert_eq!(outcome.record.name, "blockhost-001");
    assert_eq!(outcome.guest.hostname, "blockhost-001");
    assert_eq!(outcome.nft_token_id, 0);

    nothing_needs_anybody(&host).expect("one screen");
    an_administrator_knocks(&host).expect("the port opens and closes");
    cancelled_after_a_crash(&mut host).expect("the second purchase");
    let world = host.close().expect("everything ends when asked");
    world.remove().expect("nothing is left but the template");
}

/// `blockhost status` on a host that sells machines: everything can be read, nothing needs anybody, exit code 0.
fn nothing_needs_anybody(host: &Host) -> Result<(), ScenarioError> {
    let status = host
        .world
        .run("blockhost", &["status", "--json"], Duration::from_secs(60))?;
    let status: serde_json::Value = serde_json::from_str(status.stdout.trim()).expect("JSON");
    assert_eq!(status["attention"], serde_json::json!([]), "{status}");
    assert_eq!(status["engine_running"], true, "{status}");
    assert_eq!(status["agent"]["backend"], "embedded", "{status}");
    assert!(
        status["ledger"]["size"]
            .as_u64()
            .is_some_and(|size| size > 0),
        "{status}"
    );
    Ok(())
}

/// A transaction of the administrator's wallet, sealed by a stranger's code, opens a port of the real firewall for five
/// seconds.
fn an_administrator_knocks(host: &Host) -> Result<(), ScenarioError> {
    let rules = |tool: &str| {
        let listed = run(with_args(tool, &[]), Duration::from_secs(10));
        let text = listed.expect("the firewall can be listed").stdout;
        let marked = text.lines().filter(|line| line.contains("blockhost-knock"));
        marked.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(rules("iptables-save").is_empty());
    let key =
        std::fs::read_to_string(host.world.layout.etc().join("server.pubkey")).expect("there");
    let key = hex::decode(key.trim().trim_start_matches("0x")).expect("hexadecimal");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let message = serde_json::json!({
        "command": "let-me-in",
        "params": {"ports": [22], "source": "192.0.2.7"},
        "nonce": "one",
        "timestamp": now.as_secs(),
    });
    let sealed = encrypt_to_server(&key, message.to_string().as_bytes())?;
    // A fresh one: the engine sends from this account too, and a wallet counts its own transactions.
    host.owner()?.send_data(host.operator.address(), sealed)?;
    let late = |what: &'static str| move || ScenarioError::Wrong(what.to_owned());
    poll(
        Duration::from_secs(60),
        late("the port was not opened"),
        || Ok((!rules("iptables-save").is_empty()).then_some(())),
    )?;
    let open = rules("iptables-save");
    assert!(
        open.len() == 1 && open[0].contains("192.0.2.7") && open[0].contains("--dport 22"),
        "{open:?}"
    );
    assert!(
        rules("ip6tables-save").is_empty(),
        "the other family has no such source"
    );
    poll(
        Duration::from_secs(60),
        late("the port was not closed"),
        || Ok(rules("iptables-save").is_empty().then_some(())),
    )?;
    Ok(())
}

/// The engine is killed while the machine is being made; started again, it finishes with one machine and one
/// credential, as large as the plan was when it was bought. Then the customer cancels, and the machine goes at once.
fn cancelled_after_a_crash(host: &mut Host) -> Result<(), ScenarioError> {
    let contract = host.contracts.subscriptions;
    let usual = host.plan;
    host.plan = host.owner()?.make_plan(contract, "large", 250)?;
    let settings = host.world.layout.etc().join("blockhost.yaml");
    let before = std::fs::read_to_string(&settings).expect("readable");
    let sell = |size: &str| {
        let plans = format!("plans:\n  {}: {size}\n", host.plan);
        std::fs::write(&settings, before.clone() + &plans).expect("written");
    };
    sell("{cores: 2, memory_mb: 1152, disk_gb: 11}");
    assert_ne!(usual, host.plan);
    let customer = host.new_customer()?;
    let purchase = host.buy(&customer, DAYS)?;
    let name = format!("blockhost-{:03}", purchase.subscription);
    // The machine runs, and its guest will not answer for a while: the middle of its creation. The first one is gone.
    let late = || ScenarioError::Wrong(format!("no machine {name} appeared"));
    poll(Duration::from_secs(200), late, || {
        Ok(scenario::any_machine_runs(&host.world)?.then_some(()))
    })?;
    host.engine.kill();
    assert!(
        customer.credential(host.contracts.nft)?.is_none(),
        "it was finished before it could be killed"
    );
    sell("{cores: 1, memory_mb: 640}");
    host.engine = start_engine(&host.world)?;
    let (token, _) = host.credential(&customer, Duration::from_secs(400))?;
    assert_eq!(token, 1);
    assert_eq!(
        host.operator.credentials_in_all(host.contracts.nft)?,
        2,
        "minted twice"
    );
    let record = scenario::record(&host.world, &name)?.expect("it is in the database");
    assert_eq!(record.status, "active");
    assert_eq!(
        scenario::backend_state(&host.world, record.vmid)?.as_deref(),
        Some("running")
    );
    for (key, bought) in [("cores", "2"), ("memory", "1152")] {
        let has = scenario::backend_config(&host.world, record.vmid, key)?;
        assert_eq!(has, bought, "{key}");
    }
    let disk = scenario::backend_config(&host.world, record.vmid, "scsi0")?;
    assert!(disk.contains("size=11G"), "{disk}");

    let refused = customer.cancel(contract, purchase.subscription);
    assert!(refused.is_err(), "cancelling is the contract owner's right");
    host.owner()?.cancel(contract, purchase.subscription)?;
    let late = || ScenarioError::Wrong(format!("{name} was not destroyed after it was cancelled"));
    poll(Duration::from_secs(120), late, || {
        let status = scenario::record(&host.world, &name)?.map(|record| record.status);
        Ok((status.as_deref() == Some("destroyed")).then_some(()))
    })?;
    assert_eq!(
        scenario::backend_state(&host.world, record.vmid)?,
        None,
        "the machine is still there"
    );
    Ok(())
}
