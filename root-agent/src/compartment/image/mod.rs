//! The `image` compartment: what `virt-customize` does to a disk image, as a user that owns nothing else.

use blockhost_proto::action::Action;
use blockhost_proto::response::ErrorCode;

use super::{Done, Failure, Handler, JobCtx, StartInfo};

struct Image;

/// Opens what is needed; called before confinement.
///
/// # Errors
/// One sentence when the compartment cannot work at all.
pub fn prepare(_start: &StartInfo<'_>) -> Result<Box<dyn Handler>, String> {
    Ok(Box::new(Image))
}

impl Handler for Image {
    fn quick(&self, _action: &Action) -> bool {
        false
    }

    fn run(&self, action: &Action, _ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        Err(Failure::new(
            ErrorCode::Internal,
            format!(
                "{} was sent to the image compartment, which cannot do it",
                action.name()
            ),
        ))
    }
}
