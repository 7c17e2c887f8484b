//! The status as one screen for people.

use super::{HeadsPart, Part, Status};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The screen.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut screen = String::new();
    let mut line = |name: &str, text: &str| {
        // What others wrote (nodes, databases) must not steer the terminal.
        let text: String = text
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        let _ = writeln!(screen, "{name:<11} {text}");
    };
    let engine = match &status.engine_running {
        Part::Known(true) => "running".to_owned(),
        Part::Known(false) => "not running".to_owned(),
        Part::Unknown { error } => error.clone(),
    };
    line("engine", &format!("{engine}, version {}", status.version));
    line(
        "chain",
        &part(&status.chain, |chain| {
            let read = match chain.processed {
                Some(block) if chain.behind() == 0 => format!("read up to {block}"),
                Some(block) => format!("read up to {block}, {} behind", chain.behind()),
                None => "nothing read yet".to_owned(),
            };
            format!(
                "id {}, head {} at {}, {read}",
                chain.chain_id, chain.head, chain.endpoint
            )
        }),
    );
    line(
        "plans",
        &part(&status.plans, |plans| {
            format!("{} open, {} closed", plans.open, plans.closed)
        }),
    );
    if status.heads != Part::Known(None) {
        line("websocket", &part(&status.heads, websocket));
    }
    line(
        "account",
        &part(&status.account, |account| {
            format!("{} ether at {}", account.balance_ether, account.address)
        }),
    );
    line(
        "agent",
        &part(&status.agent, |agent| {
            format!(
                "version {}, backend {}, up {}, requests: {}",
                agent.version,
                agent.backend,
                span(agent.uptime_s),
                counts(&agent.requests)
            )
        }),
    );
    line(
        "jobs",
        &part(&status.jobs, |jobs| {
            let oldest = jobs.oldest_open_s.map_or(String::new(), |s| {
                format!(", the oldest open one is {} old", span(s))
            });
            format!("{}{oldest}", counts(&jobs.by_state))
        }),
    );
    line(
        "machines",
        &part(&status.machines, |machines| {
            format!(
                "{}, {} in the making, {} expire within a day",
                counts(&machines.by_status),
                machines.in_the_making,
                machines.expire_within_a_day
            )
        }),
    );
    if let Some(machines) = status.machines.known() {
        let pools: Vec<String> = machines
            .pools
            .iter()
            .map(|pool| format!("{} {} of {} free", pool.name, pool.free, pool.size))
            .collect();
        line("pools", &pools.join(", "));
    }
    line(
        "ledger",
        &part(&status.ledger, |ledger| {
            let root: String = ledger.root.chars().take(16).collect();
            format!("{} records, head {root}, {}", ledger.size, ledger.origin)
        }),
    );
    line(
        "space",
        &part(&status.space, |space| {
            let parts: Vec<String> = space
                .iter()
                .map(|one| {
                    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
                    let (free, size) = (gib(one.free_bytes), gib(one.size_bytes));
                    format!("{} {free:.1} of {size:.1} GiB free", one.name)
                })
                .collect();
            parts.join(", ")
        }),
    );
    line(
        "broker",
        &part(&status.broker, |broker| match broker {
            None => "no IPv6 network".to_owned(),
            Some(broker) => {
                let until = broker.lease_until.as_ref();
                let until = until.map_or(String::new(), |until| format!(", leased until {until}"));
                let tunnel = match broker.tunnel_up {
                    Some(true) => ", tunnel up",
                    Some(false) => ", tunnel down",
                    None => "",
                };
                format!("{}{until}{tunnel}", broker.prefix)
            }
        }),
    );
    line(
        "reconcile",
        &part(&status.reconcile, |report| match report {
            None => "not compared yet".to_owned(),
            Some(report) if report.findings.is_empty() => {
                format!("machines and chain fit together, {}", report.looked_at)
            }
            Some(report) => format!("{} findings, {}", report.findings.len(), report.looked_at),
        }),
    );
    let wanted = status.attention();
    if wanted.is_empty() {
        line("attention", "none needed");
    }
    for one in wanted {
        line("ATTENTION", &one);
    }
    screen
}

fn websocket(heads: &Option<HeadsPart>) -> String {
    let Some(heads) = heads else {
        return "none".to_owned();
    };
    let since = span(u64::try_from(heads.since_s).unwrap_or(0));
    if heads.connected {
        return format!(
            "{} tells of new blocks for {since}, {} times so far",
            heads.endpoint, heads.told
        );
    }
    let why = heads.problem.as_deref().unwrap_or("not connected yet");
    format!("nobody tells of new blocks for {since}: {why}")
}

fn part<T>(part: &Part<T>, text: impl FnOnce(&T) -> String) -> String {
    match part {
        Part::Known(value) => text(value),
        Part::Unknown { error } => format!("unknown: {error}"),
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, n)| format!("{n} {name}"))
        .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::good;
    use super::*;

    #[test]
    fn a_screen_has_one_line_for_each_part_and_says_what_is_unknown() {
        let mut status = good();
        let screen = render(&status);
        assert!(
            screen.contains("up 1 d 1 h") && screen.contains("vmid 98 of 100 free"),
            "{screen}"
        );
        assert!(screen.lines().count() <= 24, "{screen}");
        assert!(screen.contains("none needed"));
        status.chain = Part::Unknown {
            error: "gone \u{1b}[2J".into(),
        };
        let screen = render(&status);
        assert!(
            screen.contains("unknown: gone ?[2J") && !screen.contains('\u{1b}'),
            "{screen}"
        );
        assert!(screen.contains("ATTENTION"));
    }
}
