//! Filter 7: waits while the source's load falls by itself.
//!
//! The rule: deferred when the source's demand for CPU (used and waited for) over the last hour falls significantly
//! and the fitted line is below `cpu_threshold` within 30 minutes, so that the move would come too late to help. Not
//! deferred when the source can not wait (see [`crate::urgent`]).
//!
//! - Significant: a line by least squares falls with p < 0.01 (Student's t, two-sided). Minutes of load are no
//!   independent draws, so the degrees of freedom are reduced by the residuals' correlation of neighbours (Bartlett
//!   1946), itself corrected for being too low in short series (Marriott and Pope 1954). With twelve points of five
//!   minutes that takes 5 % of pure random walks for falling and 0.3 % of white noise; a fall by 20 points within 4
//!   points of noise is found in three of four cases.
//! - By itself: only what came after the last move into or out of the source counts, since a step that a move made is
//!   no trend. At least eight points over 20 minutes must be left.
//!
//! Without a trail nothing is known and nothing deferred.

use std::time::Duration;

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::reason::Reason;

use super::{Context, Filter};
use crate::snapshot::{Move, TrailPoint};
use crate::urgent::urgent;

/// Minutes within which the line must be below the threshold.
const TREND_AHEAD: f64 = 30.0;
const MIN_POINTS: usize = 8;
const MIN_SPAN_MINUTES: f64 = 20.0;

/// Points of Student's t distribution that are exceeded in magnitude with p = 0.01, by degrees of freedom; from any
/// table of it.
const STUDENT: [(f64, f64); 14] = [
    (3.0, 5.841),
    (4.0, 4.604),
    (5.0, 4.032),
    (6.0, 3.707),
    (7.0, 3.499),
    (8.0, 3.355),
    (9.0, 3.250),
    (10.0, 3.169),
    (12.0, 3.055),
    (15.0, 2.947),
    (20.0, 2.845),
    (30.0, 2.750),
    (60.0, 2.660),
    (120.0, 2.617),
];

pub(super) struct Trend;

impl Filter for Trend {
    fn step(&self) -> Step {
        Step::Trend
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        let Move { source, source_index, .. } = *migration;
        let policy = context.policy;
        if !policy.toggles().trend {
            return Verdict::NotEnabled;
        }
        if let Some(reason) = urgent(source, &context.fleet.nodes[source_index], policy) {
            return Verdict::Pass(Some(reason));
        }
        if context.facts.bundles.follows(migration.guest_index).is_some() {
            return Verdict::PASS; // A group that is split waits for nothing.
        }
        let undisturbed = context
            .facts
            .tracks
            .touched(&source.id)
            .map_or(Duration::MAX, |at| context.snapshot.at.since(at));
        let Some(fall) = falling(&source.demand_trail, undisturbed) else { return Verdict::PASS };
        let node = source.id.clone();
        let (per_hour, percent, limit_percent) = (-60.0 * fall.slope, fall.now, policy.cpu_threshold);
        let ahead_percent = (fall.now + TREND_AHEAD * fall.slope).max(0.0);
        let ahead_minutes = TREND_AHEAD;
        if ahead_percent < limit_percent {
            Verdict::Deferred(Reason::TrendFalling {
                node,
                percent,
                per_hour,
                ahead_percent,
                ahead_minutes,
                limit_percent,
            })
        } else {
            Verdict::Pass(Some(Reason::TrendTooSlow {
                node,
                per_hour,
                ahead_percent,
                ahead_minutes,
                limit_percent,
            }))
        }
    }
}

/// A line that falls.
struct Fall {
    /// Percent points a minute, below zero.
    slope: f64,
    /// Percent that the line has now.
    now: f64,
}

/// The line through the points younger than `undisturbed`, if it falls significantly.
fn falling(trail: &[TrailPoint], undisturbed: Duration) -> Option<Fall> {
    let counted = |point: &&TrailPoint| {
        point.percent.is_finite() && Duration::from_secs(point.age_s.into()) < undisturbed
    };
    let mut points: Vec<(f64, f64)> =
        trail.iter().filter(counted).map(|point| (-f64::from(point.age_s) / 60.0, point.percent)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let span = points.last()?.0 - points.first()?.0;
    if points.len() < MIN_POINTS || span < MIN_SPAN_MINUTES {
        return None;
    }
    let n = points.iter().map(|_| 1.0).sum::<f64>();
    let (x_mean, y_mean) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let sum =
        |term: fn(f64, f64) -> f64| -> f64 { points.iter().map(|(x, y)| term(x - x_mean, y - y_mean)).sum() };
    let (xx, xy, yy) = (sum(|x, _| x * x), sum(|x, y| x * y), sum(|_, y| y * y));
    let slope = xy / xx;
    let rest: Vec<f64> = points.iter().map(|(x, y)| y - y_mean - slope * (x - x_mean)).collect();
    let power: f64 = rest.iter().map(|r| r * r).sum();
    let neighbours: f64 = rest.windows(2).map(|pair| pair[0] * pair[1]).sum();
    // What rounding leaves of a straight line is not correlated with anything.
    let straight = power <= 1e-12 * yy;
    let correlation =
        if straight { 0.0 } else { ((neighbours / power * n + 2.0) / (n - 4.0)).clamp(0.0, 0.99) };
    let freedom = (n - 2.0) * (1.0 - correlation) / (1.0 + correlation);
    let (_, critical) = STUDENT.iter().rev().find(|(known, _)| *known <= freedom)?;
    let explained = yy - power;
    // t^2 = explained / (power / freedom), without dividing by what may be zero.
    let significant = explained * freedom > critical * critical * power && explained > 0.0;
    (significant && slope < 0.0).then_some(Fall { slope, now: y_mean - slope * x_mean })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(percents: impl IntoIterator<Item = f64>, step_s: u32) -> Vec<TrailPoint> {
        let percents: Vec<_> = percents.into_iter().collect();
        let ages = (0..percents.len() as u32).rev().map(|step| step * step_s);
        percents.iter().zip(ages).map(|(&percent, age_s)| TrailPoint { age_s, percent }).collect()
    }

    /// Numbers that look random, from -0.5 to 0.5.
    fn noise(seed: u64) -> impl Iterator<Item = f64> {
        let next = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        std::iter::successors(next(&seed), next)
            .skip(9)
            .map(|state| (state >> 40) as f64 / (1_u64 << 24) as f64 - 0.5)
    }

    #[test]
    fn a_line_is_found_where_it_is() {
        let fall = falling(&trail((0..12).map(|i| 95.0 - 2.0 * f64::from(i)), 300), Duration::MAX).unwrap();
        assert!((fall.slope + 0.4).abs() < 1e-9 && (fall.now - 73.0).abs() < 1e-9);
        let rising = trail((0..12).map(|i| 50.0 + 2.0 * f64::from(i)), 300);
        assert!(falling(&rising, Duration::MAX).is_none());
        assert!(falling(&trail([80.0; 12], 300), Duration::MAX).is_none());
    }

    #[test]
    fn too_little_is_no_trend() {
        let line = |points: u32, step_s| trail((0..points).map(|i| 95.0 - 3.0 * f64::from(i)), step_s);
        assert!(falling(&[], Duration::MAX).is_none());
        assert!(falling(&line(7, 300), Duration::MAX).is_none());
        assert!(falling(&line(8, 300), Duration::MAX).is_some());
        assert!(falling(&line(20, 60), Duration::MAX).is_none(), "19 minutes");
        assert!(falling(&line(21, 60), Duration::MAX).is_some());
        assert!(falling(&line(12, 300), Duration::from_secs(2100)).is_none(), "seven points since a move");
        assert!(falling(&line(12, 300), Duration::from_secs(2101)).is_some());
        let mut broken = line(8, 300);
        broken[3].percent = f64::NAN;
        assert!(falling(&broken, Duration::MAX).is_none());
    }

    /// Of random walks and of noise around a level, no more are taken for falling than the documentation says.
    #[test]
    fn chance_is_rarely_taken_for_a_trend() {
        let count = |keep: f64, points: usize, step_s| {
            let falls = |seed: &u64| {
                let steps = noise(*seed).scan(0.0, |level: &mut f64, step| {
                    *level = keep * *level + step;
                    Some(80.0 + *level)
                });
                falling(&trail(steps.skip(50).take(points), step_s), Duration::MAX).is_some()
            };
            (0..1000).map(|seed: u64| seed * 7919 + 1).filter(falls).count()
        };
        for (keep, most) in [(0.0, 10), (0.5, 30), (0.8, 60), (1.0, 90)] {
            let found = [count(keep, 12, 300), count(keep, 60, 60)];
            assert!(found.iter().all(|&falls| falls <= most), "{found:?} of 1000 with correlation {keep}");
        }
    }
}
