//! Seasonal Hybrid ESD: outliers of a seasonal series, at most so many in a run.
//!
//! The generalised extreme studentized deviate test (Rosner 1983) on what is left of a series when its season and its
//! level are taken away; "hybrid" is median and MAD in place of mean and deviation (Vallis, Hochenbaum,
//! Kejariwal 2014; arXiv 1704.07706), so that the outliers do not hide each other. The season is the median of
//! each phase of the period with its neighbours, over all periods.
//!
//! The rule, which many implementations get wrong: after `i` removals `R_i` is compared with `lambda_i`, and the
//! number of outliers is the **largest** `i` with `R_i > lambda_i`, even when smaller ones fail. Outliers that mask each
//! other look harmless until the first is gone.
//!
//! Flat series: a scale has a floor, given by the caller. Missing values: NaN, left out. Too little data: the
//! season needs three periods; without them there is no verdict.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::student::t_quantile;

/// Turns a MAD into the standard deviation of a normal distribution.
const MAD_TO_SIGMA: f64 = 1.4826;
/// Periods that a season needs.
pub const MIN_PERIODS: usize = 3;

/// Options of the seasonal ESD test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SeasonalEsdConfig {
    /// Length of the season in hours.
    #[schemars(range(min = 1, max = 168))]
    pub period_hours: u16,
    /// Whether a weekly season is taken away as well, once three weeks are known.
    pub weekly: bool,
    /// Most outliers in one run; also how many may hide behind each other.
    #[schemars(range(min = 1, max = 100))]
    pub max_anomalies: u16,
    /// Chance of at least one false outlier in a run on normally distributed data.
    #[schemars(range(min = 0.0001, max = 0.5))]
    pub alpha: f64,
    /// Seconds of one roll-up; seasons are kept in these steps.
    #[schemars(range(min = 60, max = 3600))]
    pub rollup_s: u32,
    /// Days of roll-ups kept per node; 21 or more for the weekly season.
    #[schemars(range(min = 4, max = 60))]
    pub history_days: u16,
}

impl Default for SeasonalEsdConfig {
    fn default() -> Self {
        Self {
            period_hours: 24,
            weekly: true,
            max_anomalies: 10,
            alpha: 0.05,
            rollup_s: 900,
            history_days: 28,
        }
    }
}

/// How centre and spread are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Mean and standard deviation: Rosner's test.
    MeanDeviation,
    /// Median and MAD: the hybrid test.
    MedianMad,
}

/// What a test found.
#[derive(Clone, Debug, PartialEq)]
pub struct Esd {
    /// Places of the outliers in the input, the most extreme first.
    pub outliers: Vec<usize>,
    /// Centre of the rest.
    pub centre: f64,
    /// Spread of the rest as a standard deviation, not below the floor.
    pub scale: f64,
    /// The bound that the next candidate would have to exceed.
    pub lambda: f64,
    /// `(R_i, lambda_i)` for each removal, for whoever wants to see the test.
    pub steps: Vec<(f64, f64)>,
}

/// The generalised ESD test for at most `most` outliers among `values` (NaN = missing).
///
/// `alpha`: chance of a false outlier on normal data. `floor`: smallest scale. `None` with fewer than 15 known
/// values, below which the test's approximation does not hold.
///
/// # Source
/// Rosner 1983, "Percentage points for a generalized ESD many-outlier procedure", Technometrics 25(2).
#[must_use]
pub fn generalised_esd(values: &[f64], most: usize, alpha: f64, spread: Spread, floor: f64) -> Option<Esd> {
    let mut order: Vec<usize> = (0..values.len()).filter(|&i| values[i].is_finite()).collect();
    if order.len() < 15 {
        return None;
    }
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let sorted: Vec<f64> = order.iter().map(|&i| values[i]).collect();
    let most = most.min(sorted.len() / 2);
    // The most extreme value is always at one end of what is left, so what is left is always a range.
    let (mut low, mut high) = (0, sorted.len());
    let mut found = Vec::with_capacity(most);
    let (mut steps, mut count) = (Vec::with_capacity(most), 0);
    let (mut centre, mut scale) = measure(&sorted, spread, floor);
    let (mut last_centre, mut last_scale) = (centre, scale);
    for i in 1..=most {
        let (from_low, from_high) = (centre - sorted[low], sorted[high - 1] - centre);
        let at_low = from_low > from_high;
        let r = from_low.max(from_high) / scale;
        found.push(if at_low { order[low] } else { order[high - 1] });
        if at_low {
            low += 1
        } else {
            high -= 1
        }
        let bound = lambda(sorted.len(), i, alpha);
        steps.push((r, bound));
        (centre, scale) = measure(&sorted[low..high], spread, floor);
        if r > bound {
            count = i;
            (last_centre, last_scale) = (centre, scale);
        }
    }
    found.truncate(count);
    let lambda = lambda(sorted.len(), count + 1, alpha);
    Some(Esd { outliers: found, centre: last_centre, scale: last_scale, lambda, steps })
}

/// Rosner's critical value for the `i`-th removal from `n` values.
#[must_use]
pub fn lambda(n: usize, i: usize, alpha: f64) -> f64 {
    let left = n.saturating_sub(i) as f64;
    let freedom = (left - 1.0).max(1.0);
    let t = t_quantile(1.0 - alpha / (2.0 * (left + 1.0)), freedom);
    left * t / ((freedom + t * t) * (left + 1.0)).sqrt()
}

/// Centre and scale of sorted values.
fn measure(sorted: &[f64], spread: Spread, floor: f64) -> (f64, f64) {
    let n = sorted.len() as f64;
    let (centre, scale) = match spread {
        Spread::MeanDeviation => {
            let mean = sorted.iter().sum::<f64>() / n;
            let squares = sorted.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
            (mean, (squares / (n - 1.0).max(1.0)).sqrt())
        }
        Spread::MedianMad => {
            let centre = middle(sorted);
            let mut away: Vec<f64> = sorted.iter().map(|v| (v - centre).abs()).collect();
            (centre, MAD_TO_SIGMA * median(&mut away).unwrap_or(0.0))
        }
    };
    (centre, scale.max(floor).max(1e-12))
}

/// Median of sorted values; 0 of none.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[half],
        _ => 0.5 * (sorted[half - 1] + sorted[half]),
    }
}

/// Median of finite values; `None` of none.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    let half = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    if values.is_empty() {
        return None;
    }
    let (below, &mut at, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(if even { 0.5 * (lower + at) } else { at })
}

/// The season of a series: the median of each phase with its `reach` neighbours on both sides, over all
/// periods. `first_phase`: phase of `values[0]`. NaN where nothing is known.
#[must_use]
pub fn season(values: &[f64], first_phase: usize, period: usize, reach: usize) -> Vec<f64> {
    let period = period.max(1);
    let mut phases: Vec<Vec<f64>> = vec![Vec::new(); period];
    for (i, &value) in values.iter().enumerate().filter(|(_, v)| v.is_finite()) {
        phases[(first_phase + i) % period].push(value);
    }
    let reach = reach.min((period - 1) / 2);
    (0..period)
        .map(|phase| {
            let near = (0..=2 * reach).map(|k| (phase + period + k - reach) % period);
            let mut pool: Vec<f64> = near.flat_map(|p| phases[p].iter().copied()).collect();
            median(&mut pool).unwrap_or(f64::NAN)
        })
        .collect()
}

/// Seasonal Hybrid ESD of a series at one interval: places of its outliers, the most extreme first.
///
/// `values`: oldest first, NaN = missing. `period`: values in a season. `floor`: smallest scale, in the values'
/// unit. `None` with less than three periods.
#[must_use]
pub fn seasonal_hybrid_esd(
    values: &[f64],
    period: usize,
    config: &SeasonalEsdConfig,
    floor: f64,
) -> Option<Esd> {
    if period < 2 || values.len() < MIN_PERIODS * period {
        return None;
    }
    let season = season(values, 0, period, 1);
    let rest: Vec<f64> = values.iter().enumerate().map(|(i, v)| v - season[i % period]).collect();
    generalised_esd(&rest, usize::from(config.max_anomalies), config.alpha, Spread::MedianMad, floor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;
    use proptest::prelude::*;

    /// The data of Rosner 1983 as printed in the NIST/SEMATECH e-Handbook, 1.3.5.17.3.
    const ROSNER: [f64; 54] = [
        -0.25, 0.68, 0.94, 1.15, 1.20, 1.26, 1.26, 1.34, 1.38, 1.43, 1.49, 1.49, 1.55, 1.56, 1.58, 1.65,
        1.69, 1.70, 1.76, 1.77, 1.81, 1.91, 1.94, 1.96, 1.99, 2.06, 2.09, 2.10, 2.14, 2.15, 2.23, 2.24, 2.26,
        2.35, 2.37, 2.40, 2.47, 2.54, 2.62, 2.64, 2.90, 2.92, 2.92, 2.93, 3.21, 3.26, 3.30, 3.59, 3.68, 4.30,
        4.64, 5.34, 5.42, 6.01,
    ];

    /// The published result: R and lambda of ten removals, three outliers although the first two comparisons
    /// fail. Whoever stops at the first failure finds none.
    #[test]
    fn rosners_example_has_three_outliers() {
        let esd = generalised_esd(&ROSNER, 10, 0.05, Spread::MeanDeviation, 0.0).unwrap();
        let published = [
            (3.118, 3.158),
            (2.942, 3.151),
            (3.179, 3.143),
            (2.810, 3.136),
            (2.815, 3.128),
            (2.848, 3.120),
            (2.279, 3.111),
            (2.310, 3.103),
            (2.101, 3.094),
            (2.067, 3.085),
        ];
        for ((r, bound), (r_known, bound_known)) in esd.steps.iter().zip(published) {
            assert!((r - r_known).abs() < 1.1e-3 && (bound - bound_known).abs() < 1.1e-3, "{r} {bound}");
        }
        assert_eq!(esd.outliers, [53, 52, 51]);
        assert!(esd.steps[0].0 < esd.steps[0].1, "the first comparison fails, and still there are three");
    }

    fn daily(days: usize) -> Vec<f64> {
        let mut chance = Chance::new(2);
        let angle = |i: usize| i as f64 * std::f64::consts::TAU / 96.0;
        (0..96 * days).map(|i| 50.0 + 30.0 * angle(i).sin() + 2.0 * (chance.unit() - 0.5)).collect()
    }

    #[test]
    fn a_value_that_is_ordinary_at_noon_is_an_outlier_at_night() {
        let mut values = daily(7);
        values[96 * 5 + 72] = 75.0; // The trough of the sixth day, at the level of the peak.
        let esd = seasonal_hybrid_esd(&values, 96, &SeasonalEsdConfig::default(), 0.1).unwrap();
        assert_eq!(esd.outliers, [96 * 5 + 72]);
        let config = SeasonalEsdConfig::default();
        assert_eq!(seasonal_hybrid_esd(&daily(7), 96, &config, 0.1).unwrap().outliers, [0_usize; 0]);
        assert_eq!(seasonal_hybrid_esd(&daily(2), 96, &config, 0.1), None);
    }

    #[test]
    fn flat_series_do_not_explode() {
        let mut values = vec![3.0; 96 * 5];
        values[200] = 3.05;
        let config = SeasonalEsdConfig::default();
        let esd = |values: &[f64]| seasonal_hybrid_esd(values, 96, &config, 0.25).unwrap().outliers;
        assert_eq!(esd(&values), [0_usize; 0]);
        values[200] = 9.0;
        assert_eq!(esd(&values), [200]);
    }

    #[test]
    fn at_most_ten_and_missing_is_no_outlier() {
        let mut values = daily(7);
        (0..20).for_each(|i| values[30 + 31 * i] = 500.0);
        values[1] = f64::NAN;
        let esd = seasonal_hybrid_esd(&values, 96, &SeasonalEsdConfig::default(), 0.1).unwrap();
        assert_eq!(esd.outliers.len(), 10);
        assert!(!esd.outliers.contains(&1));
    }

    proptest! {
        #[test]
        fn any_values_give_finite_figures(values in prop::collection::vec(prop::num::f64::NORMAL, 0..200)) {
            let values: Vec<f64> = values.iter().map(|v| v.clamp(-1e9, 1e9)).collect();
            if let Some(esd) = generalised_esd(&values, 10, 0.05, Spread::MedianMad, 0.1) {
                prop_assert!(esd.outliers.len() <= 10 && esd.scale >= 0.1 && esd.centre.is_finite());
                prop_assert!(esd.steps.iter().all(|(r, l)| r.is_finite() && l.is_finite()));
            }
        }
    }
}
