//! The root agent's protocol: validated types, catalog, wire framing, client.
#![forbid(unsafe_code)]
