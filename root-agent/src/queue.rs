//! First come, first served per resource; used by the front, which keeps the order of arrival, and by the gate, which
//! does not take a front's word for it. A job waits until nothing ahead of it on any of its resources is in its way;
//! readers of a resource do not wait for its readers. Places on all resources are taken at once on arrival, so no cycle can arise.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A job waits for as long as its action may take, and as long again, this at most. Clients wait longer, so that they
/// hear of it.
const GRACE: Duration = Duration::from_secs(30);
/// No job waits longer than this, whatever the policy says about its action.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The answer to one that has waited for too long.
pub const TOO_LONG: &str =
    "others were at it for longer than this may wait; nothing was executed, try again";

/// When a job that has not begun by then is given up.
pub fn patience(limit: Duration, now: Instant) -> Instant {
    let limit = limit.min(LONGEST);
    now + limit + limit.min(GRACE)
}

/// Who waits for what. Jobs are numbers that grow with their arrival, so that order is a comparison and nothing is ever
/// searched: thousands of jobs on one machine cost each other next to nothing.
#[derive(Debug)]
pub struct ResourceQueues<K> {
    queues: HashMap<K, Queue>,
    jobs: HashMap<u64, Job<K>>,
}

#[derive(Debug)]
struct Job<K> {
    /// Each with whether readers may be at it meanwhile.
    resources: Vec<(K, bool)>,
    running: bool,
}

/// The jobs at one resource.
#[derive(Debug, Default)]
struct Queue {
    shared: BTreeSet<u64>,
    exclusive: BTreeSet<u64>,
}

impl Queue {
    fn first_exclusive(&self) -> u64 {
        self.exclusive.first().copied().unwrap_or(u64::MAX)
    }

    fn lets(&self, job: u64, shared: bool) -> bool {
        // Nobody stands in their own way, who named a thing twice.
        if shared {
            job <= self.first_exclusive()
        } else {
            job == self.first_exclusive() && self.shared.first().is_none_or(|&other| other >= job)
        }
    }
}

impl<K> Default for ResourceQueues<K> {
    fn default() -> Self {
        Self {
            queues: HashMap::new(),
            jobs: HashMap::new(),
        }
    }
}

impl<K: Hash + Eq + Clone> ResourceQueues<K> {
    /// Takes a place on each resource, beside other readers where it only reads; `job` is greater than every number before it.
    /// True when it may run at once.
    pub fn arrive(&mut self, job: u64, resources: Vec<(K, bool)>) -> bool {
        for (resource, shared) in &resources {
            let queue = self.queues.entry(resource.clone()).or_default();
            if *shared {
                queue.shared.insert(job);
            } else {
                queue.exclusive.insert(job);
            }
        }
        let entry = Job {
            resources,
            running: false,
        };
        self.jobs.insert(job, entry);
        self.may_begin(job)
    }

    /// Gives the places up. Returns the jobs that were waiting behind it and may run now, in order of arrival.
    pub fn leave(&mut self, job: u64) -> Vec<u64> {
        let Some(left) = self.jobs.remove(&job) else {
            return Vec::new();
        };
        let mut next = BTreeSet::new();
        for (resource, shared) in &left.resources {
            let Some(queue) = self.queues.get_mut(resource) else {
                continue;
            };
            queue.shared.remove(&job);
            queue.exclusive.remove(&job);
            let first = queue.first_exclusive();
            if first != u64::MAX {
                next.insert(first);
            }
            // Readers wait for no reader.
            if !shared {
                next.extend(queue.shared.range(..first));
            }
            if queue.shared.is_empty() && queue.exclusive.is_empty() {
                self.queues.remove(resource);
            }
        }
        next.into_iter()
            .filter(|&other| self.may_begin(other))
            .collect()
    }

    /// Whether it can run now and does not yet; it does then.
    fn may_begin(&mut self, job: u64) -> bool {
        let Some(entry) = self.jobs.get_mut(&job) else {
            return false;
        };
        let queues = &self.queues;
        let lets = |(resource, shared): &(K, bool)| {
            queues
                .get(resource)
                .is_none_or(|queue: &Queue| queue.lets(job, *shared))
        };
        if entry.running || !entry.resources.iter().all(lets) {
            return false;
        }
        entry.running = true;
        true
    }

    /// Jobs that hold or wait for something.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// No job at all.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Queues = ResourceQueues<&'static str>;

    fn arrive(queues: &mut Queues, job: u64, names: &[&'static str], shared: bool) -> bool {
        let claims = names.iter().map(|&name| (name, shared));
        queues.arrive(job, claims.collect())
    }

    #[test]
    fn what_waits_is_given_up_before_its_client_gives_up() {
        let now = Instant::now();
        let limit = Duration::from_secs(600);
        let until = patience(limit, now);
        assert!(until > now + limit);
        assert!(until < now + limit + blockhost_proto::client::QUEUE_ALLOWANCE);
        assert!(patience(Duration::MAX, now) <= now + LONGEST + GRACE);
    }

    #[test]
    fn a_job_waits_for_every_one_of_its_resources() {
        let mut queues = ResourceQueues::default();
        assert!(arrive(&mut queues, 1, &["vm:100"], false));
        assert!(arrive(&mut queues, 2, &["vm:101"], false));
        assert!(!arrive(&mut queues, 3, &["vm:100", "vm:101"], false));
        assert!(queues.leave(1).is_empty(), "vm:101 is still taken");
        assert_eq!(queues.leave(2), [3]);
    }

    #[test]
    fn arrival_order_holds_on_one_resource() {
        let mut queues = ResourceQueues::default();
        assert!(arrive(&mut queues, 1, &["firewall"], false));
        assert!(!arrive(&mut queues, 2, &["firewall"], false));
        assert!(!arrive(&mut queues, 3, &["firewall"], false));
        assert_eq!(queues.leave(1), [2]);
        assert_eq!(queues.leave(2), [3]);
        assert!(queues.leave(3).is_empty());
        assert!(
            queues.is_empty() && queues.queues.is_empty(),
            "nothing may be left behind"
        );
    }

    #[test]
    fn readers_share_but_do_not_overtake_a_writer() {
        let mut queues = ResourceQueues::default();
        assert!(arrive(&mut queues, 1, &["vm:100"], true));
        assert!(arrive(&mut queues, 2, &["vm:100"], true));
        assert!(!arrive(&mut queues, 3, &["vm:100"], false));
        assert!(!arrive(&mut queues, 4, &["vm:100"], true));
        assert!(queues.leave(1).is_empty());
        assert_eq!(queues.leave(2), [3]);
        assert_eq!(queues.leave(3), [4]);
    }

    #[test]
    fn readers_of_one_thing_that_change_others_run_at_once_and_what_changes_that_one_waits_for_all()
    {
        let mut queues = Queues::default();
        let clone = |newid| vec![("vm:9000", true), (newid, false)];
        assert!(queues.arrive(1, clone("vm:100")));
        assert!(queues.arrive(2, clone("vm:101")));
        assert!(!arrive(&mut queues, 3, &["vm:9000"], false), "destroyed");
        assert!(!arrive(&mut queues, 4, &["vm:101"], false), "started");
        assert!(!queues.arrive(5, clone("vm:102")), "behind the end of it");
        assert_eq!(queues.leave(2), [4]);
        assert_eq!(queues.leave(1), [3]);
        assert_eq!(queues.leave(3), [5]);
        assert!(queues.leave(4).is_empty() && queues.leave(5).is_empty());
        assert!(queues.is_empty() && queues.queues.is_empty());
    }

    #[test]
    fn who_reads_and_changes_one_thing_does_not_wait_for_itself() {
        let mut queues = Queues::default();
        assert!(queues.arrive(1, vec![("a", true), ("a", false)]));
        assert!(!arrive(&mut queues, 2, &["a"], true));
        assert_eq!(queues.leave(1), [2]);
    }

    #[test]
    fn thousands_of_jobs_on_one_machine_do_not_slow_each_other_down() {
        let mut queues = ResourceQueues::default();
        let jobs = 20_000u64;
        let begun = (1..=jobs).filter(|&job| arrive(&mut queues, job, &["vm:100"], job % 3 == 0));
        assert_eq!(begun.collect::<Vec<_>>(), [1]);
        // Searching a queue for each of them would take minutes.
        let mut running = BTreeSet::from([1]);
        let mut order = Vec::new();
        while let Some(job) = running.pop_first() {
            order.push(job);
            running.extend(queues.leave(job));
        }
        assert!(order.is_sorted() && order.len() as u64 == jobs);
    }

    #[test]
    fn a_job_is_let_in_once() {
        let mut queues = ResourceQueues::default();
        assert!(arrive(&mut queues, 1, &["a"], false));
        assert!(!arrive(&mut queues, 2, &["a"], true));
        assert!(!arrive(&mut queues, 3, &["a"], true));
        assert_eq!(queues.leave(1), [2, 3]);
        assert!(queues.leave(2).is_empty(), "3 runs already");
        assert!(queues.leave(2).is_empty(), "gone");
    }

    #[test]
    fn the_same_resource_named_twice_does_not_block_the_job_itself() {
        let mut queues = ResourceQueues::default();
        assert!(arrive(&mut queues, 1, &["vm:100", "vm:100"], false));
        assert!(!arrive(&mut queues, 2, &["vm:100"], false));
        assert_eq!(queues.leave(1), [2]);
    }

    #[test]
    fn a_job_without_resources_never_waits() {
        let mut queues: ResourceQueues<&str> = ResourceQueues::default();
        assert!(arrive(&mut queues, 1, &[], false));
        assert!(queues.leave(1).is_empty());
    }
}
