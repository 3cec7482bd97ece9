//! Isolation forest: what is easily cut off from the rest by random cuts is unlike the rest.
//!
//! Liu, Ting, Zhou 2008 (ICDM), "Isolation Forest". Each tree is grown on a small random sample by cutting a
//! random feature at a random place between its smallest and largest value, until points stand alone or the
//! tree is as deep as the average one would be. The score is `2 ^ (-mean path length / c(sample size))`, 0 to 1: 0.5 is
//! ordinary, towards 1 is isolated at once. Seeded: the same rows and seed give the same forest.
//!
//! Missing values take the median of the training; constant features are never cut.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chance::Chance;

/// Most features a row may have, most trees, and largest sample: bounds of a stored forest.
pub const MAX_FEATURES: usize = 64;
const MAX_TREES: usize = 500;
const MAX_SAMPLE: usize = 4096;
/// Marks a leaf in [`Cut::feature`].
const LEAF: u8 = u8::MAX;

/// Options of the isolation forest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ForestConfig {
    /// Trees in the forest. More make the score steadier; cost and size grow with them.
    #[schemars(range(min = 10, max = 500))]
    pub trees: u16,
    /// Rows on which each tree is grown. Larger samples hide small groups of anomalies among the normal rows.
    #[schemars(range(min = 16, max = 4096))]
    pub sample_size: u16,
    /// Share of the training rows that may have been anomalous although nobody marked them. Their scores count
    /// as no higher than those of the rest, so a larger share makes the detector more easily alarmed.
    #[schemars(range(min = 0.0, max = 0.2))]
    pub contamination: f64,
}

impl Default for ForestConfig {
    fn default() -> Self {
        Self { trees: 100, sample_size: 256, contamination: 0.001 }
    }
}

/// A node of a tree: a cut, or a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Cut {
    /// Which feature is cut, or [`LEAF`].
    feature: u8,
    /// Where (below goes left), or the path length that a leaf stands for.
    value: f32,
    /// The left child; the right one follows it.
    left: u16,
}

/// A trained forest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IsolationForest {
    /// What stands for a missing value, per feature.
    medians: Vec<f32>,
    /// `c(sample size)`: the mean path length of an unsuccessful search.
    norm: f32,
    trees: Vec<Vec<Cut>>,
}

impl IsolationForest {
    /// Grows a forest. `rows`: each with the same number of features, at most [`MAX_FEATURES`]; NaN = missing.
    /// `None` when there are fewer than two rows, or rows of different or no length.
    #[must_use]
    pub fn train(rows: &[Vec<f32>], config: &ForestConfig, seed: u64) -> Option<Self> {
        let features = rows.first()?.len();
        let even = rows.iter().all(|row| row.len() == features);
        if rows.len() < 2 || !even || features == 0 || features > MAX_FEATURES {
            return None;
        }
        let medians: Vec<f32> = (0..features).map(|f| median(rows.iter().map(|row| row[f]))).collect();
        let sample = usize::from(config.sample_size).clamp(2, MAX_SAMPLE).min(rows.len());
        let depth = usize::BITS - (sample - 1).leading_zeros();
        let mut chance = Chance::new(seed);
        let trees = (0..usize::from(config.trees).clamp(1, MAX_TREES))
            .map(|_| {
                let chosen = chance.sample(rows.len(), sample);
                let mut points: Vec<Vec<f32>> =
                    chosen.iter().map(|&i| filled(&rows[i], &medians).collect()).collect();
                let mut tree = vec![leaf(sample)];
                grow(&mut tree, 0, &mut points, depth, &mut chance);
                tree
            })
            .collect();
        Some(Self { medians, norm: path_of(sample) as f32, trees })
    }

    /// Features of a row.
    #[must_use]
    pub fn features(&self) -> usize {
        self.medians.len()
    }

    /// How isolated a row is, 0 to 1; `None` when it has another number of features or none is known.
    #[must_use]
    pub fn score(&self, row: &[f32]) -> Option<f64> {
        if row.len() != self.medians.len() || row.iter().all(|v| !v.is_finite()) {
            return None;
        }
        let row: Vec<f32> = filled(row, &self.medians).collect();
        Some(self.score_filled(&row))
    }

    /// By how much each feature raises the score: the score minus that with the feature at its median.
    /// Of nothing known, all zero.
    #[must_use]
    pub fn attribution(&self, row: &[f32]) -> Vec<f64> {
        let Some(score) = self.score(row) else { return vec![0.0; row.len()] };
        let mut row: Vec<f32> = filled(row, &self.medians).collect();
        (0..row.len())
            .map(|f| {
                let kept = std::mem::replace(&mut row[f], self.medians[f]);
                let without = self.score_filled(&row);
                row[f] = kept;
                score - without
            })
            .collect()
    }

    /// Whether a stored forest can be walked without surprise: children come after their parents.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let features = self.medians.len();
        let cut = |(i, cut): (usize, &Cut), nodes: usize| {
            let left = usize::from(cut.left);
            cut.value.is_finite()
                && (cut.feature == LEAF
                    || usize::from(cut.feature) < features && left > i && left + 1 < nodes)
        };
        (1..=MAX_FEATURES).contains(&features)
            && self.medians.iter().all(|m| m.is_finite())
            && self.norm.is_finite()
            && self.norm > 0.0
            && (1..=MAX_TREES).contains(&self.trees.len())
            && self.trees.iter().all(|tree| {
                !tree.is_empty()
                    && tree.len() < 2 * MAX_SAMPLE
                    && tree.iter().enumerate().all(|n| cut(n, tree.len()))
            })
    }

    fn score_filled(&self, row: &[f32]) -> f64 {
        let total: f64 = self.trees.iter().map(|tree| f64::from(path(tree, row))).sum();
        (-(total / self.trees.len() as f64) / f64::from(self.norm)).exp2()
    }
}

fn path(tree: &[Cut], row: &[f32]) -> f32 {
    let (mut at, mut depth) = (0, 0.0);
    // Children follow their parents, so this ends even in a damaged tree.
    while let Some(cut) = tree.get(at) {
        if cut.feature == LEAF {
            return depth + cut.value;
        }
        let goes_left = row.get(usize::from(cut.feature)).is_none_or(|&v| v < cut.value);
        let next = usize::from(cut.left) + usize::from(!goes_left);
        if next <= at {
            break;
        }
        at = next;
        depth += 1.0;
    }
    depth
}

fn grow(tree: &mut Vec<Cut>, at: usize, points: &mut [Vec<f32>], depth: u32, chance: &mut Chance) {
    let Some((feature, value)) = (depth > 0).then(|| choose(points, chance)).flatten() else {
        tree[at] = leaf(points.len());
        return;
    };
    let mut left_end = 0;
    for i in 0..points.len() {
        if points[i][feature] < value {
            points.swap(i, left_end);
            left_end += 1;
        }
    }
    let left = tree.len();
    tree[at] = Cut { feature: feature as u8, value, left: left as u16 };
    tree.extend([leaf(0), leaf(0)]);
    let (below, above) = points.split_at_mut(left_end);
    grow(tree, left, below, depth - 1, chance);
    grow(tree, left + 1, above, depth - 1, chance);
}

/// A feature that varies among the points, and a place to cut it; `None` when none does.
fn choose(points: &[Vec<f32>], chance: &mut Chance) -> Option<(usize, f32)> {
    let features = points.first()?.len();
    let spans: Vec<(usize, f32, f32)> = (0..features)
        .filter_map(|f| {
            let low = points.iter().map(|p| p[f]).fold(f32::INFINITY, f32::min);
            let high = points.iter().map(|p| p[f]).fold(f32::NEG_INFINITY, f32::max);
            (high > low).then_some((f, low, high))
        })
        .collect();
    let &(feature, low, high) = spans.get(chance.below(spans.len()))?;
    let value = low + (high - low) * (1.0 - chance.unit()) as f32;
    // Above the lowest, at most the highest: both sides get a point.
    Some((feature, if value > low { value.min(high) } else { high }))
}

fn leaf(points: usize) -> Cut {
    Cut { feature: LEAF, value: path_of(points) as f32, left: 0 }
}

/// Mean path length of an unsuccessful search among `n` points.
fn path_of(n: usize) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    match n {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let n = n as f64;
            2.0 * ((n - 1.0).ln() + EULER) - 2.0 * (n - 1.0) / n
        }
    }
}

fn filled<'a>(row: &'a [f32], medians: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    row.iter().zip(medians).map(|(&v, &m)| if v.is_finite() { v } else { m })
}

fn median(values: impl Iterator<Item = f32>) -> f32 {
    let mut known: Vec<f32> = values.filter(|v| v.is_finite()).collect();
    if known.is_empty() {
        return 0.0;
    }
    let middle = known.len() / 2;
    *known.select_nth_unstable_by(middle, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cloud(n: usize) -> Vec<Vec<f32>> {
        let mut chance = Chance::new(9);
        let mut bell = || (0..12).map(|_| chance.unit()).sum::<f64>() as f32 - 6.0;
        (0..n).map(|_| vec![bell(), bell() * 10.0, 5.0]).collect()
    }

    #[test]
    fn the_outsider_stands_alone_and_is_explained() {
        let forest = IsolationForest::train(&cloud(1000), &ForestConfig::default(), 1).unwrap();
        let inside = forest.score(&[0.0, 0.0, 5.0]).unwrap();
        let outside = forest.score(&[0.0, 80.0, 5.0]).unwrap();
        assert!(inside < 0.5 && outside > 0.6, "{inside} {outside}");
        let why = forest.attribution(&[0.0, 80.0, 5.0]);
        assert!(why[1] > 0.1 && why[0].abs() < 0.05 && why[2] == 0.0, "{why:?}");
        assert!(forest.is_sound());
    }

    #[test]
    fn mean_path_lengths_are_those_of_the_paper() {
        assert!((path_of(256) - 10.244_8).abs() < 1e-3, "{}", path_of(256));
    }

    #[test]
    fn the_seed_decides() {
        let train = |seed| IsolationForest::train(&cloud(300), &ForestConfig::default(), seed).unwrap();
        assert_eq!(train(1), train(1));
        assert_ne!(train(1), train(2));
    }

    #[test]
    fn flat_missing_and_uneven_rows() {
        let config = ForestConfig::default();
        let flat = IsolationForest::train(&vec![vec![1.0, 2.0]; 50], &config, 1).unwrap();
        assert!(flat.is_sound() && flat.score(&[9.0, 9.0]).unwrap().is_finite());
        assert!(flat.score(&[f32::NAN, 2.0]).is_some() && flat.score(&[f32::NAN; 2]).is_none());
        assert!(flat.score(&[1.0]).is_none());
        assert!(IsolationForest::train(&[vec![1.0], vec![1.0, 2.0]], &config, 1).is_none());
        assert!(IsolationForest::train(&[], &config, 1).is_none());
    }

    proptest! {
        #[test]
        fn scores_are_between_zero_and_one(
            rows in prop::collection::vec(prop::collection::vec(prop::num::f32::ANY, 3), 2..60),
            asked in prop::collection::vec(prop::num::f32::ANY, 3),
        ) {
            let config = ForestConfig { trees: 10, ..ForestConfig::default() };
            let forest = IsolationForest::train(&rows, &config, 3).unwrap();
            prop_assert!(forest.is_sound());
            if let Some(score) = forest.score(&asked) {
                prop_assert!((0.0..=1.0).contains(&score));
            }
            prop_assert!(forest.attribution(&asked).iter().all(|share| share.is_finite()));
        }
    }
}
