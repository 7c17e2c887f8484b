//! First come, first served per resource. A job waits until nothing ahead of it on any of its resources is in its way;
//! readers do not wait for readers. Places on all resources are taken at once on arrival, so no cycle can arise.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Queues of job numbers per resource.
#[derive(Debug)]
pub struct ResourceQueues<K> {
    queues: HashMap<K, VecDeque<(u64, bool)>>,
    jobs: HashMap<u64, Vec<K>>,
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
    /// Takes a place on each resource. True when the job may run at once.
    pub fn arrive(&mut self, job: u64, resources: Vec<K>, shared: bool) -> bool {
        for resource in &resources {
            self.queues
                .entry(resource.clone())
                .or_default()
                .push_back((job, shared));
        }
        self.jobs.insert(job, resources);
        self.may_run(job)
    }

    /// Gives the places up. Returns the jobs that were waiting behind it and may run now, in order of arrival.
    pub fn leave(&mut self, job: u64) -> Vec<u64> {
        let resources = self.jobs.get(&job).cloned().unwrap_or_default();
        let mut waiting: Vec<u64> = resources
            .iter()
            .filter_map(|resource| self.queues.get(resource))
            .flat_map(|queue| queue.iter().map(|&(other, _)| other))
            .filter(|&other| other != job && !self.may_run(other))
            .collect();
        self.jobs.remove(&job);
        for resource in resources {
            if let Some(queue) = self.queues.get_mut(&resource) {
                queue.retain(|&(other, _)| other != job);
                if queue.is_empty() {
                    self.queues.remove(&resource);
                }
            }
        }
        waiting.sort_unstable();
        waiting.dedup();
        waiting.retain(|&other| self.may_run(other));
        waiting
    }

    /// Jobs that hold or wait for something.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// No job at all.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    fn may_run(&self, job: u64) -> bool {
        self.jobs.get(&job).is_some_and(|resources| {
            resources.iter().all(|resource| {
                let queue = self.queues.get(resource).map(|queue| queue.iter());
                let mut ahead = queue
                    .into_iter()
                    .flatten()
                    .take_while(|&&(other, _)| other != job);
                let shared = self
                    .queues
                    .get(resource)
                    .is_some_and(|queue| queue.iter().any(|&(j, s)| j == job && s));
                ahead.all(|&(_, other_shared)| shared && other_shared)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_waits_for_every_one_of_its_resources() {
        let mut queues = ResourceQueues::default();
        assert!(queues.arrive(1, vec!["vm:100"], false));
        assert!(queues.arrive(2, vec!["vm:101"], false));
        assert!(!queues.arrive(3, vec!["vm:100", "vm:101"], false));
        assert!(queues.leave(1).is_empty(), "vm:101 is still taken");
        assert_eq!(queues.leave(2), [3]);
    }

    #[test]
    fn arrival_order_holds_on_one_resource() {
        let mut queues = ResourceQueues::default();
        assert!(queues.arrive(1, vec!["firewall"], false));
        assert!(!queues.arrive(2, vec!["firewall"], false));
        assert!(!queues.arrive(3, vec!["firewall"], false));
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
        assert!(queues.arrive(1, vec!["vm:100"], true));
        assert!(queues.arrive(2, vec!["vm:100"], true));
        assert!(!queues.arrive(3, vec!["vm:100"], false));
        assert!(!queues.arrive(4, vec!["vm:100"], true));
        assert!(queues.leave(1).is_empty());
        assert_eq!(queues.leave(2), [3]);
        assert_eq!(queues.leave(3), [4]);
    }

    #[test]
    fn the_same_resource_named_twice_does_not_block_the_job_itself() {
        let mut queues = ResourceQueues::default();
        assert!(queues.arrive(1, vec!["vm:100", "vm:100"], false));
        assert!(!queues.arrive(2, vec!["vm:100"], false));
        assert_eq!(queues.leave(1), [2]);
    }

    #[test]
    fn a_job_without_resources_never_waits() {
        let mut queues: ResourceQueues<&str> = ResourceQueues::default();
        assert!(queues.arrive(1, Vec::new(), false));
        assert!(queues.leave(1).is_empty());
    }
}
