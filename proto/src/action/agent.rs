//! `agent-info`: what the agent says about itself, answered without touching anything.

use super::action;

action! {
    /// Version, backend, Landlock ABI, uptime, counters and ledger head.
    AgentInfo = "agent-info", family "agent", compartment Front, capabilities &[],
    time_limit_s 5, read_only true, ledger "agent" / "settings" / "query",
    {}
    resource |_| "agent".to_owned(),
}
