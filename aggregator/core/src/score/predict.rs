//! What a guest is expected to need, by its profile: spec E1.
//!
//! A prediction is a level plus a spread above it. For one guest alone the two add up to the profile's figure
//! (bursty: the 95th percentile). On a node full of guests levels add up, but spreads add up like independent
//! deviations do (root of the sum of squares), because their bursts rarely meet.

use evenkeel_common::guest::ProfileClass;
use evenkeel_common::time::Timestamp;

use super::forecast::{self, HOURS};
use crate::snapshot::GuestState;

/// Hours a growing guest is projected ahead.
const GROWTH_HOURS: f64 = 48.0;

/// vCPUs of a guest that may use all there are.
const MANY: f64 = 1e6;

/// Expected need of one guest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// The rule that was used; `Unknown` also when the guest has left what its profile says.
    pub class: ProfileClass,
    /// CPU in cores that it needs most of the time.
    pub level: f64,
    /// What comes on top in its bursts, in cores.
    pub spread: f64,
    /// Memory in bytes.
    pub memory: f64,
    /// Traffic of its NICs now, in MB/s; 0 when not known.
    pub net: f64,
    /// CPU demand now, in cores: used plus waited for.
    pub now: f64,
    /// Mean cores in each of the coming hours.
    pub ahead: [f64; HOURS],
    /// Variance of its runnable vCPUs in the same hours, in cores squared.
    pub bursts: [f64; HOURS],
    /// CPUs it sees; very many when not known.
    pub vcpus: f64,
}

impl Predicted {
    /// CPU in cores to plan with for this guest alone.
    #[must_use]
    pub fn cores(&self) -> f64 {
        self.level + self.spread
    }

    /// The same guest when it does not run.
    pub(crate) const fn at_rest(self) -> Self {
        let none = [0.0; HOURS];
        let (level, spread, memory, net, now, vcpus) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        Self { level, spread, memory, net, now, ahead: none, bursts: none, vcpus, ..self }
    }
}

/// Expected need of a guest. Demand, not use: what it waited for is added to what it got. CPU is held to its vCPUs,
/// memory to its maximum.
#[must_use]
pub fn predict(guest: &GuestState, at: Timestamp) -> Predicted {
    let hold = |cores: f64| if guest.vcpus > 0.0 { cores.min(guest.vcpus) } else { cores };
    let now = hold(guest.cpu_used.unwrap_or(0.0) + guest.cpu_waited);
    let used = guest.memory_used.as_f64();
    let limit = if guest.memory_max.0 > 0 { guest.memory_max.as_f64().max(used) } else { f64::INFINITY };
    let net = guest.net_mb_s.unwrap_or(0.0);
    let ahead = forecast::ahead(guest.profile.as_ref(), now, at).map(hold);
    let vcpus = if guest.vcpus > 0.0 { guest.vcpus } else { MANY };
    // Each vCPU runs a share of the time on its own.
    let bursts = ahead.map(|cores| (cores * (1.0 - cores / vcpus)).max(0.0));
    let Some(profile) = guest.profile.as_ref() else {
        let class = ProfileClass::Unknown;
        return Predicted { class, level: now, spread: 0.0, memory: used, net, now, ahead, bursts, vcpus };
    };
    let cpu = &profile.cpu;
    // A guest far outside of what it ever did is not described by its profile any more.
    let left = now > cpu.p95 + 3.0 * cpu.std_dev;
    let class = if left { ProfileClass::Unknown } else { profile.class };
    let (level, spread) = match class {
        ProfileClass::Steady => (cpu.mean, 0.0),
        ProfileClass::Bursty => (cpu.mean, (cpu.p95 - cpu.mean).max(0.0)),
        ProfileClass::Growing => (now + cpu.slope_per_hour.max(0.0) * GROWTH_HOURS, 0.0),
        ProfileClass::Cyclical => {
            let peak = profile.cpu_by_hour.iter().flatten().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
            (if peak.is_finite() { peak } else { cpu.p95 }, 0.0)
        }
        // Conservative: the higher of now and the 95th percentile.
        ProfileClass::Unknown => (now, (cpu.p95 - now).max(0.0)),
    };
    let growth = match class {
        ProfileClass::Growing => profile.memory.slope_per_hour.max(0.0) * GROWTH_HOURS,
        _ => 0.0,
    };
    let memory = (used + growth).max(profile.memory.p95).min(limit);
    let level = hold(level.max(0.0));
    Predicted { class, level, spread: hold(level + spread) - level, memory, net, now, ahead, bursts, vcpus }
}
