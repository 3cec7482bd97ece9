//! Where a guest's use tends to, and how soon it gets there: the figures behind a forecast of a few hours.
//!
//! The hourly means are taken as a daily rhythm plus what is left, and what is left fades like a first-order
//! autoregressive sequence (Box and Jenkins 1970). Two days that happen to look alike make no rhythm: of the
//! differences between the hours of the day only as much counts as exceeds what chance makes of so many days
//! (the shrinkage of James and Stein 1961).

use evenkeel_common::guest::Outlook;

use super::summary::Hours;

/// Hours that make up "recently".
const RECENT: usize = 72;
/// Hours below which nothing is said.
const LEAST: usize = 24;
/// Hours between the two values whose likeness is measured: neighbours share the noise of a burst between them.
const LAG: i64 = 4;
/// A guest is neither without memory nor does it keep everything.
const PERSISTENCE: std::ops::RangeInclusive<f64> = 0.3..=0.99;

/// The outlook by the hourly means; `None` with less than a day of them.
pub(super) fn outlook(hours: &Hours) -> Option<Outlook> {
    let points: Vec<(i64, f64)> = hours.iter().map(|(hour, mean)| (hour, f64::from(mean.mean))).collect();
    if points.len() < LEAST {
        return None;
    }
    let mean = average(points.iter().map(|p| p.1));
    let rhythm: Vec<f64> =
        hours.by_hour_of_day().into_iter().map(|hour| hour.map_or(0.0, |use_| use_ - mean)).collect();
    let of_day = |hour: i64| rhythm[hour.rem_euclid(24) as usize];
    let share = daily_share(&points, mean, of_day);
    let rest: Vec<(i64, f64)> =
        points.iter().map(|&(hour, use_)| (hour, use_ - mean - share * of_day(hour))).collect();
    let recent = points.len().saturating_sub(RECENT);
    Some(Outlook {
        recent_mean: average(points[recent..].iter().map(|p| p.1)),
        daily_share: share,
        persistence: persistence(&rest),
        spread: average(rest.iter().map(|p| p.1 * p.1)).sqrt(),
    })
}

fn average(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

/// How much of the differences between the hours of the day is more than chance.
fn daily_share(points: &[(i64, f64)], mean: f64, of_day: impl Fn(i64) -> f64) -> f64 {
    let days = points.len() as f64 / 24.0;
    if days < 2.0 {
        return 0.0;
    }
    let between = average(points.iter().map(|p| of_day(p.0) * of_day(p.0)));
    let within = average(points.iter().map(|p| {
        let rest = p.1 - mean - of_day(p.0);
        rest * rest
    })) * days
        / (days - 1.0);
    if between > 0.0 { ((between - within / days) / between).clamp(0.0, 1.0) } else { 0.0 }
}

/// Likeness of one hour to the next, from values [`LAG`] hours apart.
fn persistence(rest: &[(i64, f64)]) -> f64 {
    let (mut product, mut count) = (0.0, 0_u32);
    let mut later = 0;
    for &(hour, value) in rest {
        while rest.get(later).is_some_and(|p| p.0 < hour + LAG) {
            later += 1;
        }
        if let Some(&(at, other)) = rest.get(later)
            && at == hour + LAG
        {
            product += value * other;
            count += 1;
        }
    }
    let power = average(rest.iter().map(|p| p.1 * p.1));
    let likeness = product / f64::from(count.max(1)) / power;
    let hourly = if likeness > 0.0 { likeness.sqrt().sqrt() } else { 0.0 };
    hourly.clamp(*PERSISTENCE.start(), *PERSISTENCE.end())
}

#[cfg(test)]
mod tests {
    use crate::profile::GuestProfiler;
    use evenkeel_common::guest::Outlook;
    use evenkeel_common::id::Vmid;
    use evenkeel_common::time::Timestamp;

    fn of(hours: i64, value: impl Fn(i64) -> f64) -> Option<Outlook> {
        let mut profiler = GuestProfiler::default();
        for quarter in 0..hours * 4 {
            profiler.observe(Timestamp::from_millis(quarter * 900_000), value(quarter / 4), 1e9);
        }
        profiler.profile(Vmid::new(100).unwrap()).outlook
    }

    /// Noise without memory, -1 to 1.
    fn noise(hour: i64) -> f64 {
        let mixed = (hour as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f64 / f64::from(1 << 23) - 1.0
    }

    #[test]
    fn less_than_a_day_says_nothing() {
        assert_eq!(of(23, |_| 1.0), None);
        assert!(of(24, |_| 1.0).is_some());
    }

    #[test]
    fn a_rhythm_is_found_and_noise_is_none() {
        let daily = of(240, |hour| if hour % 24 < 8 { 4.0 } else { 1.0 + 0.1 * noise(hour) }).unwrap();
        assert!(daily.daily_share > 0.95 && daily.spread < 0.2, "{daily:?}");
        let random = of(240, |hour| 2.0 + noise(hour)).unwrap();
        assert!(random.daily_share < 0.4 && random.persistence < 0.8, "{random:?}");
        assert!((random.recent_mean - 2.0).abs() < 0.3, "{random:?}");
        assert_eq!(of(47, |hour| (hour % 24) as f64).unwrap().daily_share, 0.0, "one day is no rhythm");
    }

    #[test]
    fn long_phases_persist() {
        let phases = of(300, |hour| if hour / 50 % 2 == 0 { 1.0 } else { 3.0 }).unwrap();
        assert!(phases.persistence > 0.9, "{phases:?}");
    }

    #[test]
    fn the_recent_mean_follows_a_change() {
        let outlook = of(300, |hour| if hour < 228 { 1.0 } else { 5.0 }).unwrap();
        assert!((outlook.recent_mean - 5.0).abs() < 1e-3, "{outlook:?}");
    }

    #[test]
    fn a_constant_guest_has_finite_figures() {
        let flat = of(100, |_| 0.0).unwrap();
        assert_eq!((flat.recent_mean, flat.spread), (0.0, 0.0));
        assert!((0.3..=0.99).contains(&flat.persistence), "{flat:?}");
    }
}
