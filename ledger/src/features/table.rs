//! What is remembered, in tables of fixed size: 8 places for every key, and when they are taken the least worthy goes.
//! Deterministic, so that a replay forgets the same things.

/// Places that a key can have.
const WAYS: usize = 8;

/// Something a table remembers.
pub(crate) trait Worth: Default + Clone {
    /// What it is worth to keep: the least goes first.
    fn worth(&self) -> u64;
}

/// A table of at most `slots` values by hash.
#[derive(Debug, Clone)]
pub(crate) struct Table<V> {
    slots: Vec<(u64, V)>,
    buckets: u64,
}

impl<V: Worth> Table<V> {
    /// With room for `slots` values; at least 8.
    pub(crate) fn new(slots: usize) -> Self {
        let buckets = (slots / WAYS).max(1);
        Self {
            slots: vec![(0, V::default()); buckets * WAYS],
            buckets: buckets as u64,
        }
    }

    /// The places of a key. Key 0 marks an empty place; a real 0 becomes 1.
    fn bucket(&self, key: u64) -> (u64, usize) {
        let key = key.max(1);
        let bucket = usize::try_from(key % self.buckets).unwrap_or(0);
        (key, bucket * WAYS)
    }

    /// What is remembered of `key`.
    pub(crate) fn get(&self, key: u64) -> Option<&V> {
        let (key, at) = self.bucket(key);
        let places = self.slots.get(at..at + WAYS)?;
        places
            .iter()
            .find(|(other, _)| *other == key)
            .map(|(_, value)| value)
    }

    /// What is remembered of `key`, or a new value in the place of the least worthy.
    pub(crate) fn entry(&mut self, key: u64) -> &mut V {
        let (key, at) = self.bucket(key);
        let places = &self.slots[at..at + WAYS];
        let found = places.iter().position(|(other, _)| *other == key);
        let way = found.unwrap_or_else(|| {
            let worth = |(key, value): &(u64, V)| {
                if *key == 0 { 0 } else { 1 + value.worth() }
            };
            (0..WAYS)
                .min_by_key(|way| worth(&places[*way]))
                .unwrap_or(0)
        });
        let place = &mut self.slots[at + way];
        if found.is_none() {
            *place = (key, V::default());
        }
        &mut place.1
    }

    /// Forgets `key`.
    pub(crate) fn remove(&mut self, key: u64) {
        let (key, at) = self.bucket(key);
        if let Some(place) = self.slots[at..at + WAYS]
            .iter_mut()
            .find(|(other, _)| *other == key)
        {
            *place = (0, V::default());
        }
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<(u64, V)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Default, PartialEq)]
    struct Times(u64);

    impl Worth for Times {
        fn worth(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn a_flood_of_keys_takes_no_more_room_and_forgets_the_least_worthy_first() {
        let mut table = Table::<Times>::new(64);
        let bytes = table.bytes();
        table.entry(7).0 = 1000;
        for key in 100..100_000 {
            table.entry(key).0 = key % 10;
        }
        assert_eq!(table.bytes(), bytes);
        assert_eq!(table.get(7), Some(&Times(1000)));
        table.remove(7);
        assert_eq!(table.get(7), None);
        table.entry(0).0 = 3;
        assert_eq!(table.get(0), Some(&Times(3)), "0 is a key as any other");
    }
}
