//! The client of a broker: asks it for this host's IPv6 network over HTTP, judges its answer, has the root agent keep it and
//! bring up the tunnel that the network comes by. The agent speaks to no broker; nothing here has a privilege. [`answer`] and
//! [`plan`] are pure, [`run`] does what they say, [`down`] takes it back, `blockhost broker` calls both.

pub mod answer;
pub mod down;
pub mod http;
pub mod kept;
pub mod plan;
pub mod run;

/// The tunnel that leads to the broker.
pub const TUNNEL: &str = "wg-broker";
