//! OpenFlow 1.4 as far as the catalog needs it. Bytes only; what is wanted of a bridge is decided in `flows` and `meters`.

pub mod connection;
pub mod encode;
pub mod message;
pub mod stats;
