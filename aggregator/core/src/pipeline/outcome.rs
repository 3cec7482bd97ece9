//! Filter 8: not again where it has disappointed.
//!
//! The rule: a move from one node to another is filtered when the record of exactly this pair, in this direction, is
//! poor (see [`super::track`] for what that is and how it fades). A slow link, a different kernel or a full storage
//! shows in such a record before anybody has named it.

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
