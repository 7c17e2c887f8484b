//! From operations to virt-customize's words. Every operation is one word, `--name=value`, so that no value can be read as an
//! option or as a second value. Pure.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use blockhost_proto::action::ImageOp;

use crate::compartment::disk::format::Format;

/// The whole command line. `staged` holds, for each operation, the private copy of the file of the host it names.
pub(super) fn words<'a>(
    disk: &Path,
    format: Format,
    online: bool,
    ops: impl Iterator<Item = (&'a ImageOp, Option<&'a PathBuf>)>,
) -> Vec<OsString> {
    let mut words: Vec<OsString> = [
        "--quiet",
        if online { "--network" } else { "--no-network" },
        "--no-logfile",
        // Before the disk it is about.
        match format {
            Format::Qcow2 => "--format=qcow2",
            Format::Raw => "--format=raw",
        },
    ]
    .map(OsString::from)
    .into();
    words.push(option("add", disk, ""));
    for (op, staged) in ops {
        let name = op.name();
        match (op, staged) {
            (ImageOp::CopyIn { directory, .. }, Some(file)) => {
                words.push(option(name, file, &format!(":{directory}")));
                let base = file.file_name().unwrap_or_default().display();
                words.push(to_root(&format!("{directory}/{base}")));
            }
            (ImageOp::Upload { file: target, .. }, Some(file)) => {
                words.push(option(name, file, &format!(":{target}")));
                words.push(to_root(target.as_ref()));
            }
            (ImageOp::Run(_), Some(file)) => words.push(option(name, file, "")),
            // Without the leading zero it would be decimal.
            (ImageOp::Chmod { mode, path }, _) => {
                words.push(format!("--{name}=0{:o}:{path}", mode.bits()).into());
            }
            _ => words.push(format!("--{name}={}", op.argument()).into()),
        }
    }
    words
}

/// The tool takes the owner along, and the copy is the compartment's user's, whose number means nothing or somebody else inside
/// the guest. Neither kind of path can hold a quote.
fn to_root(path: &str) -> OsString {
    format!("--run-command=chown -hR 0:0 '{path}'").into()
}

fn option(name: &str, path: &Path, rest: &str) -> OsString {
    let mut word = OsString::from(format!("--{name}="));
    word.push(path);
    word.push(rest);
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_proto::action::Action;
    use serde_json::json;

    fn of(commands: serde_json::Value) -> Vec<String> {
        let params = json!({"image_path": "x.qcow2", "commands": commands});
        let Ok(Action::VirtCustomize(action)) = Action::from_parts("virt-customize", &params)
        else {
            panic!("{params} is valid");
        };
        let staged: Vec<Option<PathBuf>> = action
            .commands
            .iter()
            .map(|op| {
                op.host_path()
                    .map(|path| Path::new("/w/in").join(path.file_name()))
            })
            .collect();
        let ops = action
            .commands
            .iter()
            .zip(staged.iter().map(Option::as_ref));
        let words = words(Path::new("/w/disk"), Format::Qcow2, false, ops);
        assert_eq!(
            words[..5],
            [
                "--quiet",
                "--no-network",
                "--no-logfile",
                "--format=qcow2",
                "--add=/w/disk"
            ]
        );
        let words = words.into_iter().skip(5);
        words
            .map(|word| word.into_string().expect("text"))
            .collect()
    }

    #[test]
    fn every_operation_is_one_word_whatever_its_value_looks_like() {
        for (command, word) in [
            (json!(["install", "nginx,curl"]), "--install=nginx,curl"),
            (
                json!(["run-command", "--network"]),
                "--run-command=--network",
            ),
            (
                json!(["run-command", "-a /etc/shadow"]),
                "--run-command=-a /etc/shadow",
            ),
            (
                json!(["run-command", "a\n--upload /etc/shadow:/x"]),
                "--run-command=a\n--upload /etc/shadow:/x",
            ),
            (
                json!(["write", "/etc/motd:a:b=c,d\ne"]),
                "--write=/etc/motd:a:b=c,d\ne",
            ),
            (
                json!(["append-line", "/etc/hosts:::1 x"]),
                "--append-line=/etc/hosts:::1 x",
            ),
            (
                json!(["firstboot-command", "a;b"]),
                "--firstboot-command=a;b",
            ),
            (json!(["mkdir", "/srv/x"]), "--mkdir=/srv/x"),
            (json!(["delete", "/srv/x"]), "--delete=/srv/x"),
            (json!(["chmod", "4755:/bin/su"]), "--chmod=04755:/bin/su"),
            (json!(["chmod", "0644:/etc/motd"]), "--chmod=0644:/etc/motd"),
            (json!(["run", "dir/script"]), "--run=/w/in/script"),
        ] {
            assert_eq!(of(json!([command])), [word]);
        }
    }

    #[test]
    fn what_comes_from_the_host_belongs_to_the_guests_root() {
        assert_eq!(
            of(json!([
                ["copy-in", "dir/site:/var/www"],
                ["upload", "file:/etc/motd"]
            ])),
            [
                "--copy-in=/w/in/site:/var/www",
                "--run-command=chown -hR 0:0 '/var/www/site'",
                "--upload=/w/in/file:/etc/motd",
                "--run-command=chown -hR 0:0 '/etc/motd'",
            ]
        );
    }
}
