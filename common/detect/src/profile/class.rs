//! The class of a guest, by rules that say "unknown" rather than guess.
//!
//! | class | data | rule |
//! |---|---|---|
//! | cyclical | two full days | hour of day explains at least half of the variance of the hourly means once their trend is taken out, p < 0.001 (one-way analysis of variance: Fisher 1925), and the hours differ by 30 % of the mean |
//! | growing | 6 h | a line through the hourly means rises with p < 0.01 (Gauss's least squares, Student's t) by at least a fifth of the mean over the time seen |
//! | bursty | 1 h | the 95th percentile is at least 1.5 times the mean, or the standard deviation half of it |
//! | steady | 1 h | none of these |
//! | unknown | less | |
//!
//! Hours are no independent draws: a random walk has trends and days that look alike. So both tests count as
//! many degrees of freedom as the residuals' autocorrelation leaves (Bartlett 1946). Differences below 0.1 cores
//! are none: an idle guest is steady. Where rhythm and trend are both there, the one that explains more counts.

use evenkeel_common::guest::{ProfileClass, UsageSummary};

use super::statistics::{Line, autocorrelation, effective, f_tail};
use super::summary::Hours;

/// Seconds of data below which nothing is said.
const MIN_S: u64 = 3600;
const MIN_GROWING_HOURS: usize = 6;
/// Two full days, in hours with data.
const MIN_CYCLE_HOURS: usize = 48;
const CYCLE_P: f64 = 0.001;
const CYCLE_SHARE: f64 = 0.5;
const CYCLE_SWING: f64 = 0.3;
const GROWTH_P: f64 = 0.01;
const GROWTH_SHARE: f64 = 0.2;
const BURST_P95: f64 = 1.5;
const BURST_DEVIATION: f64 = 0.5;
/// Cores that make a difference.
const RELEVANT: f64 = 0.1;

/// The class by the CPU use (cores) of a guest that was observed for `observed_s` seconds.
#[must_use]
pub fn classify(observed_s: u64, usage: &UsageSummary, hours: &Hours) -> ProfileClass {
    if observed_s < MIN_S {
        return ProfileClass::Unknown;
    }
    let points: Vec<(f64, f64)> = hours.iter().map(|(hour, m)| (hour as f64, f64::from(m.mean))).collect();
    let growth = growth(&points);
    match (cycle(&points), growth) {
        (Some(rhythm), Some(trend)) if trend > rhythm => ProfileClass::Growing,
        (Some(_), _) => ProfileClass::Cyclical,
        (None, Some(_)) => ProfileClass::Growing,
        (None, None) if bursts(usage) => ProfileClass::Bursty,
        (None, None) => ProfileClass::Steady,
    }
}

fn bursts(usage: &UsageSummary) -> bool {
    let far = usage.p95 >= BURST_P95 * usage.mean && usage.p95 - usage.mean >= RELEVANT;
    far || (usage.std_dev >= BURST_DEVIATION * usage.mean && usage.std_dev >= RELEVANT)
}

/// Share of the variance that a significant rise explains.
fn growth(points: &[(f64, f64)]) -> Option<f64> {
    if points.len() < MIN_GROWING_HOURS {
        return None;
    }
    let line = Line::fit(points)?;
    let (first, last) = (points.first()?.0, points.last()?.0);
    let rise = line.slope * (last - first);
    if rise < (GROWTH_SHARE * line.mean).max(RELEVANT) {
        return None;
    }
    let residuals: Vec<f64> = points.iter().map(|p| p.1 - line.at(p.0)).collect();
    let freedom = effective(points.len() as f64, autocorrelation(&residuals)) - 2.0;
    let f = line.share / (1.0 - line.share) * freedom;
    (f_tail(f, 1.0, freedom) < GROWTH_P).then_some(line.share)
}

/// Share of the variance that a significant daily rhythm explains.
fn cycle(points: &[(f64, f64)]) -> Option<f64> {
    let line = Line::fit(points)?;
    let span = points.last()?.0 - points.first()?.0 + 1.0;
    if points.len() < MIN_CYCLE_HOURS || span < MIN_CYCLE_HOURS as f64 {
        return None;
    }
    let (mut sums, mut counts) = ([0.0; 24], [0_u32; 24]);
    let detrended: Vec<(usize, f64)> =
        points.iter().map(|p| ((p.0 as i64).rem_euclid(24) as usize, p.1 - line.at(p.0))).collect();
    for &(bin, value) in &detrended {
        sums[bin] += value;
        counts[bin] += 1;
    }
    // A bin that was seen once explains itself.
    if counts.iter().any(|&count| count < 2) {
        return None;
    }
    let means: [f64; 24] = std::array::from_fn(|bin| sums[bin] / f64::from(counts[bin]));
    let between: f64 = means.iter().zip(counts).map(|(mean, count)| f64::from(count) * mean * mean).sum();
    let residuals: Vec<f64> = detrended.iter().map(|&(bin, value)| value - means[bin]).collect();
    let within: f64 = residuals.iter().map(|r| r * r).sum();
    let swing = means.iter().copied().fold(f64::MIN, f64::max) - means.iter().copied().fold(f64::MAX, f64::min);
    let share = between / (between + within);
    if swing < (CYCLE_SWING * line.mean).max(RELEVANT) || share < CYCLE_SHARE {
        return None;
    }
    let freedom = effective(points.len() as f64, autocorrelation(&residuals)) - 24.0;
    let f = (between / 23.0) / (within / freedom);
    // Of the variance before detrending, so that it compares with the trend's share.
    (f_tail(f, 23.0, freedom) < CYCLE_P).then_some(share * (1.0 - line.share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::GuestProfiler;
    use evenkeel_common::id::Vmid;
    use evenkeel_common::time::Timestamp;

    /// Noise of the size of 1, the same for the same arguments.
    fn noise(seed: u64, i: usize) -> f64 {
        let mut z = (seed << 32).wrapping_add(i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// A sample every 30 s, `cpu` of the number of the sample and the hours gone.
    fn class(hours: f64, cpu: impl Fn(usize, f64) -> f64) -> ProfileClass {
        let mut profiler = GuestProfiler::default();
        for i in 0..=(hours * 120.0) as usize {
            let time = Timestamp::from_millis(1_760_000_000_000 + i as i64 * 30_000);
            profiler.observe(time, cpu(i, i as f64 / 120.0).max(0.0), 1e9);
        }
        profiler.profile(Vmid::new(100).unwrap()).class
    }

    fn day(hours: f64) -> f64 {
        (hours / 24.0 * std::f64::consts::TAU).sin()
    }

    #[test]
    fn each_class_by_its_example() {
        assert_eq!(class(0.9, |_, _| 1.0), ProfileClass::Unknown);
        assert_eq!(class(3.0, |i, _| 1.0 + 0.1 * noise(1, i)), ProfileClass::Steady);
        assert_eq!(class(3.0, |i, _| if i % 10 == 0 { 4.0 } else { 0.3 }), ProfileClass::Bursty);
        assert_eq!(class(12.0, |i, h| 1.0 + 0.1 * h + 0.2 * noise(2, i)), ProfileClass::Growing);
        assert_eq!(class(72.0, |i, h| 2.0 + day(h) + 0.3 * noise(3, i)), ProfileClass::Cyclical);
    }

    #[test]
    fn an_idle_guest_is_steady_however_it_flickers() {
        assert_eq!(class(72.0, |i, h| 0.01 + 0.02 * day(h) + 0.03 * noise(4, i)), ProfileClass::Steady);
    }

    #[test]
    fn too_few_periods_make_no_cycle_and_falling_is_not_growing() {
        assert_ne!(class(40.0, |i, h| 2.0 + day(h) + 0.1 * noise(5, i)), ProfileClass::Cyclical);
        assert_ne!(class(12.0, |i, h| 3.0 - 0.2 * h + 0.1 * noise(6, i)), ProfileClass::Growing);
    }

    #[test]
    fn growth_with_a_rhythm_goes_by_what_explains_more() {
        assert_eq!(class(96.0, |_, h| 2.0 + 0.1 * h + 0.3 * day(h)), ProfileClass::Growing);
        assert_eq!(class(96.0, |_, h| 2.0 + 0.004 * h + 1.0 * day(h)), ProfileClass::Cyclical);
    }

    #[test]
    fn a_random_walk_is_seldom_taken_for_a_rhythm() {
        let wrong = (0..60)
            .filter(|&seed| {
                let mut level = 5.0;
                let walk: Vec<f64> = (0..=96 * 120)
                    .map(|i| {
                        level += 0.03 * noise(100 + seed, i);
                        level
                    })
                    .collect();
                class(96.0, |i, _| walk[i]) == ProfileClass::Cyclical
            })
            .count();
        assert!(wrong <= 1, "{wrong} of 60");
    }
}
