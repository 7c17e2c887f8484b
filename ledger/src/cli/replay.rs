//! Going through the log again for what is computed from it, with a bar where it takes a while.

use super::context::Failure;
use crate::reader::{ReadError, Reader};

/// Gives records `from` to before `to` (leaf indices), in order.
pub(super) fn replay(
    reader: &Reader,
    from: u64,
    to: u64,
    what: &str,
    mut each: impl FnMut(u64, &[u8]),
) -> Result<(), Failure> {
    let bar = super::progress::bar(what);
    let mut result = Ok(());
    for item in reader
        .records(from)
        .take_while(|item| !matches!(item, Ok((index, _)) if *index >= to))
    {
        match item {
            Ok((index, record)) => {
                each(index, &record);
                if index.is_multiple_of(4096) {
                    bar.told(index - from, to - from);
                }
            }
            Err(error) => {
                result = Err(error.into());
                break;
            }
        }
    }
    bar.done();
    result
}

/// The number of records up to `height`, or of all; an error when there are not as many.
pub(super) fn up_to(reader: &Reader, height: Option<u64>) -> Result<u64, Failure> {
    let size = reader.size();
    match height {
        Some(height) if height > size => Err(ReadError::NoRecord {
            index: height - 1,
            size,
        }
        .into()),
        Some(height) => Ok(height),
        None if size == 0 => Err(ReadError::Empty.into()),
        None => Ok(size),
    }
}
