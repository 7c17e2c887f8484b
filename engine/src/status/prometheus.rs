//! The status as Prometheus reads it: text exposition format 0.0.4. Names are a contract with dashboards; what is
//! unknown is left out, and `blockhost_part_up` says which part that is.

use super::{Part, Status};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Content type of [`render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        if !labels.is_empty() {
            let labels: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{key}=\"{}\"", escape(value)))
                .collect();
            let _ = write!(self.0, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn by(&mut self, name: &str, kind: &str, help: &str, label: &str, of: &BTreeMap<String, u64>) {
        self.family(name, kind, help);
        for (key, value) in of {
            self.sample(name, &[(label, key)], value);
        }
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn up<T>(part: &Part<T>) -> u8 {
    u8::from(part.known().is_some())
}

/// The page.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut page = Page::default();
    page.family("blockhost_build_info", "gauge", "The version that answers.");
    page.sample("blockhost_build_info", &[("version", status.version)], 1);
    page.family(
        "blockhost_part_up",
        "gauge",
        "Whether a part of the status could be read.",
    );
    for (name, value) in [
        ("account", up(&status.account)),
        ("agent", up(&status.agent)),
        ("anchor", up(&status.anchor)),
        ("broker", up(&status.broker)),
        ("chain", up(&status.chain)),
        ("heads", up(&status.heads)),
        ("jobs", up(&status.jobs)),
        ("ledger", up(&status.ledger)),
        ("machines", up(&status.machines)),
        ("plans", up(&status.plans)),
        ("reconcile", up(&status.reconcile)),
        ("space", up(&status.space)),
    ] {
        page.sample("blockhost_part_up", &[("part", name)], value);
    }
    let running = u8::from(status.engine_running == Part::Known(true));
    page.one(
        "blockhost_engine_running",
        "gauge",
        "Whether an engine runs on this host.",
        running,
    );
    let wanted = status.attention().len();
    page.one(
        "blockhost_attention",
        "gauge",
        "How many things need somebody.",
        wanted,
    );
    if let Some(chain) = status.chain.known() {
        page.one(
            "blockhost_chain_head_block",
            "gauge",
            "The newest block of the chain.",
            chain.head,
        );
        page.one(
            "blockhost_chain_behind_blocks",
            "gauge",
            "Blocks that count and were not read yet.",
            chain.behind(),
        );
        if let Some(block) = chain.processed {
            page.one(
                "blockhost_chain_processed_block",
                "gauge",
                "The last block that was read.",
                block,
            );
        }
    }
    if let Some(plans) = status.plans.known() {
        page.family(
            "blockhost_plans",
            "gauge",
            "Plans of the contract; those that are closed can be neither bought nor extended.",
        );
        for (state, count) in [("open", plans.open), ("closed", plans.closed)] {
            page.sample("blockhost_plans", &[("state", state)], count);
        }
    }
    if let Some(Some(heads)) = status.heads.known() {
        page.one(
            "blockhost_websocket_connected",
            "gauge",
            "Whether a websocket tells of new blocks.",
            u8::from(heads.connected),
        );
        page.one(
            "blockhost_websocket_told_total",
            "counter",
            "How often one told of a new block since the engine started.",
            heads.told,
        );
        page.one(
            "blockhost_websocket_sessions_total",
            "counter",
            "Subscriptions that were made since the engine started.",
            heads.sessions,
        );
    }
    if let Some(account) = status.account.known() {
        page.one(
            "blockhost_account_balance_ether",
            "gauge",
            "Ether of the account that mints.",
            &account.balance_ether,
        );
    }
    if let Some(agent) = status.agent.known() {
        page.one(
            "blockhost_agent_uptime_seconds",
            "gauge",
            "Since the root agent started.",
            agent.uptime_s,
        );
        page.by(
            "blockhost_agent_requests_total",
            "counter",
            "Requests to the root agent since it started.",
            "outcome",
            &agent.requests,
        );
    }
    if let Some(jobs) = status.jobs.known() {
        page.by(
            "blockhost_jobs",
            "gauge",
            "Jobs of the engine.",
            "state",
            &jobs.by_state,
        );
        let oldest = jobs.oldest_open_s.unwrap_or(0);
        page.one(
            "blockhost_jobs_oldest_open_seconds",
            "gauge",
            "Age of the oldest open job; 0 without one.",
            oldest,
        );
    }
    if let Some(machines) = status.machines.known() {
        page.by(
            "blockhost_machines",
            "gauge",
            "Machines in the database.",
            "status",
            &machines.by_status,
        );
        page.one(
            "blockhost_machines_in_the_making",
            "gauge",
            "Machines that are being created.",
            machines.in_the_making,
        );
        page.one(
            "blockhost_machines_expiring",
            "gauge",
            "Active machines that expire within a day.",
            machines.expire_within_a_day,
        );
        page.family(
            "blockhost_pool_size",
            "gauge",
            "Numbers and addresses that can be given out.",
        );
        for pool in &machines.pools {
            page.sample("blockhost_pool_size", &[("pool", pool.name)], pool.size);
        }
        page.family("blockhost_pool_free", "gauge", "Those that are not in use.");
        for pool in &machines.pools {
            page.sample("blockhost_pool_free", &[("pool", pool.name)], pool.free);
        }
    }
    if let Some(ledger) = status.ledger.known() {
        page.one(
            "blockhost_ledger_records",
            "gauge",
            "Records in the published head of the ledger.",
            ledger.size,
        );
    }
    if let Some(standing) = status.anchor.known() {
        page.one(
            "blockhost_anchor_alarm",
            "gauge",
            "Whether the ledger is not the one that was anchored.",
            u8::from(standing.is_some()),
        );
    }
    if let Some(space) = status.space.known() {
        page.family(
            "blockhost_space_size_bytes",
            "gauge",
            "File systems that must not run full.",
        );
        for one in space {
            page.sample(
                "blockhost_space_size_bytes",
                &[("of", one.name)],
                one.size_bytes,
            );
        }
        page.family(
            "blockhost_space_free_bytes",
            "gauge",
            "What is free of them.",
        );
        for one in space {
            page.sample(
                "blockhost_space_free_bytes",
                &[("of", one.name)],
                one.free_bytes,
            );
        }
    }
    if let Some(Some(report)) = status.reconcile.known() {
        page.one(
            "blockhost_reconcile_findings",
            "gauge",
            "What of machines and chain does not fit together.",
            report.findings.len(),
        );
        if let Ok(at) = report.looked_at.parse::<jiff::Timestamp>() {
            page.one(
                "blockhost_reconcile_last_look_timestamp_seconds",
                "gauge",
                "When they were compared.",
                at.as_second(),
            );
        }
    }
    page.0
}

#[cfg(test)]
mod tests {
    use super::super::tests::good;
    use super::*;

    #[test]
    fn every_sample_has_a_family_before_it_and_a_number_behind_it() {
        let page = render(&good());
        let mut families = Vec::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                families.push(rest.split(' ').next().unwrap().to_owned());
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(families.last().map(String::as_str), Some(name), "{line}");
                assert!(
                    line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(),
                    "{line}"
                );
            }
        }
        let unique: std::collections::BTreeSet<_> = families.iter().collect();
        assert_eq!(unique.len(), families.len(), "a family twice");
        assert!(
            page.contains("blockhost_pool_free{pool=\"vmid\"} 98"),
            "{page}"
        );
    }

    /// A rule about a metric that has another name never fires, and nobody notices.
    #[test]
    fn the_shipped_rules_are_yaml_and_speak_of_metrics_that_there_are() {
        let rules = include_str!("../../../docs/alerts/blockhost.rules.yml");
        let parsed: serde_json::Value = serde_saphyr::from_str(rules).unwrap();
        let alerts = parsed["groups"][0]["rules"].as_array().unwrap();
        let mut status = good();
        status.reconcile = Part::Known(Some(super::super::ReconcilePart {
            looked_at: "2026-01-01T00:00:00Z".into(),
            findings: Vec::new(),
        }));
        let page = render(&status);
        for alert in alerts {
            let expr = alert["expr"].as_str().unwrap();
            let mut named = 0;
            for word in expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
                if word.starts_with("blockhost_") {
                    named += 1;
                    assert!(page.contains(&format!("# TYPE {word} ")), "{expr}");
                }
            }
            assert!(named > 0 || expr.starts_with("up{"), "{expr}");
            assert!(alert["annotations"]["summary"].is_string(), "{alert}");
        }
        assert!(alerts.len() > 5);
    }

    #[test]
    fn what_is_unknown_is_left_out_and_said() {
        let mut status = good();
        status.chain = Part::Unknown {
            error: "x\n\"y".into(),
        };
        let page = render(&status);
        assert!(page.contains("blockhost_part_up{part=\"chain\"} 0"));
        assert!(!page.contains("blockhost_chain_head_block "));
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
