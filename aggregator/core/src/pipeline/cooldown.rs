//! Filter 1: a guest that moved recently rests, whoever moved it.
//!
//! An attempt that failed is not repeated on the same pair of nodes within `cooldown_minutes` either.
//!
//! `cooldown_minutes` after one move, twice as long for each further move within 24 hours (at most a day), so that a
//! guest that somebody keeps moving is left alone.

use std::time::Duration;

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::reason::Reason;

use super::{Context, Filter};
use crate::snapshot::Move;

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Cooldown;

impl Filter for Cooldown {
    fn step(&self) -> Step {
        Step::Cooldown
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        if let Some(objection) = failed_here(migration, context) {
            return Verdict::Filtered(objection);
        }
        let rest = Duration::from_secs(60 * u64::from(context.policy.cooldown_minutes));
        let Some(last) = context.moves_of(migration.guest.vmid, rest.max(DAY)).next_back() else {
            return Verdict::PASS;
        };
        let moves_last_day =
            u32::try_from(context.moves_of(migration.guest.vmid, DAY).count()).unwrap_or(u32::MAX);
        let doubled = f64::from(1_u32 << moves_last_day.saturating_sub(1).min(16));
        let base = f64::from(context.policy.cooldown_minutes);
        let rest_minutes = (base * doubled).min(base.max(24.0 * 60.0));
        let minutes_ago = context.minutes_since(last.at);
        if minutes_ago >= rest_minutes {
            return Verdict::Pass(Some(Reason::CooldownOver { minutes_ago, rest_minutes }));
        }
        Verdict::Filtered(Reason::CooldownActive { minutes_ago, rest_minutes, by: last.by, moves_last_day })
    }
}

/// A last attempt on the same pair of nodes that failed a moment ago: what made it fail has rarely gone away since.
fn failed_here(migration: &Move<'_>, context: &Context<'_>) -> Option<Reason> {
    let (source, target) = (migration.source.id.clone(), migration.target.id.clone());
    let mut attempts = context.facts.moves_of(context.snapshot, migration.guest.vmid);
    let failed = attempts.rfind(|past| past.from == source && past.to == target).filter(|past| !past.ok)?;
    let (minutes_ago, rest_minutes) =
        (context.minutes_since(failed.at), f64::from(context.policy.cooldown_minutes));
    (minutes_ago < rest_minutes).then_some(Reason::RetryTooSoon { source, target, minutes_ago, rest_minutes })
}
