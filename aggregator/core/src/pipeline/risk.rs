//! Filter 6: what could hurt needs more certainty.
//!
//! The rule: a move of high risk (see [`crate::risk`]) needs a confidence of `confidence_threshold` times
//! `risk_confidence_multiplier` (75 x 1.2 = 90), but never more than 92: hardly any forecast is surer than that, and a
//! limit that can not be met would be a ban that nobody asked for.

use evenkeel_common::decision::{Risk as Level, Step, Verdict};
use evenkeel_common::reason::Reason;

use super::{Context, Filter, must_leave};
use crate::confidence::confidence_of;
use crate::risk::assess;
use crate::snapshot::Move;

/// Confidence that suffices for any risk.
const MOST: f64 = 92.0;

pub(super) struct Risk;

impl Filter for Risk {
    fn step(&self) -> Step {
        Step::Risk
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        let policy = context.policy;
        if !policy.toggles().risk {
            return Verdict::NotEnabled;
        }
        if let Some(leaving) = must_leave(migration) {
            return Verdict::Pass(Some(leaving));
        }
        let risk = assess(migration.guest, &policy.risk);
        if risk.level != Level::High {
            return Verdict::Pass(risk.reason());
        }
        let multiplier = policy.intelligent_migrations.risk_confidence_multiplier;
        // A threshold above the most that is asked for stands: then the filter before this one wants it.
        let needed = (policy.confidence_threshold * multiplier).min(MOST.max(policy.confidence_threshold));
        let confidence = confidence_of(migration, &context.rules(), policy).0.get();
        let parts = risk.parts;
        if confidence < needed {
            Verdict::Filtered(Reason::RiskTooHigh { parts, confidence, needed })
        } else {
            Verdict::Pass(Some(Reason::RiskAccepted { parts, confidence, needed }))
        }
    }
}
