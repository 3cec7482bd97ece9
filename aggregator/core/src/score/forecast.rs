//! What a guest will ask for in the coming hours.
//!
//! It returns from what it asks for now to its daily rhythm as fast as it usually does: `rhythm(t + h) +
//! persistence^h x (now - rhythm(t))`, with the rhythm shrunk to what of it is more than chance (see `Outlook`).
//! Of the predictors tried on real traces this one closed most of the gap to an oracle; yesterday's same hour, the
//! mean of the day and mixtures of them weighed by their errors did worse (packaging/doc/decision-quality.md).

use evenkeel_common::guest::{GuestProfile, Outlook};
use evenkeel_common::time::Timestamp;

/// Hours looked ahead. Further ahead a forecast is little more than the mean, and a move can be made later too.
pub(crate) const HOURS: usize = 4;

/// Mean cores in each of the coming hours, for a guest that asks for `now` cores.
pub(super) fn ahead(profile: Option<&GuestProfile>, now: f64, at: Timestamp) -> [f64; HOURS] {
    let Some((profile, outlook)) = profile.and_then(|p| p.outlook.as_ref().map(|outlook| (p, outlook)))
    else {
        return [now; HOURS];
    };
    let rhythm = Rhythm::of(profile, outlook);
    #[allow(clippy::cast_precision_loss)] // Seconds of a day.
    let hour = at.as_secs().rem_euclid(86_400) as f64 / 3600.0;
    let deviation = now - rhythm.around(hour);
    let mut left = outlook.persistence.max(0.0).sqrt(); // To the middle of the first hour.
    let mut ahead = [0.0; HOURS];
    for (step, cores) in (0_u8..).zip(&mut ahead) {
        *cores = (rhythm.around(hour + 0.5 + f64::from(step)) + left * deviation).max(0.0);
        left *= outlook.persistence;
    }
    ahead
}

/// Usual cores by hour of the day (UTC).
struct Rhythm([f64; 24]);

impl Rhythm {
    fn of(profile: &GuestProfile, outlook: &Outlook) -> Self {
        let known = || profile.cpu_by_hour.iter().flatten();
        #[allow(clippy::cast_precision_loss)] // At most 24.
        let mean = known().sum::<f64>() / known().count().max(1) as f64;
        let mut usual = [outlook.recent_mean; 24];
        for (usual, hour) in usual.iter_mut().zip(&profile.cpu_by_hour) {
            *usual += outlook.daily_share * hour.map_or(0.0, |cores| cores - mean);
        }
        Self(usual)
    }

    /// Mean of the hour around a moment, in hours of the day: parts of the two calendar hours that it touches.
    fn around(&self, middle: f64) -> f64 {
        let start = (middle - 0.5).rem_euclid(24.0);
        let later = start.fract();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 24.
        let first = start as usize % 24;
        (1.0 - later) * self.0[first] + later * self.0[(first + 1) % 24]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    /// A guest with 1 core by night and 5 from 8:00 to 16:00.
    fn office(persistence: f64, daily_share: f64) -> GuestProfile {
        let snapshot = fixture::snapshot("pve1 | 101 cpu=1 profile=cyclical");
        let mut profile = snapshot.guests[0].profile.clone().unwrap();
        profile.cpu_by_hour =
            (0..24).map(|hour| Some(if (8..16).contains(&hour) { 5.0 } else { 1.0 })).collect();
        profile.outlook = Some(Outlook { recent_mean: 7.0 / 3.0, daily_share, persistence, spread: 0.1 });
        profile
    }

    fn at(hour: i64, minute: i64) -> Timestamp {
        Timestamp::from_millis((hour * 60 + minute) * 60_000)
    }

    fn near(got: [f64; HOURS], want: [f64; HOURS]) {
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-9), "{got:?} not {want:?}");
    }

    #[test]
    fn without_a_profile_things_stay_as_they_are() {
        assert_eq!(ahead(None, 2.5, at(7, 0)), [2.5; HOURS]);
    }

    #[test]
    fn a_rhythm_is_seen_coming() {
        near(ahead(Some(&office(0.5, 1.0)), 1.0, at(6, 30)), [1.0, 3.0, 5.0, 5.0]);
        near(ahead(Some(&office(0.5, 0.0)), 7.0 / 3.0, at(6, 30)), [7.0 / 3.0; 4]);
    }

    #[test]
    fn a_deviation_fades_as_it_usually_does() {
        // Two cores more than usual; an hour later half of it is left.
        let half = 0.5_f64.sqrt();
        let fading = [2.0 * half, half, half / 2.0, half / 4.0].map(|more| 1.0 + more);
        near(ahead(Some(&office(0.5, 1.0)), 3.0, at(20, 0)), fading);
    }

    #[test]
    fn never_less_than_nothing() {
        assert!(ahead(Some(&office(0.99, 1.0)), 0.0, at(9, 0)).iter().all(|cores| *cores >= 0.0));
    }
}
