//! Filter 8: not again where it has disappointed.
//!
//! The rule: a move from one node to another is filtered when the record of exactly this pair, in this direction, is
//! poor (see [`super::track`] for what that is and how it fades). A slow link, a different kernel or a full storage
//! shows in such a record before anybody has named it. Besides, a guest whose last attempt on this pair failed is not
//! tried there again within `cooldown_minutes`: what made it fail has rarely gone away in a minute.

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::reason::Reason;

use super::{Context, Filter};
use crate::snapshot::Move;

pub(super) struct Outcome;

impl Filter for Outcome {
    fn step(&self) -> Step {
        Step::Outcome
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        if !context.policy.toggles().outcome {
            return Verdict::NotEnabled;
        }
        let (source, target) = (migration.source.id.clone(), migration.target.id.clone());
        let mut attempts = context.facts.moves_of(context.snapshot, migration.guest.vmid);
        let last = attempts.rfind(|past| past.from == source && past.to == target);
        if let Some(failed) = last.filter(|past| !past.ok) {
            let (minutes_ago, rest_minutes) =
                (context.minutes_since(failed.at), f64::from(context.policy.cooldown_minutes));
            if minutes_ago < rest_minutes {
                return Verdict::Filtered(Reason::RetryTooSoon { source, target, minutes_ago, rest_minutes });
            }
        }
        let track = context.facts.tracks.of_pair(&source, &target);
        let (poor, judged, rate_percent) = (track.poor, track.judged, 100.0 * track.rate());
        if track.is_poor() {
            Verdict::Filtered(Reason::PairPoor { source, target, poor, judged, rate_percent })
        } else if judged > 0 {
            Verdict::Pass(Some(Reason::PairRecord { source, target, poor, judged, rate_percent }))
        } else {
            Verdict::PASS
        }
    }
}
