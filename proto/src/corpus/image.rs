//! `virt-customize`: operations that are not on the list, entries that say more than one thing, files of the host that
//! are not below an image directory's name, paths of the guest that are patterns or climb.

use super::values::NOT_AN_IMAGE;
use super::{Hostile, action};

pub(super) fn images() -> Vec<Hostile> {
    let mut list = Vec::new();
    for (name, argument) in OPERATIONS {
        for dashes in ["", "--"] {
            list.push(customize(
                format!("virt-customize {dashes}{name} {argument}"),
                &format!(r#"[["{dashes}{name}","{argument}"]]"#),
            ));
        }
    }
    for (name, path) in NOT_AN_IMAGE {
        list.push(action(
            format!("virt-customize image: {name}"),
            "virt-customize",
            &format!(r#"{{"image_path":"{path}","commands":[["install","a"]]}}"#),
        ));
        for (op, rest) in [("copy-in", ":/srv"), ("upload", ":/srv/x"), ("run", "")] {
            list.push(customize(
                format!("{op} from the host: {name}"),
                &format!(r#"[["{op}","{path}{rest}"]]"#),
            ));
        }
    }
    for op in ["mkdir", "delete"] {
        for path in NOT_IN_THE_GUEST {
            list.push(customize(
                format!("{op} in the guest: {path}"),
                &format!(r#"[["{op}","{path}"]]"#),
            ));
        }
    }
    for path in NOT_IN_THE_GUEST {
        for (op, before, after) in [
            ("write", "", ":x"),
            ("append-line", "", ":x"),
            ("chmod", "0644:", ""),
            ("copy-in", "site:", ""),
            ("upload", "motd:", ""),
        ] {
            // Behind the separator of `write` everything is contents: only what stands before it is a path.
            let shifted = after == ":x" && path.starts_with("/a:");
            if !shifted {
                list.push(customize(
                    format!("{op} to {path} in the guest"),
                    &format!(r#"[["{op}","{before}{path}{after}"]]"#),
                ));
            }
        }
    }
    for (name, commands) in SHAPES {
        list.push(customize(
            format!("virt-customize commands: {name}"),
            commands,
        ));
    }
    list.extend([
        customize(
            "virt-customize: 257 operations".to_owned(),
            &format!("[{}]", vec![r#"["mkdir","/a"]"#; 257].join(",")),
        ),
        customize(
            "virt-customize: 65 packages at once".to_owned(),
            &format!(r#"[["install","{}"]]"#, vec!["a"; 65].join(",")),
        ),
        customize(
            "virt-customize: a command of 16385 bytes".to_owned(),
            &format!(r#"[["run-command","{}"]]"#, "x".repeat(16_385)),
        ),
        customize(
            "virt-customize: contents of 16385 bytes".to_owned(),
            &format!(r#"[["write","/x:{}"]]"#, "x".repeat(16_385)),
        ),
        action(
            "virt-customize without commands",
            "virt-customize",
            r#"{"image_path":"a.qcow2"}"#,
        ),
        action(
            "virt-customize with a second image",
            "virt-customize",
            r#"{"image_path":"a.qcow2","commands":[["install","a"]],"add":"/dev/sda"}"#,
        ),
    ]);
    list
}

fn customize(name: String, commands: &str) -> Hostile {
    let params = format!(r#"{{"image_path":"a.qcow2","commands":{commands}}}"#);
    action(name, "virt-customize", &params)
}

const OPERATIONS: &[(&str, &str)] = &[
    ("password", "root:password:x"),
    ("root-password", "password:x"),
    ("ssh-inject", "root:file:/root/.ssh/id_rsa.pub"),
    ("commands-from-file", "/etc/shadow"),
    ("script", "/etc/shadow"),
    ("firstboot", "/etc/shadow"),
    ("firstboot-install", "a"),
    ("copy", "/a:/b"),
    ("move", "/a:/b"),
    ("edit", "/etc/x:s/a/b/"),
    ("link", "/etc/shadow:/x"),
    ("scrub", "/a"),
    ("touch", "/a"),
    ("truncate", "/a"),
    ("timezone", "UTC"),
    ("hostname", "a"),
    ("update", ""),
    ("uninstall", "a"),
    ("selinux-relabel", ""),
    ("sm-attach", "file:/etc/shadow"),
    ("sm-credentials", "x:file:/etc/shadow"),
    ("tar-in", "/etc/x.tar:/"),
    ("inject-virtio-win", "/etc"),
    ("format", "raw"),
    ("add", "/dev/sda"),
    ("domain", "x"),
    ("connect", "qemu:///system"),
    ("network", ""),
    ("no-network", ""),
    ("install\\n", "a"),
    ("install=a", "b"),
    ("Install", "a"),
    ("-install", "a"),
    ("", "a"),
    ("install", ""),
    ("install", "a b"),
    ("install", "a,"),
    ("install", ",a"),
    ("install", "-y"),
    ("install", "--allow-unauthenticated"),
    ("install", "a-"),
    ("install", "A"),
    ("install", "a;id"),
    ("install", "a$(id)"),
    ("install", "./x.deb"),
    ("install", "/x.deb"),
    ("install", "a=1"),
    ("install", "a\\n"),
    ("install", "@a"),
    ("run-command", ""),
    ("run-command", "id\\u0000"),
    ("firstboot-command", ""),
    ("firstboot-command", "id\\u0000"),
    ("copy-in", ""),
    ("copy-in", "site"),
    ("copy-in", ":/srv"),
    ("copy-in", "site:"),
    ("copy-in", "site:/srv:/x"),
    ("copy-in", "/etc/shadow /x:/srv"),
    ("upload", "motd"),
    ("upload", ":/etc/motd"),
    ("upload", "motd:/etc/motd:x"),
    ("upload", "motd:etc/motd"),
    ("chmod", "0644"),
    ("chmod", "0644:"),
    ("chmod", ":/a"),
    ("chmod", "0888:/a"),
    ("chmod", "u+s:/a"),
    ("chmod", "00644:/a"),
    ("chmod", "-0644:/a"),
    ("chmod", "44:/a"),
    ("chmod", "0644:/a:/b"),
    ("write", "/a"),
    ("write", ":x"),
    ("write", "/a\\u0000:x"),
    ("write", "/a:x\\u0000"),
    ("append-line", "/a"),
    ("append-line", "/a:x\\ny"),
    ("append-line", "/a:x\\r"),
    ("append-line", "/a:x\\u0000"),
    ("run", ""),
    ("run", "-x"),
    ("run", "a b"),
    ("run", "setup.sh:/x"),
];

const NOT_IN_THE_GUEST: &[&str] = &[
    "",
    "/",
    "a",
    "./a",
    "~/a",
    "/../a",
    "/a/..",
    "/a/../b",
    "/./a",
    "//a",
    "/a/",
    "/a//b",
    "/*",
    "/a?",
    "/[ab]",
    "/{a,b}",
    "/a b",
    "/a\\tb",
    "/a\\n/b",
    "/a\\\\b",
    "/a'b",
    "/$(id)",
    "/`id`",
    "/a;b",
    "/a:b",
    "/a\\u0000",
    "/ma\u{f1}ana",
];

const SHAPES: &[(&str, &str)] = &[
    ("null", "null"),
    ("a text", "\"--install a\""),
    ("an object", "{\"install\":\"a\"}"),
    ("none", "[]"),
    ("a flat list", "[\"install\",\"a\"]"),
    (
        "an entry as an object",
        "[{\"op\":\"install\",\"arg\":\"a\"}]",
    ),
    ("an entry as a text", "[\"--install a\"]"),
    ("an empty entry", "[[]]"),
    ("an operation alone", "[[\"install\"]]"),
    ("an extra argument", "[[\"install\",\"a\",\"b\"]]"),
    (
        "an option behind the argument",
        "[[\"install\",\"a\",\"--add\",\"/dev/sda\"]]",
    ),
    ("a list as argument", "[[\"install\",[\"a\"]]]"),
    ("a number as argument", "[[\"mkdir\",1]]"),
    ("a number as operation", "[[1,\"a\"]]"),
    ("null as argument", "[[\"install\",null]]"),
    (
        "a bad one behind a good one",
        "[[\"install\",\"a\"],[\"script\",\"/etc/shadow\"]]",
    ),
];
