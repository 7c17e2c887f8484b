//! The host's network: what there is (`observe`), and planners that turn it and what is wanted into actions of the catalog.
//! Nothing here has privileges; the root agent carries out. Called by the bus service, the declarative state and commands.

pub mod accounts;
pub mod analytics;
pub mod attach;
pub mod bindings;
pub mod confirm;
pub mod discovery;
pub mod flows;
pub mod names;
pub mod observe;
pub mod picture;
pub mod pools;
pub mod restore;
pub mod standing;
