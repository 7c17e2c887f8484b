//! Files that clients name below the image directories: how they are opened and checked, and what a disk image may be.
//! Shared by the compartments that read them; neither starts programs nor knows an action.

pub(super) mod format;
#[cfg(any(test, feature = "fuzz"))]
pub(super) mod fuzz;
pub(super) mod source;
