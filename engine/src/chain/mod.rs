//! Everything that talks to the EVM chain: bindings made from the committed ABI, several RPC endpoints behind one
//! face, events decoded into our types, transactions that are never sent twice to effect. Decisions about machines
//! are in [`crate::handler`].

pub mod bindings;
pub mod deploy;
pub mod events;
pub mod logs;
pub mod nonce;
pub mod plans;
pub mod rpc;
pub mod transport;
pub mod tx;

pub use alloy::primitives::{Address, B256, Bytes, U256};
pub use rpc::{Chain, ChainError};
