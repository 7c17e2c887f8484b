//! The `keys` compartment.

use super::{Handler, StartInfo};

/// Opens what the compartment needs; called before confinement.
pub fn prepare(_start: &StartInfo<'_>) -> Result<Box<dyn Handler>, String> {
    Err("the keys compartment is not in this build".to_owned())
}
