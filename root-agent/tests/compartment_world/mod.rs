//! What the compartments' tests share: a world of their own under a temporary directory, a handler in it, and a way to
//! run one test again in a network namespace or with fewer rights.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use blockhost_proto::action::Action;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{
    Backend, Done, Failure, Handler, Identities, Identity, JobCtx, StartInfo,
};
use blockhost_root_agent::policy::Policy;
use serde_json::Value;
use tempfile::TempDir;

/// The group that stands for `blockhost` here; it need not exist.
pub const GROUP: u32 = 4711;
/// The user that stands for `blockhost` here.
pub const USER: u32 = 4711;

/// Set in a test that was started again by [`again`].
const INSIDE: &str = "BLOCKHOST_TEST_INSIDE";
/// The root of the world outside, for the test inside.
const WORLD: &str = "BLOCKHOST_TEST_OUTSIDE";

pub type Prepare = fn(&StartInfo<'_>) -> Result<Box<dyn Handler>, String>;

/// A root directory of its own, in a place where only root writes.
pub struct World {
    /// Removed at the end; `None` for a world of another process.
    directory: Option<TempDir>,
    pub layout: Layout,
    pub policy: Policy,
    pub caller_uid: u32,
}

impl World {
    pub fn new() -> Self {
        let world = Self::without_services();
        chown(world.layout.etc(), Some(0), Some(GROUP)).expect("an owner");
        world.make(&world.layout.images(), USER, GROUP, 0o750);
        world
    }

    /// Only `/etc/blockhost`, made by and for the calling user and group.
    pub fn without_services() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("blockhost-test-")
            .tempdir_in("/run")
            .expect("a directory in /run");
        set_mode(directory.path(), 0o755);
        let mut world = Self::at(directory.path());
        world.directory = Some(directory);
        std::fs::create_dir_all(world.layout.etc()).expect("a directory");
        set_mode(&world.layout.etc(), 0o750);
        world
    }

    /// A world that is there already.
    pub fn at(root: &Path) -> Self {
        World {
            layout: Layout::new(root),
            policy: Policy::default(),
            caller_uid: USER,
            directory: None,
        }
    }

    fn make(&self, path: &Path, uid: u32, gid: u32, mode: u32) {
        std::fs::create_dir_all(path).expect("a directory");
        chown(path, Some(uid), Some(gid)).expect("an owner");
        set_mode(path, mode);
    }

    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    /// An executable script of root's in the world. Another process writes it: a descriptor of ours would be in whatever
    /// another thread starts meanwhile, until that is another program, and nobody runs a file that is open for writing.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let (path, draft) = (self.path().join(name), self.path().join("draft"));
        std::fs::write(&draft, text).expect("a script");
        install(&draft, &path);
        std::fs::remove_file(&draft).expect("a script");
        path
    }

    /// A file in the image directory, owned as the services would own it.
    pub fn image(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.layout.images().join(name);
        std::fs::write(&path, content).expect("an image");
        chown(&path, Some(USER), Some(GROUP)).expect("an owner");
        set_mode(&path, 0o640);
        path
    }

    pub fn start(&self, prepare: Prepare) -> Result<Box<dyn Handler>, String> {
        self.start_on(Backend::Embedded, prepare)
    }

    pub fn start_on(&self, backend: Backend, prepare: Prepare) -> Result<Box<dyn Handler>, String> {
        let identity = Identity {
            uid: USER,
            gid: GROUP,
        };
        prepare(&StartInfo {
            layout: &self.layout,
            policy: &self.policy,
            identities: Identities {
                agent: identity,
                blockhost: identity,
                vm: identity,
                image: identity,
            },
            backend,
        })
    }

    pub fn ask(&self, handler: &dyn Handler, name: &str, params: &Value) -> Result<Done, Failure> {
        self.ask_within(handler, name, params, Duration::from_secs(120))
    }

    pub fn ask_within(
        &self,
        handler: &dyn Handler,
        name: &str,
        params: &Value,
        time: Duration,
    ) -> Result<Done, Failure> {
        let action = Action::from_parts(name, params).expect("a valid action");
        let context = JobCtx {
            deadline: Instant::now() + time,
            allow: &self.policy.allow,
            limits: &self.policy.limits,
            layout: &self.layout,
            caller_uid: self.caller_uid,
        };
        handler.run(&action, &context)
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

/// The code of a failure; success is a failed test.
pub fn code(result: Result<Done, Failure>) -> ErrorCode {
    match result {
        Err(failure) => {
            assert!(!failure.message.contains('\n'), "{}", failure.message);
            failure.code
        }
        Ok(done) => panic!("succeeded: {}", done.output),
    }
}

/// What was said of a success, or the code of a failure, whose message is printed.
pub fn said(result: Result<Done, Failure>) -> Result<String, ErrorCode> {
    result.map(|done| done.output).map_err(|failure| {
        println!("{}", failure.message);
        failure.code
    })
}

/// Runs a tool of the host and returns its output; it must succeed.
pub fn tool(words: &str) -> String {
    let (ok, text) = try_tool(words);
    assert!(ok, "{words}: {text}");
    text
}

/// Runs a tool of the host: whether it succeeded, and everything it printed.
#[expect(
    clippy::disallowed_methods,
    reason = "tests drive the host's own tools"
)]
pub fn try_tool(words: &str) -> (bool, String) {
    let mut words = words.split_whitespace();
    let output = Command::new(words.next().expect("a program"))
        .args(words)
        .output()
        .expect("the tool runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8(text).expect("text"),
    )
}

/// Puts a program into its place, for the reason of [`World::script`].
pub fn install(from: &Path, to: &Path) {
    let words = format!("install --mode=755 -- {} {}", from.display(), to.display());
    let (good, said) = try_tool(&words);
    assert!(good, "{words}: {said}");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs this test's `body` in a process that `wrapper` starts: `unshare -n`, `setpriv ...`. Skips without root.
pub fn again(test: &str, wrapper: &[&str], body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        body();
    } else if is_root() {
        start_again(test, wrapper, Path::new("/"));
    } else {
        println!("skipped: {test} needs root");
    }
}

/// Like [`again`], with a world that the process outside makes, sets up and removes; outside it is returned for a last
/// look.
pub fn again_in(
    test: &str,
    wrapper: &[&str],
    set_up: impl FnOnce(&World),
    body: impl FnOnce(&mut World),
) -> Option<World> {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        let root = std::env::var_os(WORLD).expect("a world");
        body(&mut World::at(Path::new(&root)));
        return None;
    }
    if !is_root() {
        println!("skipped: {test} needs root");
        return None;
    }
    let world = World::new();
    set_up(&world);
    start_again(test, wrapper, world.path());
    Some(world)
}

#[expect(clippy::disallowed_methods, reason = "a test starts itself again")]
fn start_again(test: &str, wrapper: &[&str], world: &Path) {
    let (program, arguments) = wrapper.split_first().expect("a wrapper");
    let status = Command::new(program)
        .args(arguments)
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, test)
        .env(WORLD, world)
        .status()
        .expect("the wrapper runs");
    assert!(status.success(), "{test} failed inside {wrapper:?}");
}

/// In a network namespace of its own, with all rights.
pub fn in_namespace(test: &str, body: impl FnOnce()) {
    again(test, &["unshare", "--net", "--"], body);
}

/// As the net compartment runs: another user, `CAP_NET_ADMIN` alone, no new privileges, namespace of its own.
pub fn as_net_compartment(test: &str, body: impl FnOnce()) {
    again(
        test,
        &[
            "unshare",
            "--net",
            "--",
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all,+net_admin",
            "--ambient-caps=-all,+net_admin",
            "--bounding-set=-all,+net_admin",
            "--no-new-privs",
            "--",
        ],
        body,
    );
}

/// A handler without a world: another user cannot make one in /run.
pub fn bare_handler(prepare: Prepare) -> Box<dyn Handler> {
    let identity = Identity {
        uid: 65534,
        gid: 65534,
    };
    let start = StartInfo {
        layout: &Layout::new("/"),
        policy: &Policy::default(),
        identities: Identities {
            agent: identity,
            blockhost: identity,
            vm: identity,
            image: identity,
        },
        backend: Backend::Embedded,
    };
    prepare(&start).expect("a compartment")
}

/// Has such a handler do something under the default policy.
pub fn ask_bare(handler: &dyn Handler, name: &str, params: &Value) -> Result<Done, Failure> {
    let action = Action::from_parts(name, params).expect("a valid action");
    let policy = Policy::default();
    handler.run(
        &action,
        &JobCtx {
            deadline: Instant::now() + Duration::from_secs(120),
            allow: &policy.allow,
            limits: &policy.limits,
            layout: &Layout::new("/"),
            caller_uid: 0,
        },
    )
}

/// Starts this test again with a variable set, kills it a while after something has come about, and waits until it is gone.
#[expect(clippy::disallowed_methods, reason = "a test starts itself again")]
pub fn kill_again(test: &str, variable: (&str, &Path), begun: impl Fn() -> bool, after: Duration) {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", test, "--nocapture"])
        .env(variable.0, variable.1)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the test starts");
    let until = Instant::now() + Duration::from_secs(120);
    while !begun() {
        assert!(Instant::now() < until, "{test} did not begin its work");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(after);
    child.kill().expect("a signal");
    child.wait().expect("an end");
}
