//! The clients in other languages, as their users get them: types checked, package built, run against servers that break
//! every rule and against a live agent. And `blockhost agent` against the same.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use blockhost_proto::catalog;
use blockhost_tests::command::{RunError, command, install_script, run, with_args};
use blockhost_tests::namespace::{find, test_ran_inside};
use blockhost_tests::world::services::{Service, start_agent};
use blockhost_tests::world::{World, built_programs, repository};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(300);

/// `qm` of the world: each machine behaves as its number says.
const QM: &str = r#"#!/bin/sh
spin() { i=0; while [ $i -lt "$1" ]; do i=$((i+1)); done; }
long() { i=0; printf 'description: '; while [ $i -lt "$1" ]; do printf '%0100d' 0; i=$((i+1)); done; echo; }
case "$1 $2" in
"guest exec") printf '%s\n' '{"exited": 1, "exitcode": 3, "out-data": "hello\n", "err-data": ""}' ;;
"status "*) echo "status: stopped" ;;
"config 100") echo 'name: web'; echo 'description: gr%C3%BC%C3%9Fe %F0%9F%92%BE' ;;
"config 208") long 200 ;;
"config 209") long 500 ;;
"start 201") echo "Configuration file 'nodes/pve/qemu-server/201.conf' does not exist" >&2; exit 2 ;;
"start 202") echo "VM 202 already exists" >&2; exit 255 ;;
"start 203") echo "can't lock file '/var/lock/qemu-server/lock-203.conf' - got timeout" >&2; exit 255 ;;
"start 204") echo "got timeout" >&2; exit 255 ;;
"start 205") echo "kvm: no such thing" >&2; exit 1 ;;
"start 206") while :; do sleep 1; done ;;
"start 207") spin 400000 ;;
"start 210") spin 10000 ;;
*) echo "TASK OK" ;;
esac
"#;

fn clients() -> PathBuf {
    repository().join("proto/clients")
}

/// The catalog of this build as a file.
fn catalog_in(directory: &Path) -> PathBuf {
    let path = directory.join("catalog.json");
    fs::write(&path, catalog::to_json().to_string()).expect("written");
    path
}

fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("blockhost-clients-")
        .tempdir_in("/var/tmp")
        .expect("a directory")
}

/// A program that the setup script installs; `None`, with the reason printed, where it is not there.
fn optional(program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        println!("skipped: {program} is not installed; run: bash scripts/setup.sh");
    }
    found
}

/// Debian's Python, which is the one that Debian's setuptools belong to.
fn python(module: &str, catalog: &Path) -> Command {
    let home = clients().join("python");
    let mut python = command("/usr/bin/python3");
    python
        .args(["-W", "error", "-m", "unittest", "-v", module])
        .env("PYTHONPATH", format!("{0}/src:{0}/tests", home.display()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BLOCKHOST_CATALOG", catalog)
        .current_dir("/");
    python
}

fn node(file: &str, catalog: &Path) -> Option<Command> {
    let mut node = command(optional("node")?);
    node.args(["--test", "--test-reporter=tap"])
        .arg(clients().join("typescript/test").join(file))
        .env("BLOCKHOST_CATALOG", catalog)
        .current_dir("/");
    Some(node)
}

/// Runs to a success; a failure shows everything that was written.
fn pass(command: Command) -> (String, String) {
    match run(command, LIMIT) {
        Ok(output) => (output.stdout, output.stderr),
        Err(RunError::Failed { stdout, stderr, .. }) => {
            println!("{stdout}");
            panic!("{stderr}")
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_python_client_survives_servers_that_break_every_rule() {
    let directory = scratch();
    let (_, report) = pass(python("test_hostile", &catalog_in(directory.path())));
    assert!(report.contains("Ran 28 tests"), "{report}");
}

#[test]
fn the_typescript_client_survives_servers_that_break_every_rule() {
    let directory = scratch();
    let Some(node) = node("hostile.test.mjs", &catalog_in(directory.path())) else {
        return;
    };
    let (report, _) = pass(node);
    assert!(report.contains("# pass 21"), "{report}");
}

#[test]
fn the_python_client_is_typed_to_the_last_corner() {
    let Some(mypy) = optional("mypy") else {
        return;
    };
    let directory = scratch();
    let home = clients().join("python");
    let check = |more: &[&str]| {
        let mut command = command(&mypy);
        command
            .arg("--config-file")
            .arg(home.join("pyproject.toml"))
            .arg("--cache-dir")
            .arg(directory.path())
            .env("MYPYPATH", home.join("src"))
            .args(more)
            .current_dir(&home);
        command
    };
    pass(check(&["-p", "blockhost_root_agent"]));
    // What a user may write, and what mypy must object to: an ignore that is not needed is an error.
    pass(check(&["--warn-unused-ignores", "tests/consumer.py"]));
}

#[test]
fn the_typescript_client_and_its_users_pass_the_compiler() {
    let home = clients().join("typescript");
    let tsc = home.join("node_modules/.bin/tsc");
    if !tsc.is_file() {
        println!("skipped: the TypeScript compiler is not installed; run: bash scripts/setup.sh");
        return;
    }
    let mut check = command(&tsc);
    check
        .arg("-p")
        .arg(home.join("test/tsconfig.json"))
        .current_dir(&home);
    pass(check);
    // The declarations of the part written by hand are compared with those that the compiler finds in it.
    let directory = tempfile::Builder::new()
        .prefix(".declared-")
        .tempdir_in(&home)
        .expect("a directory");
    let mut emit = command(&tsc);
    emit.args([
        "--allowJs",
        "--checkJs",
        "--strict",
        "--declaration",
        "--emitDeclarationOnly",
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--outDir",
    ])
    .arg(directory.path())
    .arg("dist/transport.js")
    .current_dir(&home);
    pass(emit);
    let emitted = directory.path().join("transport.d.ts");
    let text = fs::read_to_string(&emitted).expect("declarations");
    let text = text
        .replace("\"./transport.js\"", "\"../dist/transport.js\"")
        .replace("\"./catalog.js\"", "\"../dist/catalog.js\"");
    fs::write(&emitted, text).expect("written");
    let same = directory.path().join("same.ts");
    fs::write(
        &same,
        "import * as declared from \"../dist/transport.js\";\nimport * as found from \"./transport.js\";\n\
         export const all: typeof declared = found;\n",
    )
    .expect("written");
    let mut compare = command(&tsc);
    compare
        .args([
            "--strict", "--noEmit", "--target", "es2022", "--module", "nodenext",
        ])
        .arg(&same)
        .current_dir(&home);
    pass(compare);
}

#[test]
fn the_wheel_is_built_without_a_network_and_works_where_it_is_unpacked() {
    let directory = scratch();
    let source = directory.path().join("source");
    pass(with_args(
        "cp",
        &[
            "-r",
            &clients().join("python").display().to_string(),
            &source.display().to_string(),
        ],
    ));
    let wheels = directory.path().join("wheels");
    fs::create_dir(&wheels).expect("made");
    // The hook that every PEP 517 front end calls, in a network namespace with nothing in it.
    let mut build = command("unshare");
    build
        .args(["--net", "/usr/bin/python3", "-c"])
        .arg("import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))")
        .arg(&wheels)
        .current_dir(&source);
    let (said, _) = pass(build);
    let name = said.lines().last().expect("the wheel's name");
    assert_eq!(name, "blockhost_root_agent-0.1.0-py3-none-any.whl");
    let mut import = command("/usr/bin/python3");
    import
        .args(["-I", "-c"])
        .arg(
            "import sys; sys.path.insert(0, sys.argv[1])\n\
             import blockhost_root_agent as b, importlib.resources as r\n\
             assert b.__file__.startswith(sys.argv[1]), b.__file__\n\
             assert r.files(b).joinpath('py.typed').is_file()\n\
             try: b.RootAgentClient('/nonexistent').qm_start(100)\n\
             except b.RootAgentConnectionError as e: print(e)",
        )
        .arg(wheels.join(name));
    let (said, _) = pass(import);
    assert!(
        said.contains("cannot reach the root agent at /nonexistent"),
        "{said}"
    );
}

/// A world with a running agent, or `None` in the outer process, where the test has run already.
struct Ground {
    world: World,
    agent: Service,
    directory: tempfile::TempDir,
}

fn ground(test: &str) -> Option<Ground> {
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(test, &init, LIMIT) {
        return None;
    }
    let directory = scratch();
    let programs = &["blockhost-root-agent", "blockhost-qm", "blockhost"];
    let world = World::create(directory.path(), &built_programs(), programs).expect("a world");
    world.network().expect("a bridge");
    let qm = world.bin.join("qm");
    install_script(QM, &qm).expect("installed");
    let policy = format!(
        "backend: embedded\nprograms: {{qm: {}}}\nlimits: {{response_bytes: 32768}}\n",
        qm.display()
    );
    fs::write(world.layout.agent_policy(), policy).expect("written");
    let agent = start_agent(&world).expect("the agent starts");
    Some(Ground {
        world,
        agent,
        directory,
    })
}

impl Ground {
    fn client(&self, mut command: Command) -> Command {
        command.env("BLOCKHOST_ROOT", self.world.layout.root());
        command
    }
}

#[test]
fn the_python_client_gets_every_answer_that_a_live_agent_gives() {
    let Some(mut ground) = ground("the_python_client_gets_every_answer_that_a_live_agent_gives")
    else {
        return;
    };
    let catalog = catalog_in(ground.directory.path());
    let (_, report) = pass(ground.client(python("test_live", &catalog)));
    assert!(report.contains("Ran 10 tests"), "{report}");
    ground.agent.check().expect("the agent lives");
}

#[test]
fn the_typescript_client_gets_every_answer_that_a_live_agent_gives() {
    let Some(mut ground) =
        ground("the_typescript_client_gets_every_answer_that_a_live_agent_gives")
    else {
        return;
    };
    let Some(node) = node("live.test.mjs", &catalog_in(ground.directory.path())) else {
        return;
    };
    let (report, _) = pass(ground.client(node));
    assert!(report.contains("# pass 7"), "{report}");
    ground.agent.check().expect("the agent lives");
}

#[test]
fn an_agent_restarted_between_two_calls_is_asked_again_on_a_new_connection() {
    let Some(mut ground) =
        ground("an_agent_restarted_between_two_calls_is_asked_again_on_a_new_connection")
    else {
        return;
    };
    let mut python = command("/usr/bin/python3");
    python
        .arg(clients().join("python/tests/restart.py"))
        .env("PYTHONPATH", clients().join("python/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let mut programs = vec![python];
    if let Some(node) = optional("node") {
        let mut node = command(node);
        node.arg(clients().join("typescript/test/restart.mjs"));
        programs.push(node);
    }
    for program in programs {
        let mut child = ground
            .client(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        assert_eq!(lines.next().expect("a line").expect("text"), "asked");
        ground
            .agent
            .stop(Duration::from_secs(40))
            .expect("the agent ends");
        ground.agent = start_agent(&ground.world).expect("the agent starts again");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(b"go on\n").expect("written");
        assert_eq!(lines.next().expect("a line").expect("text"), "asked again");
        assert!(child.wait().expect("it ends").success());
    }
}

#[test]
fn the_command_says_by_its_exit_code_what_the_agent_said() {
    let Some(ground) = ground("the_command_says_by_its_exit_code_what_the_agent_said") else {
        return;
    };
    let blockhost = |words: &[&str]| -> (i32, String, String) {
        let mut args = vec!["agent"];
        args.extend(words);
        match run(ground.world.as_root("blockhost", &args), LIMIT) {
            Ok(output) => (0, output.stdout, output.stderr),
            Err(RunError::Failed {
                status,
                stdout,
                stderr,
                ..
            }) => (status.code().unwrap_or(-1), stdout, stderr),
            Err(error) => panic!("{error}"),
        }
    };
    for (words, code, said) in [
        (
            &["call", "qm-status", "vmid=100"][..],
            0,
            "\"status\": \"stopped\"",
        ),
        (&["call", "qm-start", "vmid=205"], 1, "kvm: no such thing"),
        (
            &["call", "qm-start", "vmid=99"],
            2,
            "usage: blockhost agent call qm-start vmid=N",
        ),
        (&["call", "qm-start", "vmdi=100"], 2, "did you mean vmid?"),
        (&["call", "qm-strat"], 2, "did you mean qm-start?"),
        (
            &["call", "qm-list", "--socket", "/nonexistent"],
            3,
            "cannot reach the root agent",
        ),
        (
            &["call", "ip6-route-add", "address=fd00::1/128", "dev=lo"],
            4,
            "forbidden",
        ),
        (&["call", "qm-start", "vmid=201"], 5, "there is no VM 201"),
        (&["call", "qm-start", "vmid=202"], 6, "conflict"),
        (&["call", "qm-start", "vmid=203"], 7, "busy"),
        (&["call", "qm-start", "vmid=204"], 8, "timeout"),
        (
            &["call", "qm-start", "vmid=206", "--timeout", "1"],
            8,
            "the ledger",
        ),
        (
            &["call", "generate-wallet", "name=cold", "--dry-run"],
            0,
            "would run generate-wallet",
        ),
        (&["call", "generate-wallet", "name=cold"], 0, "address  0x"),
        (
            &["call", "qm-guest-exec", "vmid=100", "command=true"],
            0,
            "hello",
        ),
        (&["info"], 0, "ledger.size"),
        (&["catalog", "qm-clone"], 0, "newid=N"),
    ] {
        let (got, stdout, stderr) = blockhost(words);
        assert_eq!(got, code, "{words:?}: {stdout}{stderr}");
        assert!(
            format!("{stdout}{stderr}").contains(said),
            "{words:?}: {stdout}{stderr}"
        );
    }
    let json = |words: &[&str]| -> Value {
        let (_, stdout, stderr) = blockhost(words);
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"))
    };
    let wallet = json(&["call", "generate-wallet", "--json", "{\"name\": \"warm\"}"]);
    assert_eq!(wallet["ok"], true);
    assert!(
        wallet["address"].is_string() && wallet["receipt"]["index"].is_u64(),
        "{wallet}"
    );
    let again = json(&["call", "generate-wallet", "name=warm", "--json"]);
    assert_eq!(
        (again["ok"].as_bool(), again["code"].as_str()),
        (Some(false), Some("conflict"))
    );
    let info = json(&["info", "--json"]);
    assert!(info["counters"]["requests"].as_u64() > Some(0), "{info}");
    assert_eq!(json(&["catalog", "--json"]), catalog::to_json());
}
