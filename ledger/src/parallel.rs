//! Checking sealed segments with all processors: each segment can be checked by itself. Called by `verify`.

use crate::merkle::Hash;
use crate::scan::{Body, Scan};
use crate::sealed::Records;
use crate::sealed_file::{SealedError, SealedFile};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// Who is shown each bundle when its records have been checked.
pub(crate) trait Bundles: Sync {
    /// The number of the block whose file is what these records, from leaf index `first`, say; `None` when it is not.
    fn same(&self, first: u64, leaves: &[Hash], records: &Records) -> Option<u64>;
}

/// What is wrong, with the height concerned, in order; and the numbers that `bundles` gave. `progress` is told bytes
/// checked and bytes in all.
pub(crate) fn check_sealed(
    scan: &Scan,
    bundles: &dyn Bundles,
    progress: &mut dyn FnMut(u64, u64),
) -> (Vec<(u64, SealedError)>, Vec<u64>) {
    let files = scan
        .segments
        .iter()
        .filter_map(|segment| match &segment.body {
            Body::Sealed(file) => Some(file),
            Body::Log(_) => None,
        });
    let files: Vec<&Arc<SealedFile>> = files.collect();
    let total = files.iter().map(|file| bytes_of(file)).sum();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let (sender, told) = mpsc::channel();
    let mut found = Vec::new();
    let same = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers.min(files.len()) {
            let (sender, next, files) = (sender.clone(), &next, &files);
            let same = &same;
            scope.spawn(move || {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Nobody listens any more: nothing to say.
                    let checked = file.check(
                        &mut |first, leaves, records| {
                            let block = bundles.same(first, leaves, records);
                            same.lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .extend(block);
                        },
                        &mut |bytes| drop(sender.send(Ok(bytes))),
                    );
                    if let Err(error) = checked {
                        let _ = sender.send(Err((height_of(file, &error), error)));
                    }
                }
            });
        }
        drop(sender);
        let mut done = 0;
        for message in told {
            match message {
                Ok(bytes) => {
                    done += bytes;
                    progress(done, total);
                }
                Err(wrong) => found.push(wrong),
            }
        }
    });
    found.sort_by_key(|(height, _)| *height);
    (
        found,
        same.into_inner().unwrap_or_else(PoisonError::into_inner),
    )
}

fn bytes_of(file: &SealedFile) -> u64 {
    let bundles = file.seal.bundles.iter();
    bundles
        .map(|bundle| u64::from(bundle.compressed))
        .sum::<u64>()
        + file.seal.records * 32
}

fn height_of(file: &SealedFile, error: &SealedError) -> u64 {
    match error {
        SealedError::File(_) => file.seal.first_height,
        SealedError::Damaged { place, .. } => file.seal.first_height + place,
    }
}
