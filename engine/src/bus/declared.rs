//! The declarative state over the bus: a document is read, compared and applied by `state`. Deleting is not done here: that
//! needs `blockhost apply --prune`, where a person sees what goes.

use blockhost_proto::escape;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::access::{Caller, Permission};
use super::desk::{Answer, Desk};
use super::error::BusError;
use crate::state::{self, Care, Document, Options, StateError};

/// Larger documents come from a mistake; a file of any size goes through `blockhost apply`.
const MAX_DOCUMENT: usize = 1 << 20;

/// Takes a document apart where that holds up nobody: it may be large, and it is a stranger's.
async fn read(text: String) -> Answer<Document> {
    if text.len() > MAX_DOCUMENT {
        return Err(BusError::argument(
            "document",
            format!("{} bytes; at most {MAX_DOCUMENT}", text.len()),
        ));
    }
    let parsed = tokio::task::spawn_blocking(move || Document::parse("document", &text));
    Ok(parsed.await?.map_err(StateError::from)?)
}

impl Desk {
    /// `QueryState`: of one plugin, or of all where the name is empty.
    pub(super) async fn query_state(&self, caller: Caller, plugin: String) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let plugin = (!plugin.is_empty()).then_some(plugin.as_str());
        let report = state::query(&self.layout, plugin).await?;
        Ok(serde_json::to_string(&report)?)
    }

    /// `ShowDiff`: what an apply of the document would do; without one, what changed since the last apply.
    pub(super) async fn show_diff(&self, caller: Caller, document: String) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let report = if document.is_empty() {
            state::drift(&self.layout, None).await?
        } else {
            state::diff(&self.layout, read(document).await?, false).await?
        };
        Ok(serde_json::to_string(&report)?)
    }

    /// `ApplyState`: makes it so and says what became of each resource.
    pub(super) async fn apply_state(&self, caller: Caller, document: String) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let digest = escape::hex(&Sha256::digest(document.as_bytes()));
        let arguments = json!({"document_sha256": digest, "bytes": document.len()});
        let parsed = read(document).await?;
        let uid = self.authorise(&caller, Permission::ApplyState).await?;
        self.on_behalf(uid, "ApplyState", "state", arguments)
            .await?;
        // Nobody is there to confirm: what could cut the host off stays when its gateways answer, or is taken back.
        let options = Options { prune: false };
        let report = state::apply(&self.layout, parsed, options, Care::default(), |_| {}).await;
        self.look_again().await;
        Ok(serde_json::to_string(&report?)?)
    }
}
