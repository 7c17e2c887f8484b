//! `blockhost ledger ...`: where the ledger is in this world, and the way to the agent that writes it. The commands
//! themselves live in the ledger crate.

pub use blockhost_ledger::cli::LedgerArgs;
use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::Client;
use blockhost_proto::layout::Layout;
use serde_json::Value;
use std::process::ExitCode;

/// Runs a ledger command on this world's ledger.
#[must_use]
pub fn run(args: LedgerArgs, layout: &Layout) -> ExitCode {
    let ask = |name: &str, params: &Value| {
        let action = Action::from_parts(name, params).map_err(|error| error.to_string())?;
        let mut client = Client::connect_layout(layout).map_err(|error| error.to_string())?;
        let reply = client.call(&action).map_err(|error| error.to_string())?;
        let mut fields = reply.extra;
        if let Some(receipt) = reply.receipt {
            let receipt = serde_json::json!({"index": receipt.index, "leaf": receipt.leaf});
            fields.insert("receipt".to_owned(), receipt);
        }
        Ok(Value::Object(fields))
    };
    blockhost_ledger::cli::run_with(args, &layout.ledger(), Some(&ask))
}
