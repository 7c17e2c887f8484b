//! The network on a terminal. Everything foreign is escaped here; colour only says again what a word says.

use std::fmt::Write as _;
use std::time::Instant;

use blockhost_proto::escape;

use crate::network::picture::{BridgePicture, Kind, Picture, PortPicture, Role};

/// Whether to colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Colour(bool);

impl Colour {
    pub(super) const fn new(on: bool) -> Self {
        Self(on)
    }

    pub(super) const fn is_on(self) -> bool {
        self.0
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 && !text.trim().is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

const BOLD: &str = "1";
const FAINT: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// A foreign text: printable, and of a bounded length.
pub(super) fn safe(text: &str) -> String {
    escape::shown_up_to(text, 120)
}

/// The whole, with rates where there is an earlier picture.
pub(super) fn draw(now: &Picture, before: Option<&(Instant, Picture)>, colour: Colour) -> String {
    let mut out = String::new();
    for bridge in &now.bridges {
        draw_bridge(&mut out, bridge, before, colour);
    }
    if now.bridges.is_empty() {
        out.push_str("no bridges\n\n");
    }
    for tunnel in &now.tunnels {
        let state = if tunnel.up { "up" } else { "down" };
        let _ = writeln!(
            out,
            "{} {}  {}  port {}  {}",
            colour.paint(BOLD, "tunnel"),
            colour.paint(BOLD, &safe(&tunnel.name)),
            paint_state(state, colour),
            tunnel.listen_port,
            list(&tunnel.addresses),
        );
        for peer in &tunnel.peers {
            let _ = writeln!(
                out,
                "  peer {}  at {}  {}  last handshake {}  in {}  out {}",
                peer.public_key
                    .as_deref()
                    .map_or_else(|| "?".to_owned(), safe),
                peer.endpoint
                    .as_deref()
                    .map_or_else(|| "-".to_owned(), safe),
                list(&peer.allowed_ips),
                ago(peer.last_handshake),
                bytes(peer.rx_bytes),
                bytes(peer.tx_bytes),
            );
        }
        out.push('\n');
    }
    for route in &now.default_routes {
        let _ = writeln!(
            out,
            "default route  via {}  dev {}  metric {}",
            route.gateway.as_deref().unwrap_or("-"),
            route.link.as_deref().map_or_else(|| "-".to_owned(), safe),
            route.metric
        );
    }
    if let Some(forwarding) = &now.forwarding {
        let ipv6 = if forwarding.ipv6 { "all" } else { "-" };
        let _ = writeln!(
            out,
            "forwards  IPv4 from {}  IPv6 from {ipv6}  answers for others' IPv6 on {}",
            list(&forwarding.ipv4),
            list(&forwarding.ipv6_proxy),
        );
    }
    if !now.switch {
        let _ = writeln!(
            out,
            "{}",
            colour.paint(FAINT, "Open vSwitch: not running, or the root agent is not")
        );
    }
    for problem in &now.problems {
        let line = format!(
            "{}: {}",
            problem.part,
            escape::shown_up_to(&problem.what, 400)
        );
        let _ = writeln!(out, "{} {line}", colour.paint(RED, "cannot read"));
    }
    out
}

fn draw_bridge(
    out: &mut String,
    bridge: &BridgePicture,
    before: Option<&(Instant, Picture)>,
    colour: Colour,
) {
    let state = match bridge.up {
        Some(true) => paint_state("up", colour),
        Some(false) => paint_state("down", colour),
        None => paint_state("?", colour),
    };
    let what = match bridge.kind {
        Kind::Ovs => format!(
            "ovs {} {}",
            safe(bridge.datapath_type.as_deref().unwrap_or_default()),
            safe(bridge.fail_mode.as_deref().unwrap_or_default())
        ),
        Kind::Linux => "linux".to_owned(),
    };
    let flows = bridge
        .flows
        .map_or_else(String::new, |flows| format!("  {flows} flows"));
    let foreign = match (bridge.kind, bridge.ours) {
        (Kind::Ovs, false) => "  not the agent's",
        _ => "",
    };
    let _ = writeln!(
        out,
        "{} {}  {state}  {what}{flows}{foreign}  {}",
        colour.paint(BOLD, "bridge"),
        colour.paint(BOLD, &safe(&bridge.name)),
        list(&bridge.addresses)
    );
    if let Some(error) = &bridge.error {
        let _ = writeln!(out, "  {} {}", colour.paint(RED, "error"), safe(error));
    }
    let earlier = before.and_then(|(at, picture)| Some((at, picture.bridge(&bridge.name)?)));
    let mut rows = vec![
        [
            "PORT", "ROLE", "WHOSE", "STATE", "VLAN", "IN", "OUT", "DROPPED", "ERRORS",
        ]
        .map(str::to_owned),
    ];
    for port in &bridge.ports {
        let old = earlier.and_then(|(at, bridge)| {
            let port = bridge.ports.iter().find(|old| old.name == port.name)?;
            Some((at.elapsed().as_secs_f64(), port))
        });
        rows.push(row(port, old));
    }
    if bridge.ports.is_empty() {
        out.push_str("  no ports\n\n");
        return;
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    for (number, cells) in rows.iter().enumerate() {
        let port = number.checked_sub(1).and_then(|at| bridge.ports.get(at));
        let mut line = String::from(" ");
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            // Numbers to the right.
            let padded = if column >= 5 {
                format!("{cell:>width$}")
            } else {
                format!("{cell:width$}")
            };
            let painted = match (port, column) {
                (None, _) => colour.paint(FAINT, &padded),
                (Some(port), 3) => padded.replace(port.state, &paint_state(port.state, colour)),
                (Some(port), 7) if port.dropped > 0 => colour.paint(YELLOW, &padded),
                (Some(port), 8) if port.errors > 0 => colour.paint(RED, &padded),
                _ => padded,
            };
            let _ = write!(line, " {painted} ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
        if let Some(error) = port.and_then(|port| port.error.as_ref()) {
            let _ = writeln!(out, "    {} {}", colour.paint(RED, "error"), safe(error));
        }
    }
    out.push('\n');
}

fn row(port: &PortPicture, old: Option<(f64, &PortPicture)>) -> [String; 9] {
    let amount = |now: u64, then: fn(&PortPicture) -> u64| match old {
        Some((seconds, old)) if seconds > 0.1 => {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive and far below the limit"
            )]
            let rate = (now.saturating_sub(then(old)) as f64 / seconds) as u64;
            format!("{}/s", bytes(rate))
        }
        _ => bytes(now),
    };
    let mut name = safe(&port.name);
    for other in &port.altnames {
        let _ = write!(name, " ({})", safe(other));
    }
    let number = match (port.role, port.vmid) {
        (Role::Container, Some(vmid)) => format!("ct {vmid}"),
        (_, Some(vmid)) => format!("vm {vmid}"),
        (_, None) => String::new(),
    };
    let container = port.container.as_deref().map(safe).unwrap_or_default();
    let whose = format!("{number} {container}");
    let trunks = port.trunks.iter().map(ToString::to_string);
    let vlans: Vec<String> = port
        .vlan
        .iter()
        .map(ToString::to_string)
        .chain(trunks)
        .collect();
    [
        name,
        port.role.as_str().to_owned(),
        match whose.trim() {
            "" => "-".to_owned(),
            whose => whose.to_owned(),
        },
        port.state.to_owned(),
        if vlans.is_empty() {
            "-".to_owned()
        } else {
            vlans.join(",")
        },
        amount(port.rx_bytes, |old| old.rx_bytes),
        amount(port.tx_bytes, |old| old.tx_bytes),
        port.dropped.to_string(),
        port.errors.to_string(),
    ]
}

fn paint_state(state: &str, colour: Colour) -> String {
    let code = match state {
        "up" => GREEN,
        "missing" => RED,
        _ => YELLOW,
    };
    colour.paint(code, state)
}

fn list(texts: &[String]) -> String {
    texts
        .iter()
        .map(|text| safe(text))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Three digits and a unit.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut whole, mut tenths, mut unit) = (count, 0, 0);
    while whole >= 1000 && unit + 1 < UNITS.len() {
        (whole, tenths, unit) = (whole / 1000, whole % 1000 / 100, unit + 1);
    }
    if unit == 0 || whole >= 100 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{tenths} {}", UNITS[unit])
    }
}

fn ago(since_s: Option<u64>) -> String {
    let Some(since) = since_s else {
        return "never".to_owned();
    };
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    match now.saturating_sub(since) {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::picture::picture;
    use crate::network::picture::tests::sample;

    #[test]
    fn the_picture_says_who_is_attached_and_what_is_wrong() {
        let text = draw(&picture(&sample("web-1")), None, Colour::new(false));
        for expected in [
            "bridge ovsbr0  up  ovs netdev standalone  3 flows",
            "ct 100 web-1",
            "vm 102 web-1",
            "missing",
            "5.0 MB",
            "bridge vmbr0  up  linux",
            "tunnel wg0  up  port 51820",
            "default route  via 192.0.2.254  dev eth0  metric 100",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(
            !text.contains('\u{1b}'),
            "no colour where it was not asked for"
        );
    }

    #[test]
    fn a_foreign_name_moves_no_cursor_and_forges_no_line() {
        let evil = "x\u{1b}[2J\nbridge forged\u{202e}";
        let text = draw(&picture(&sample(evil)), None, Colour::new(false));
        assert!(
            text.bytes()
                .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte))
        );
        assert!(!text.lines().any(|line| line.starts_with("bridge forged")));
    }

    #[test]
    fn amounts_have_three_digits_and_a_unit() {
        for (count, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (99_999, "99.9 kB"),
            (123_456_789, "123 MB"),
            (u64::MAX, "18446 PB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
    }

    #[test]
    fn with_an_earlier_picture_amounts_are_rates() {
        let then = Instant::now() - std::time::Duration::from_secs(2);
        let mut earlier = picture(&sample("web-1"));
        earlier.bridges[0].ports[0].tx_bytes = 1_000_000;
        let now = picture(&sample("web-1"));
        let text = draw(&now, Some(&(then, earlier)), Colour::new(false));
        assert!(text.contains("MB/s") && text.contains("0 B/s"), "{text}");
    }
}
