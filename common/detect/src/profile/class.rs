//! The class of a guest, by rules that say "unknown" rather than guess.
//!
//! | class | data | rule |
//! |---|---|---|
//! | cyclical | two full days | hour of day explains at least half of the variance of the hourly means without their trend, p < 0.001 (one-way analysis of variance: Fisher 1925), and the hours differ by 30 % of the mean |
//! | growing | 6 h | a line through the hourly means rises with p < 0.01 (Gauss's least squares, Student's t) by at least a fifth of the mean over the time seen |
//! | bursty | 1 h | the 95th percentile is at least 1.5 times the mean, or the standard deviation half of it |
//! | steady | 1 h | none of these |
//! | unknown | less | |
//!
//! Hours are no independent draws: a random walk has trends and days that look alike. So both tests count as
//! many degrees of freedom as the residuals' autocorrelation leaves (Bartlett 1946). Differences below 0.1 cores
//! are none: an idle guest is steady. Where rhythm and trend are both there, the one that explains more counts.

use evenkeel_common::guest::{ProfileClass, UsageSummary};

use super::statistics::{Line, f_tail, independent_share};
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
    let mut points: Vec<(f64, f64)> =
        hours.iter().map(|(hour, m)| (hour as f64, f64::from(m.mean))).collect();
    let total = squares_about_mean(&points);
    let rhythm = Rhythm::find(&points);
    if let Some(rhythm) = &rhythm {
        // What is left is judged for a trend: to a line, a rhythm is noise of the worst kind.
        points.iter_mut().for_each(|p| p.1 -= rhythm.by_hour[hour_of_day(p.0)]);
    }
    match (rhythm.map(|r| r.squares), growth(&points)) {
        (Some(rhythm), Some(trend)) if trend.min(total) > rhythm => ProfileClass::Growing,
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

/// Sum of squares that a significant rise explains.
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
    let freedom = (points.len() as f64 - 2.0) * independent_share(&residuals);
    let f = line.share / (1.0 - line.share) * freedom;
    (f_tail(f, 1.0, freedom) < GROWTH_P).then(|| line.share * squares_about_mean(points))
}

/// A daily rhythm that passed the test.
struct Rhythm {
    /// Distance from the mean by hour of day.
    by_hour: [f64; 24],
    /// Sum of squares that it explains.
    squares: f64,
}

impl Rhythm {
    fn find(points: &[(f64, f64)]) -> Option<Self> {
        let span = points.last()?.0 - points.first()?.0 + 1.0;
        if points.len() < MIN_CYCLE_HOURS || span < MIN_CYCLE_HOURS as f64 {
            return None;
        }
        let mean = points.iter().map(|p| p.1).sum::<f64>() / points.len() as f64;
        let slope = daily_slope(points)?;
        let middle = points.first()?.0 + span / 2.0;
        let rest = |p: &(f64, f64)| p.1 - mean - slope * (p.0 - middle);
        let (mut by_hour, mut counts) = ([0.0; 24], [0_u32; 24]);
        for p in points {
            by_hour[hour_of_day(p.0)] += rest(p);
            counts[hour_of_day(p.0)] += 1;
        }
        // An hour that was seen once explains itself.
        if counts.iter().any(|&count| count < 2) {
            return None;
        }
        by_hour.iter_mut().zip(counts).for_each(|(sum, count)| *sum /= f64::from(count));
        let residuals: Vec<f64> = points.iter().map(|p| rest(p) - by_hour[hour_of_day(p.0)]).collect();
        let between: f64 = by_hour.iter().zip(counts).map(|(m, count)| f64::from(count) * m * m).sum();
        let within: f64 = residuals.iter().map(|r| r * r).sum();
        let swing = by_hour.iter().copied().fold(f64::MIN, f64::max)
            - by_hour.iter().copied().fold(f64::MAX, f64::min);
        if swing < (CYCLE_SWING * mean).max(RELEVANT) || between < CYCLE_SHARE * (between + within) {
            return None;
        }
        let (share, left) = (independent_share(&residuals), points.len() as f64 - 24.0);
        let f = (between / 23.0) / (within / left) * share;
        (f_tail(f, 23.0, left * share) < CYCLE_P).then_some(Self { by_hour, squares: between })
    }
}

/// Slope per hour that a daily rhythm does not bend: the median of the changes from an hour to the same hour of
/// the next day (seasonal Kendall slope: Hirsch, Slack and Smith 1982).
fn daily_slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut next = points.iter().peekable();
    let mut slopes = Vec::with_capacity(points.len());
    for p in points {
        while next.next_if(|n| n.0 < p.0 + 24.0).is_some() {}
        if let Some(n) = next.peek().filter(|n| n.0 == p.0 + 24.0) {
            slopes.push((n.1 - p.1) / 24.0);
        }
    }
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied()
}

fn hour_of_day(hour: f64) -> usize {
    (hour as i64).rem_euclid(24) as usize
}

fn squares_about_mean(points: &[(f64, f64)]) -> f64 {
    let mean = points.iter().map(|p| p.1).sum::<f64>() / points.len().max(1) as f64;
    points.iter().map(|p| (p.1 - mean) * (p.1 - mean)).sum()
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
