//! The network as a drawing for graphviz. Every name goes through [`quoted`]; node identities are numbers of ours, so that
//! no name of a container can be taken for another node.

use std::fmt::Write as _;

use blockhost_proto::escape;

use crate::network::picture::{Picture, PortPicture, Role};

/// A text inside double quotes. What is not printable ASCII is escaped before, so that the drawing has no line that we did
/// not write; then `\` and `"`, which mean something to graphviz.
fn quoted(lines: &[String]) -> String {
    let escaped: Vec<String> = lines
        .iter()
        .map(|line| {
            // `shown` has escaped quotes and backslashes once, for people; graphviz wants them escaped once more.
            escape::shown_up_to(line, 120)
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
        })
        .collect();
    format!("\"{}\"", escaped.join("\\n"))
}

/// Draws it.
pub(super) fn draw(picture: &Picture) -> String {
    let mut out = String::from(
        "graph network {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n",
    );
    for (number, bridge) in picture.bridges.iter().enumerate() {
        let mut label = vec![bridge.name.clone()];
        label.extend(bridge.addresses.iter().cloned());
        let colour = match bridge.up {
            Some(false) => "gray60",
            _ => "steelblue",
        };
        let _ = writeln!(
            out,
            "  bridge{number} [label={}, style=filled, fillcolor=white, color={colour}, penwidth=2];",
            quoted(&label)
        );
        for (at, port) in bridge.ports.iter().enumerate() {
            let _ = writeln!(
                out,
                "  port{number}_{at} [label={}, shape={}, style={}];",
                quoted(&label_of(port)),
                shape(port.role),
                if port.state == "up" {
                    "solid"
                } else {
                    "dashed"
                }
            );
            let vlan: Vec<String> = port.vlan.iter().map(|tag| format!("VLAN {tag}")).collect();
            let _ = writeln!(
                out,
                "  bridge{number} -- port{number}_{at} [label={}];",
                quoted(&vlan)
            );
        }
    }
    for (number, tunnel) in picture.tunnels.iter().enumerate() {
        let mut label = vec![tunnel.name.clone()];
        label.extend(tunnel.addresses.iter().cloned());
        let _ = writeln!(
            out,
            "  tunnel{number} [label={}, shape=cds];",
            quoted(&label)
        );
        for (at, peer) in tunnel.peers.iter().enumerate() {
            let label: Vec<String> = peer
                .endpoint
                .iter()
                .chain(&peer.allowed_ips)
                .cloned()
                .collect();
            let _ = writeln!(
                out,
                "  peer{number}_{at} [label={}, shape=ellipse];",
                quoted(&label)
            );
            let _ = writeln!(out, "  tunnel{number} -- peer{number}_{at};");
        }
    }
    out.push_str("}\n");
    out
}

fn label_of(port: &PortPicture) -> Vec<String> {
    let mut label = vec![port.name.clone()];
    if let Some(vmid) = port.vmid {
        label.push(format!("{} {vmid}", port.role.as_str()));
    }
    label.extend(port.container.clone());
    label
}

const fn shape(role: Role) -> &'static str {
    match role {
        Role::Uplink => "house",
        Role::Machine => "box3d",
        Role::Container => "component",
        Role::Tunnel => "cds",
        Role::Internal | Role::Other => "box",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::picture::picture;
    use crate::network::picture::tests::sample;

    const EVIL: [&str; 4] = [
        "x\"]; evil [label=\"",
        "x\\",
        "x\n}\ngraph evil {",
        "\\N\\\"<b>\u{202e}",
    ];

    /// Counts what graphviz would read: (nodes, edges), or nothing where a line is not one that we write.
    fn parse(text: &str) -> Option<(usize, usize)> {
        let inside = text
            .strip_prefix("graph network {\n")?
            .strip_suffix("}\n")?;
        let (mut nodes, mut edges) = (0, 0);
        for line in inside.lines() {
            let line = line.strip_prefix("  ")?.strip_suffix(';')?;
            // Outside of quotes there are only words of ours.
            let (mut bare, mut quotes, mut rest) = (String::new(), false, line.chars());
            while let Some(c) = rest.next() {
                match c {
                    '"' => quotes = !quotes,
                    '\\' if quotes => drop(rest.next()?),
                    _ if quotes => {}
                    _ => bare.push(c),
                }
            }
            (!quotes).then_some(())?;
            bare.chars()
                .all(|c| c.is_ascii_alphanumeric() || " _=,[]-".contains(c))
                .then_some(())?;
            edges += usize::from(bare.contains(" -- "));
            nodes += usize::from(!bare.contains(" -- ") && bare.contains("[label="));
        }
        Some((nodes, edges))
    }

    #[test]
    fn no_name_gets_out_of_its_quotes_or_makes_a_node_or_a_line() {
        let plain = parse(&draw(&picture(&sample("web-1")))).expect("well formed");
        assert_eq!(plain, (9, 6));
        for evil in EVIL {
            let text = draw(&picture(&sample(evil)));
            assert_eq!(parse(&text), Some(plain), "{evil:?}:\n{text}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test runs graphviz itself")]
    fn graphviz_itself_reads_what_is_drawn() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        for evil in EVIL {
            let started = Command::new("dot")
                .args(["-Tplain"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut dot = match started {
                Ok(dot) => dot,
                Err(error) => {
                    println!(
                        "skipped: dot cannot be started ({error}); install the package graphviz"
                    );
                    return;
                }
            };
            let text = draw(&picture(&sample(evil)));
            let mut stdin = dot.stdin.take().expect("a pipe");
            stdin.write_all(text.as_bytes()).expect("written");
            drop(stdin);
            let output = dot.wait_with_output().expect("an end");
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{output:?}\n{text}"
            );
            let plain = String::from_utf8(output.stdout).expect("text");
            let count = |word: &str| plain.lines().filter(|line| line.starts_with(word)).count();
            assert_eq!(
                (count("node "), count("edge ")),
                (9, 6),
                "{evil:?}:\n{plain}"
            );
        }
    }
}
