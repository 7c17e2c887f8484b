//! All processors for what can be judged by itself: pieces of logs, signatures, block files, whole sealed segments. Used by
//! `verify` alone; a start of the writer reads what is not sealed, with one.

use crate::merkle::Hash;
use crate::scan::{Body, Scan};
use crate::sealed::Records;
use crate::sealed_file::{SealedError, SealedFile};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};

type Job = Box<dyn FnOnce() + Send>;

/// Workers, and what they have been asked to do. Whoever wants a result must be able to find it without them: a job fills
/// a `OnceLock` that whoever needs it first fills himself.
#[derive(Default)]
pub(crate) struct Pool {
    workers: usize,
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    ended: bool,
}

impl Pool {
    /// Calls `work` beside a worker for each processor, or none where no thread can be started.
    pub fn beside<R>(work: impl FnOnce(&Self) -> R) -> R {
        let pool = Self {
            workers: processors(),
            ..Self::default()
        };
        std::thread::scope(|scope| {
            for _ in 0..pool.workers {
                let worker = std::thread::Builder::new().name("verify".to_owned());
                if worker.spawn_scoped(scope, || pool.work()).is_err() {
                    break;
                }
            }
            // Also when `work` panics.
            let _ended = Ended(&pool);
            work(&pool)
        })
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Some worker will do it, if it is not too late then.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.waiting.push_back(Box::new(job));
        drop(jobs);
        self.changed.notify_one();
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            job();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if jobs.ended {
                return None;
            }
            if let Some(job) = jobs.waiting.pop_front() {
                return Some(job);
            }
            let changed = self.changed.wait(jobs);
            jobs = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Sends the workers home when it is dropped; what nobody has begun by then nobody waits for.
struct Ended<'p>(&'p Pool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut jobs = self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.ended = true;
        drop(jobs);
        self.0.changed.notify_all();
    }
}

/// How many there are.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

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
    let workers = processors();
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
