//! The peer: an isolation forest (Liu, Ting, Zhou 2008) over the 20 features that the seed defines, trained every day
//! on everything before that day: 100 trees of 256 records each. Deterministic.

use crate::random::Random;

const TREES: usize = 100;
const SAMPLE: usize = 256;
const DEPTH: usize = 8;
pub const SEED_FEATURES: usize = 20;

pub type Point = [f64; SEED_FEATURES];

enum Node {
    Leaf(usize),
    Split {
        feature: usize,
        at: f64,
        below: Box<Node>,
        above: Box<Node>,
    },
}

pub struct Forest(Vec<Node>);

impl Forest {
    pub fn train(points: &[Point], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let last = i64::try_from(points.len()).expect("small") - 1;
        let tree = |_| {
            let sample: Vec<&Point> = (0..SAMPLE)
                .map(|_| &points[usize::try_from(random.within(0, last)).expect("positive")])
                .collect();
            grow(sample, 0, &mut random)
        };
        Self((0..TREES).map(tree).collect())
    }

    /// From 0 to 1; the higher, the more alone.
    pub fn score(&self, point: &Point) -> f64 {
        let depth: f64 = self.0.iter().map(|tree| walk(tree, point, 0.0)).sum();
        2_f64.powf(-(depth / count(self.0.len())) / average_path(SAMPLE))
    }
}

fn grow(sample: Vec<&Point>, depth: usize, random: &mut Random) -> Node {
    if sample.len() <= 1 || depth >= DEPTH {
        return Node::Leaf(sample.len());
    }
    let range = |feature: usize| {
        let values = sample.iter().map(|point| point[feature]);
        values.fold((f64::MAX, f64::MIN), |(low, high), v| {
            (low.min(v), high.max(v))
        })
    };
    let varied: Vec<usize> = (0..SEED_FEATURES)
        .filter(|f| range(*f).0 < range(*f).1)
        .collect();
    if varied.is_empty() {
        return Node::Leaf(sample.len());
    }
    let feature = *random.pick(&varied);
    let (low, high) = range(feature);
    let at = low + random.unit() * (high - low);
    let (below, above) = sample.into_iter().partition(|point| point[feature] < at);
    Node::Split {
        feature,
        at,
        below: Box::new(grow(below, depth + 1, random)),
        above: Box::new(grow(above, depth + 1, random)),
    }
}

fn walk(node: &Node, point: &Point, depth: f64) -> f64 {
    match node {
        Node::Leaf(size) => depth + average_path(*size),
        Node::Split {
            feature,
            at,
            below,
            above,
        } => {
            let next = if point[*feature] < *at { below } else { above };
            walk(next, point, depth + 1.0)
        }
    }
}

/// Average depth of an unsuccessful search in a binary tree of `n`.
fn average_path(n: usize) -> f64 {
    if n < 2 {
        return 0.0;
    }
    let m = count(n - 1);
    2.0 * (m.ln() + 0.577_215_664_9) - 2.0 * m / count(n)
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).expect("small"))
}
