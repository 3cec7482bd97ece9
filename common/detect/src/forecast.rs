//! When a growing figure will reach its limit: a robust trend with an honest interval, or nothing.
//!
//! The slope is the median of the slopes between all pairs of points (Theil 1950, Sen 1968), so that a backup or a
//! restart does not bend it. Whether there is a trend at all is asked with the Mann-Kendall test (Mann 1945, Kendall
//! 1948), and the slope's interval comes from the same statistic (Gilbert 1987, section 16). Neighbouring points
//! of one machine are alike, which makes the test too sure of itself; its variance is widened by the correlation of
//! the residuals (Yue and Wang 2004). Where a day repeats itself, only points of the same hour are compared (Hirsch,
//! Slack and Smith 1982), so that no morning passes for a trend.

use serde::{Deserialize, Serialize};

/// Most points used; more are averaged into so many. All pairs of them are looked at.
const MOST_POINTS: usize = 200;
/// Fewest points that make a trend.
const FEWEST_POINTS: usize = 10;
/// Two-sided normal quantile of the test and the interval: 99 %.
const Z: f64 = 2.576;
/// A forecast reaches at most this many times as far ahead as its data reaches back.
const REACH: f64 = 24.0;

/// What to forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// Value at which it is full, or over its threshold, in the series' unit.
    pub limit: f64,
    /// Smallest growth over the whole span of the data that matters, in the series' unit.
    pub least_growth: f64,
    /// Hours ahead beyond which nobody wants to know.
    pub horizon_h: f64,
    /// Whether the day repeats itself, so that only the same hours of day are compared. Needs three days.
    pub daily: bool,
}

/// When the limit will be reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Value now, by the trend line.
    pub now: f64,
    /// Growth an hour.
    pub per_hour: f64,
    /// Hours from the last point until the limit is reached; 0 = it is.
    pub hours: f64,
    /// The same at the steepest slope the data allows.
    pub earliest: f64,
    /// The same at the flattest; `None` when that is beyond a hundred times the estimate.
    pub latest: Option<f64>,
    /// Points it rests on.
    pub points: usize,
    /// Hours they cover.
    pub span_h: f64,
}

/// Forecasts from `points`: hours (of any origin that is midnight UTC where `daily` counts) and values, ascending in
/// time. `None`: too little data, no significant growth, too little of it, or the limit lies beyond the horizon.
///
/// Points that are not finite are left out.
#[must_use]
pub fn forecast(points: &[(f64, f64)], question: &Question) -> Option<Forecast> {
    let finite: Vec<(f64, f64)> =
        points.iter().copied().filter(|(at, value)| at.is_finite() && value.is_finite()).collect();
    let points = if question.daily { hourly(&finite) } else { blocks(&finite) };
    let (first, last) = (points.first()?.0, points.last()?.0);
    let span_h = last - first;
    if points.len() < FEWEST_POINTS || span_h <= 0.0 || (question.daily && span_h < 71.0) {
        return None;
    }
    let (slopes, kendall) = slopes(&points, question.daily);
    let per_hour = median_sorted(&slopes)?;
    if per_hour <= 0.0 || per_hour * span_h < question.least_growth {
        return None;
    }
    let deviation = kendall.variance.sqrt() * inflation(&points, per_hour).sqrt();
    if deviation <= 0.0 || (kendall.sum - 1.0) / deviation < Z {
        return None;
    }
    let level = level_at(&points, per_hour, last);
    let left = (question.limit - level).max(0.0);
    let hours = left / per_hour;
    if hours > question.horizon_h.min(REACH * span_h) {
        return None;
    }
    let half = (Z * deviation / 2.0).min(slopes.len() as f64 / 2.0);
    let middle = slopes.len() as f64 / 2.0;
    let at = |place: f64| slopes[(place.max(0.0) as usize).min(slopes.len() - 1)];
    let (flattest, steepest) = (at(middle - half).max(0.0), at(middle + half).max(per_hour));
    let latest = (flattest > per_hour / 100.0).then(|| left / flattest);
    Some(Forecast {
        now: level,
        per_hour,
        hours,
        earliest: left / steepest,
        latest,
        points: points.len(),
        span_h,
    })
}

/// At most [`MOST_POINTS`] means of neighbouring points.
fn blocks(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    points.chunks(size).map(mean).collect()
}

/// A mean for each hour; of many days the last ones.
fn hourly(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let hours: Vec<_> = points.chunk_by(|a, b| a.0.floor() == b.0.floor()).map(mean).collect();
    let skipped = hours.len().saturating_sub(2 * MOST_POINTS);
    hours[skipped..].to_vec()
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len().max(1) as f64;
    let (t, y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    (t / n, y / n)
}

/// Kendall's sum of signs and its variance if there were no trend.
struct Kendall {
    sum: f64,
    variance: f64,
}

/// Slopes between pairs, ascending, and Kendall's statistic. With `daily`, pairs of the same hour of day only.
fn slopes(points: &[(f64, f64)], daily: bool) -> (Vec<f64>, Kendall) {
    let season = |at: f64| if daily { at.floor().rem_euclid(24.0) as usize } else { 0 };
    let mut groups: Vec<Vec<(f64, f64)>> = vec![Vec::new(); if daily { 24 } else { 1 }];
    for point in points {
        groups[season(point.0)].push(*point);
    }
    let (mut slopes, mut kendall) = (Vec::new(), Kendall { sum: 0.0, variance: 0.0 });
    for group in &groups {
        for (index, earlier) in group.iter().enumerate() {
            for later in group[index + 1..].iter().filter(|later| later.0 > earlier.0) {
                let slope = (later.1 - earlier.1) / (later.0 - earlier.0);
                kendall.sum += if slope == 0.0 { 0.0 } else { slope.signum() };
                slopes.push(slope);
            }
        }
        let n = group.len() as f64;
        kendall.variance += n * (n - 1.0) * (2.0 * n + 5.0) / 18.0;
    }
    slopes.sort_unstable_by(f64::total_cmp);
    (slopes, kendall)
}

/// By how much neighbours that are alike widen the variance: `(1 + r) / (1 - r)` with the lag-one correlation of
/// the residuals, 1 to 19.
fn inflation(points: &[(f64, f64)], slope: f64) -> f64 {
    let rest: Vec<f64> = points.iter().map(|(at, value)| value - slope * at).collect();
    let mean = rest.iter().sum::<f64>() / rest.len().max(1) as f64;
    let variance: f64 = rest.iter().map(|value| (value - mean).powi(2)).sum();
    let shared: f64 = rest.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    // A perfect line leaves nothing but rounding, which is no correlation.
    let scale: f64 = points.iter().map(|(_, value)| value * value).sum();
    if variance <= 1e-18 * scale {
        return 1.0;
    }
    let r = (shared / variance).clamp(0.0, 0.9);
    (1.0 + r) / (1.0 - r)
}

/// Height of the line at `at`: the median of what the last third of the points says, so that it starts from now.
fn level_at(points: &[(f64, f64)], slope: f64, at: f64) -> f64 {
    let recent = &points[points.len() - points.len().div_ceil(3)..];
    let mut levels: Vec<f64> = recent.iter().map(|(t, value)| value + slope * (at - t)).collect();
    levels.sort_unstable_by(f64::total_cmp);
    median_sorted(&levels).unwrap_or_default()
}

fn median_sorted(values: &[f64]) -> Option<f64> {
    let (upper, lower) = (values.get(values.len() / 2)?, values.get(values.len().saturating_sub(1) / 2)?);
    Some(f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Question = Question { limit: 100.0, least_growth: 1.0, horizon_h: 720.0, daily: false };

    /// Evenly spread between -1 and 1, the same every time.
    fn noise(n: usize) -> f64 {
        let mut x = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(77);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^= x >> 27;
        2.0 * ((x % 10_000) as f64 / 10_000.0) - 1.0
    }

    fn series(hours: usize, value: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
        (0..hours).map(|h| (h as f64, value(h))).collect()
    }

    #[test]
    fn a_noisy_climb_with_outliers_is_forecast_within_its_interval() {
        let climb = series(100, |h| {
            let backup = if h % 17 == 0 { 25.0 } else { 0.0 };
            40.0 + 0.5 * h as f64 + 2.0 * noise(h) + backup
        });
        let found = forecast(&climb, &FULL).unwrap();
        let truth = (100.0 - (40.0 + 0.5 * 99.0)) / 0.5;
        assert!((found.per_hour - 0.5).abs() < 0.03, "{found:?}");
        assert!((found.hours - truth).abs() < 4.0, "{found:?} {truth}");
        assert!(found.earliest < truth && found.latest.unwrap() > truth - 2.0, "{found:?}");
        assert!(found.earliest <= found.hours && found.hours <= found.latest.unwrap());
    }

    #[test]
    fn noise_falling_steps_and_short_data_are_no_forecast() {
        assert_eq!(forecast(&series(100, |h| 60.0 + 5.0 * noise(h)), &FULL), None, "noise");
        assert_eq!(forecast(&series(100, |h| 90.0 - 0.5 * h as f64), &FULL), None, "falling");
        assert_eq!(forecast(&series(100, |_| 97.0), &FULL), None, "flat, however full");
        assert_eq!(forecast(&series(9, |h| 10.0 * h as f64), &FULL), None, "too few points");
        assert_eq!(
            forecast(&series(100, |h| 40.0 + 0.001 * h as f64), &FULL),
            None,
            "growth nobody cares about"
        );
        assert_eq!(forecast(&series(100, |h| 5.0 + 0.05 * h as f64), &FULL), None, "beyond the horizon");
        assert_eq!(forecast(&[], &FULL), None);
        let bad = series(100, |h| if h % 2 == 0 { f64::NAN } else { f64::INFINITY });
        assert_eq!(forecast(&bad, &FULL), None, "not finite");
    }

    #[test]
    fn a_wandering_level_is_seldom_taken_for_a_trend() {
        let mut told = 0;
        for salt in 0..200 {
            let mut level = 50.0;
            let walk = series(120, |h| h as f64).into_iter().map(|(at, _)| {
                level = 50.0 + 0.9 * (level - 50.0) + noise(salt * 1000 + at as usize);
                (at, level)
            });
            told += usize::from(forecast(&walk.collect::<Vec<_>>(), &FULL).is_some());
        }
        assert!(told <= 6, "{told} of 200");
    }

    #[test]
    fn a_daily_wave_is_no_trend_and_a_trend_beneath_it_is_found() {
        let wave = |h: usize| 20.0 * (h as f64 / 24.0 * std::f64::consts::TAU).sin();
        let daily = Question { daily: true, least_growth: 3.0, ..FULL };
        assert_eq!(forecast(&series(24 * 5 + 6, |h| 50.0 + wave(h) + noise(h)), &daily), None);
        let rising = series(24 * 7, |h| 40.0 + 0.1 * h as f64 + wave(h) + noise(h));
        let found = forecast(&rising, &daily).unwrap();
        assert!((found.per_hour - 0.1).abs() < 0.01, "{found:?}");
        assert_eq!(forecast(&rising[..48], &daily), None, "two days are too few to know the day");
    }

    #[test]
    fn what_is_full_already_is_due_now_and_many_points_are_thinned() {
        let found = forecast(&series(5000, |h| 60.0 + 0.01 * h as f64), &FULL).unwrap();
        assert!(found.hours < 1e-9 && found.points <= MOST_POINTS, "{found:?}");
    }
}
