//! How programs are run: with real programs of the host, each trying to get more than it was given.

mod compartment_world;

use std::fs::File;
use std::io::Seek;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use blockhost_root_agent::exec::{Ended, OUTPUT_CAP, Output, Program, Run, fd_path};
use compartment_world::{World, install, is_root, set_mode};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

fn program(path: impl AsRef<Path>) -> Program {
    Program::open(path.as_ref()).expect("a program of the host")
}

fn run(path: &str, args: &[&str]) -> Output {
    Run::new(&program(path), soon())
        .args(args)
        .run()
        .expect("it runs")
}

/// A script of root's; `None` (and a message) without root.
fn script(text: &str) -> Option<(World, Program)> {
    if !is_root() {
        println!("skipped: programs of root's need root");
        return None;
    }
    let world = World::new();
    let program = program(world.script("script", text));
    Some((world, program))
}

#[test]
fn a_child_has_no_descriptors_but_its_three_and_those_passed() {
    // One that would leak if only our own were closed: without close-on-exec.
    let leak = File::open("/etc/passwd").expect("a file");
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).expect("inheritable");
    let listed = |run: Run<'_>| {
        let text = run
            .args(["-1", "/proc/self/fd"])
            .run()
            .expect("ls")
            .stdout
            .to_text();
        let mut numbers: Vec<i32> = text
            .lines()
            .map(|line| line.parse().expect("a number"))
            .collect();
        numbers.sort_unstable();
        numbers
    };
    let ls = program("/usr/bin/ls");
    // The last one is the directory that ls itself reads.
    assert_eq!(listed(Run::new(&ls, soon())), [0, 1, 2, 3]);
    let passed = File::open("/etc/passwd").expect("a file");
    let number = {
        use std::os::fd::AsRawFd;
        passed.as_raw_fd()
    };
    let mut expected = vec![0, 1, 2, 3, number];
    expected.sort_unstable();
    expected.dedup();
    let mut seen = listed(Run::new(&ls, soon()).pass(passed.as_fd()));
    if number == 3 {
        seen.pop();
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_child_sees_only_the_fixed_environment() {
    let env = program("/usr/bin/env");
    let text = |run: Run<'_>| run.run().expect("env").stdout.to_text();
    let fixed = "PATH=/usr/sbin:/usr/bin:/sbin:/bin\nLC_ALL=C\nHOME=/\n";
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        sorted(&text(Run::new(&env, soon()).root(Path::new("/")))),
        sorted(fixed)
    );
    let world = text(Run::new(&env, soon()).root(Path::new("/run/world")));
    assert_eq!(
        sorted(&world),
        sorted(&format!("{fixed}BLOCKHOST_ROOT=/run/world\n"))
    );
}

#[test]
fn a_child_leads_its_own_session_without_a_terminal_in_the_root_directory() {
    let stat = run("/usr/bin/cat", &["/proc/self/stat"]).stdout.to_text();
    let (pid, rest) = stat.split_once(' ').expect("a pid");
    let fields: Vec<&str> = rest
        .rsplit(')')
        .next()
        .expect("fields")
        .split_whitespace()
        .collect();
    let (group, session, terminal) = (fields[2], fields[3], fields[4]);
    assert_eq!((group, session, terminal), (pid, pid, "0"));
    assert_eq!(
        run("/usr/bin/readlink", &["/proc/self/cwd"])
            .stdout
            .to_text(),
        "/\n"
    );
}

#[test]
fn standard_input_is_at_its_end_or_exactly_what_was_given() {
    assert_eq!(run("/usr/bin/cat", &[]).stdout.to_text(), "");
    let bytes: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let cat = program("/usr/bin/cat");
    let output = Run::new(&cat, soon())
        .stdin(&bytes)
        .keep(16 << 20)
        .run()
        .expect("cat");
    assert_eq!(output.stdout.whole().expect("all of it"), bytes);
    let deaf = program("/usr/bin/true");
    let output = Run::new(&deaf, soon()).stdin(&bytes).run().expect("true");
    assert_eq!(
        output.ended,
        Ended::Exited(0),
        "a program need not read its input"
    );
}

#[test]
fn a_flood_of_output_costs_no_memory_and_ends_at_the_deadline() {
    let yes = program("/usr/bin/yes");
    let output = with_more_and_more_time(|time| {
        let output = Run::new(&yes, Instant::now() + time).run().expect("yes");
        // By itself it would never end.
        assert_eq!(output.ended, Ended::TimedOut);
        (output.stdout.dropped() > 0).then_some(output)
    });
    assert!(output.stdout.whole().is_none());
    assert!(output.stdout.to_text().len() <= OUTPUT_CAP + 100);
}

#[test]
fn the_deadline_kills_the_whole_group_even_what_ignores_the_polite_signal() {
    // What is ignored is so in programs that are executed, too: neither of the two ends by itself or by SIGTERM.
    let text = "#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho $! >\"$BLOCKHOST_ROOT/started\"\nwhile :; do sleep 1; done\n";
    let Some((world, program)) = script(text) else {
        return;
    };
    let grandchild: u32 = with_more_and_more_time(|time| {
        let output = Run::new(&program, Instant::now() + time)
            .root(world.path())
            .run()
            .expect("it runs");
        assert_eq!(output.ended, Ended::TimedOut);
        let started = std::fs::read_to_string(world.path().join("started")).ok()?;
        started.trim().parse().ok()
    });
    let until = soon();
    while sleeps(grandchild) {
        assert!(Instant::now() < until, "the grandchild was not killed");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asks with more and more time until there is an answer: on a busy machine a program needs a while to begin.
fn with_more_and_more_time<T>(mut ask: impl FnMut(Duration) -> Option<T>) -> T {
    let times = [300, 1_000, 4_000, 15_000, 60_000].map(Duration::from_millis);
    let found = times.into_iter().find_map(&mut ask);
    found.expect("a minute is enough for a program to begin")
}

/// Whether that process is a `sleep` that goes on.
fn sleeps(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.contains("(sleep) ") && !stat.contains("(sleep) Z"))
}

#[test]
fn a_daemon_that_keeps_the_output_open_does_not_hold_the_caller() {
    let text = "#!/bin/sh\ncd \"$BLOCKHOST_ROOT\"\nsetsid sh -c 'echo $$ >made; mv made daemon; exec sleep 1000' &\nuntil [ -e daemon ]; do sleep 0.05; done\necho started\n";
    let Some((world, program)) = script(text) else {
        return;
    };
    let output = Run::new(&program, soon())
        .root(world.path())
        .run()
        .expect("it runs");
    let pid = std::fs::read_to_string(world.path().join("daemon")).expect("it was started");
    let pid = pid.trim().parse().expect("a pid");
    let goes_on = Path::new(&format!("/proc/{pid}")).exists();
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    assert!(goes_on, "the caller was held until it ended");
    assert!(output.ok());
    assert_eq!(output.stdout.to_text(), "started\n");
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    let Some((_world, program)) =
        script("#!/bin/sh\n[ \"$1\" = die ] && kill -9 $$\necho why >&2\nexit 3\n")
    else {
        return;
    };
    let output = Run::new(&program, soon()).run().expect("it runs");
    assert_eq!(
        (output.ended, output.complaint().as_str()),
        (Ended::Exited(3), "why")
    );
    let output = Run::new(&program, soon())
        .args(["die"])
        .run()
        .expect("it runs");
    assert_eq!(output.ended, Ended::Signalled(9));
}

#[test]
fn every_argument_stays_one_word_whatever_it_holds() {
    let Some((_world, program)) = script("#!/bin/sh\nfor word; do printf '[%s]' \"$word\"; done\n")
    else {
        return;
    };
    let words = ["a b", "$(id)", "`id`", "; rm x", "*", "", "-x", "\"'\n"];
    let output = Run::new(&program, soon())
        .args(words)
        .run()
        .expect("it runs");
    let expected: String = words.iter().map(|word| format!("[{word}]")).collect();
    assert_eq!(output.stdout.to_text(), expected);
}

#[test]
fn what_was_checked_is_what_runs_even_after_the_file_was_replaced() {
    let Some((world, script)) = script("#!/bin/sh\necho checked\n") else {
        return;
    };
    let copy = world.path().join("binary");
    install(Path::new("/usr/bin/true"), &copy);
    let binary = program(&copy);
    for name in ["script", "binary"] {
        std::fs::remove_file(world.path().join(name)).expect("removed");
        world.script(name, "#!/bin/sh\necho swapped\nexit 9\n");
    }
    assert_eq!(
        Run::new(&script, soon())
            .run()
            .expect("it runs")
            .stdout
            .to_text(),
        "checked\n"
    );
    assert_eq!(
        Run::new(&binary, soon()).run().expect("it runs").ended,
        Ended::Exited(0)
    );
}

#[test]
fn a_program_that_anyone_but_root_could_have_put_there_is_refused() {
    if !is_root() {
        println!("skipped: making untrusted files of every kind needs root");
        return;
    }
    let world = World::new();
    let good = world.script("good", "#!/bin/sh\n");
    let refused = |path: &Path, why: &str| {
        let error = Program::open(path)
            .err()
            .unwrap_or_else(|| panic!("{} was trusted", path.display()));
        assert!(error.to_string().contains(why), "{error}");
    };
    refused(Path::new("usr/bin/true"), "not an absolute path");
    refused(&world.path().join("missing"), "cannot be opened");
    refused(world.path(), "not a regular file");
    let plain = world.path().join("plain");
    std::fs::write(&plain, "x").expect("a file");
    refused(&plain, "not executable");

    for mode in [0o775, 0o757] {
        set_mode(&good, mode);
        refused(&good, "may be written by others");
    }
    set_mode(&good, 0o755);
    chown(&good, Some(4711), None).expect("an owner");
    refused(&good, "belongs to uid 4711");
    chown(&good, Some(0), None).expect("an owner");
    Program::open(&good).expect("as before");

    let directory = world.path().join("directory");
    std::fs::create_dir(&directory).expect("a directory");
    std::fs::rename(&good, directory.join("good")).expect("moved");
    set_mode(&directory, 0o777);
    refused(&directory.join("good"), "may be written by others");
    set_mode(&directory, 0o755);
    chown(&directory, Some(4711), None).expect("an owner");
    refused(&directory.join("good"), "belongs to uid 4711");
    // A link in a good place does not launder a bad one.
    let link = world.path().join("link");
    symlink(directory.join("good"), &link).expect("a link");
    refused(&link, "belongs to uid 4711");

    let interpreted = world.script(
        "interpreted",
        &format!("#!{}\n", directory.join("good").display()),
    );
    refused(&interpreted, "belongs to uid 4711");
    let relative = world.script("relative", "#!sh\n");
    refused(&relative, "not an absolute path");
}

#[test]
fn a_passed_descriptor_is_the_file_itself_and_not_its_name() {
    let mut file = tempfile::tempfile().expect("a file without a name");
    file.write_all(b"content").expect("written");
    file.rewind().expect("rewound");
    let cat = program("/usr/bin/cat");
    let output = Run::new(&cat, soon())
        .args([fd_path(file.as_fd())])
        .pass(file.as_fd())
        .run()
        .expect("cat");
    assert_eq!(output.stdout.to_text(), "content");
    let without = Run::new(&cat, soon())
        .args([fd_path(file.as_fd())])
        .run()
        .expect("cat");
    assert_eq!(without.ended, Ended::Exited(1));
}

#[test]
fn many_children_at_once_do_not_see_each_others_descriptors() {
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(|| {
                let ls = program("/usr/bin/ls");
                for _ in 0..10 {
                    let file = File::open("/etc/passwd").expect("a file");
                    let text = Run::new(&ls, soon())
                        .args(["-1", "/proc/self/fd"])
                        .pass(file.as_fd())
                        .run()
                        .expect("ls")
                        .stdout
                        .to_text();
                    assert!(text.lines().count() <= 5, "{text}");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no leak");
    }
}
