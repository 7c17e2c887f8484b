//! The seam to the root agent: one call per connection, so that a long wait between two calls costs nothing.
//! Tests put a recorder in its place to see what would be asked, and in which order.

use std::time::Duration;

use blockhost_proto::Layout;
use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::Client;
use blockhost_proto::client::{CallError, Reply};

/// Whoever executes actions.
pub trait Agent {
    /// Asks for one action and waits for its end; `timeout` replaces the action's own limit.
    ///
    /// # Errors
    /// [`CallError`].
    fn call(&self, action: &Action, timeout: Option<Duration>) -> Result<Reply, CallError>;
}

/// The agent of a world, behind its socket.
#[derive(Debug, Clone)]
pub struct SocketAgent {
    layout: Layout,
}

impl SocketAgent {
    /// The agent of this world; nothing is connected yet.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self {
            layout: layout.clone(),
        }
    }
}

impl Agent for SocketAgent {
    fn call(&self, action: &Action, timeout: Option<Duration>) -> Result<Reply, CallError> {
        let mut client = Client::connect_layout(&self.layout)?;
        match timeout {
            Some(timeout) => client.call_with_timeout(action, timeout),
            None => client.call(action),
        }
    }
}
