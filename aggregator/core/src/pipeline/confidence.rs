//! Filter 4: a recommendation must be likely enough to help. Always asked.
//!
//! The rule: confidence below `confidence_threshold` (75) is filtered. Confidence is the chance in percent that the
//! move helps (see [`crate::confidence`]), so the threshold is the chance that an admin wants each single move to have.
//! It is asked early because what follows is of no use to a guess.

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::reason::Reason;

use super::{Context, Filter};
use crate::confidence::confidence_of;
use crate::snapshot::Move;

pub(super) struct Confidence;

impl Filter for Confidence {
    fn step(&self) -> Step {
        Step::Confidence
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        let confidence = confidence_of(migration, &context.rules(), context.policy).0.get();
        let needed = context.policy.confidence_threshold;
        if confidence < needed {
            Verdict::Filtered(Reason::ConfidenceTooLow { confidence, needed })
        } else {
            Verdict::Pass(Some(Reason::ConfidenceEnough { confidence, needed }))
        }
    }
}
