//! The usual day: what a node's guests need at each hour, learned from their profiles (spec E3, E5).
//!
//! A node's day is the sum of its guests' means by hour of the day. It is known when guests with at least three days
//! of data, all 24 hours and no growth make up two thirds of its demand now; the rest (the host, younger guests) is
//! taken as it is. Its deviation is what is left of the guests' standard deviations without the differences between
//! hours (law of total variance), added up as for independent guests.
//!
//! Two rules stand on it:
//! - *Peak* (filter 9): the hours that are above the middle between the day's mean and its highest hour, if the highest
//!   is at least 1.25 times the mean. A day without such a hill has no peak.
//! - *Usual* (seasonal baseline): demand up to `sigma_threshold` deviations above what is usual at this hour is no
//!   reason to move, though it is over `cpu_threshold`: it came yesterday and goes by itself. Demand further up, by a
//!   tenth of the node's cores at least and to half of the threshold, is a reason, though it is not over the threshold:
//!   something is not as it was. Never excused: guests that wait, a day
//!   that is over the threshold in its mean (no season, but a node that is too full), and demand for all there is.

use evenkeel_common::guest::ProfileClass;
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;

use crate::policy::Policy;
use crate::score::fleet::Fleet;
use crate::snapshot::{GuestState, Snapshot, takes_part};

/// Seconds of data from which a guest's hours are known.
const KNOWN_S: u64 = 3 * 86_400;
/// Share of a node's demand that guests with known hours must make up.
const KNOWN_SHARE: f64 = 2.0 / 3.0;
/// Times the mean that the highest hour must reach to be a peak.
const HILL: f64 = 1.25;
/// Share of a node's cores by which its peak must stand out to matter, and that demand must be above the usual to be
/// a reason by itself.
const MATTERS: f64 = 0.1;
/// Cores by which a guest's peak must stand out to matter.
const GUEST_MATTERS: f64 = 0.1;
/// Share of a node's cores that its deviation is taken for at least; a profile of few days may show none at all.
const LEAST_DEVIATION: f64 = 0.02;

/// Usual demand by hour of the day (UTC), in cores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Day {
    by_hour: [f64; 24],
    /// Variance within the hours.
    variance: f64,
    /// Demand that has no usual hours, as it is now.
    rest: f64,
    /// Swing in cores that matters.
    matters: f64,
}

/// A peak that is on: what is usual now and on the day's mean, in cores, and the hours (UTC) from which and until which
/// there is none after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Peak {
    pub usual: f64,
    pub mean: f64,
    pub good_from: usize,
    pub good_until: usize,
}

fn hour_of(at: Timestamp) -> usize {
    usize::try_from(at.as_secs().rem_euclid(86_400) / 3600).unwrap_or(0)
}

/// Second of the local day at which an hour (UTC) begins.
pub(crate) fn local_second(hour: usize, utc_offset_s: i32) -> u32 {
    let second = (i64::try_from(hour).unwrap_or(0) * 3600 + i64::from(utc_offset_s)).rem_euclid(86_400);
    u32::try_from(second).unwrap_or(0)
}

impl Day {
    /// Of one guest, if it is known well enough.
    pub(crate) fn of_guest(guest: &GuestState) -> Option<Self> {
        let profile = guest.profile.as_ref()?;
        let known = profile.observed_s >= KNOWN_S && profile.cpu_by_hour.len() == 24;
        if !known || profile.class == ProfileClass::Growing || !guest.running {
            return None;
        }
        let mut by_hour = [0.0; 24];
        for (hour, told) in by_hour.iter_mut().zip(&profile.cpu_by_hour) {
            *hour = told.filter(|cores| (0.0..1e9).contains(cores))?;
        }
        let mean = mean(&by_hour);
        let between = by_hour.iter().map(|hour| (hour - mean) * (hour - mean)).sum::<f64>() / 24.0;
        let all = profile.cpu.std_dev * profile.cpu.std_dev;
        let variance = if all.is_finite() { (all - between).max(0.0) } else { 0.0 };
        Some(Self { by_hour, variance, rest: 0.0, matters: GUEST_MATTERS })
    }

    /// Of every node, in the snapshot's order.
    pub(crate) fn of_nodes(snapshot: &Snapshot) -> Vec<Option<Self>> {
        let none =
            |cores: f64| Self { by_hour: [0.0; 24], variance: 0.0, rest: 0.0, matters: MATTERS * cores };
        let mut days: Vec<_> = snapshot.nodes.iter().map(|node| (none(node.cores), 0.0)).collect();
        for guest in &snapshot.guests {
            let (Some(at), Some(own)) = (snapshot.node_index(&guest.node), Self::of_guest(guest)) else {
                continue;
            };
            let (day, known) = &mut days[at];
            day.by_hour.iter_mut().zip(own.by_hour).for_each(|(sum, hour)| *sum += hour);
            day.variance += own.variance;
            *known += guest.cpu_used.unwrap_or(0.0) + guest.cpu_waited;
        }
        let finish = |(node, (day, known)): (&crate::snapshot::NodeState, (Self, f64))| {
            let demand = node.cpu_used + node.cpu_waited;
            let day = Self { rest: (demand - known).max(0.0), ..day };
            (known > 0.0 && known >= KNOWN_SHARE * demand).then_some(day)
        };
        snapshot.nodes.iter().zip(days).map(finish).collect()
    }

    /// The peak that is on at a time, if one is.
    pub(crate) fn peak(&self, at: Timestamp) -> Option<Peak> {
        let mean = mean(&self.by_hour);
        let highest = self.by_hour.iter().copied().fold(0.0, f64::max);
        let is_peak = |hour: usize| self.by_hour[hour % 24] > mean + 0.5 * (highest - mean);
        let now = hour_of(at);
        if highest < HILL * mean || highest - mean < self.matters || !is_peak(now) {
            return None;
        }
        let good_from = (now..now + 24).find(|&hour| !is_peak(hour))?;
        let good_until = (good_from..good_from + 24).find(|&hour| is_peak(hour))?;
        let usual = self.by_hour[now];
        Some(Peak { usual, mean, good_from: good_from % 24, good_until: good_until % 24 })
    }
}

fn mean(by_hour: &[f64; 24]) -> f64 {
    by_hour.iter().sum::<f64>() / 24.0
}

/// How a node's demand for CPU compares with what is usual at this hour.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Season {
    /// Not known, not asked, or nothing that the hour could excuse: the threshold alone decides.
    Silent,
    /// As usual: no reason to move.
    Usual(Reason),
    /// Beyond: a reason, whatever the threshold says.
    Beyond(Reason),
}

impl Season {
    /// Whether CPU is a reason to move, given that it is or is not over its threshold.
    pub(crate) const fn counts(&self, over: bool) -> bool {
        match self {
            Self::Silent => over,
            Self::Usual(_) => false,
            Self::Beyond(_) => true,
        }
    }
}

/// Every node against its usual day, in the snapshot's order; all silent when the seasonal baseline is off.
pub(crate) fn usual(snapshot: &Snapshot, fleet: &Fleet, policy: &Policy) -> Vec<Season> {
    if !policy.toggles().seasonal {
        return vec![Season::Silent; snapshot.nodes.len()];
    }
    let sigma_threshold = policy.penalty_config.seasonal_baseline.sigma_threshold;
    let hour = hour_of(snapshot.at);
    let judge = |(index, day): (usize, Option<Day>)| {
        let (node, load) = (&snapshot.nodes[index], &fleet.nodes[index]);
        let Some(day) = day.filter(|_| takes_part(node)) else { return Season::Silent };
        let percent_of = |cores: f64| 100.0 * cores / load.cores;
        let demand = node.cpu_used + node.cpu_waited;
        let usual = day.rest + day.by_hour[hour];
        let sigma = day.variance.sqrt().max(LEAST_DEVIATION * load.cores);
        let (percent, usual_percent, sigma_percent) =
            (percent_of(demand), percent_of(usual), percent_of(sigma));
        let id = node.id.clone();
        if demand > usual + sigma_threshold * sigma {
            let matters = demand - usual >= day.matters && percent >= 0.5 * policy.cpu_threshold;
            let sigmas = (demand - usual) / sigma;
            let beyond = Reason::UnusualLoad { node: id, percent, usual_percent, sigmas, sigma_threshold };
            return if matters { Season::Beyond(beyond) } else { Season::Silent };
        }
        let excused = load.pressure_percent() <= policy.pressure_threshold
            && percent < 100.0
            && percent_of(day.rest + mean(&day.by_hour)) < policy.cpu_threshold;
        if excused {
            Season::Usual(Reason::UsualLoad { node: id, percent, usual_percent, sigma_percent })
        } else {
            Season::Silent
        }
    };
    Day::of_nodes(snapshot).into_iter().enumerate().map(judge).collect()
}

/// For every node over `cpu_threshold` whose load is usual: why it is none that must be relieved. In the snapshot's order.
pub(crate) fn excuses(snapshot: &Snapshot, fleet: &Fleet, policy: &Policy) -> Vec<Option<Reason>> {
    let excuse = |(index, season): (usize, Season)| {
        let (node, load) = (&snapshot.nodes[index], &fleet.nodes[index]);
        let now = 100.0 * (node.cpu_used + node.cpu_waited) / load.cores;
        let over = now.max(load.cpu_percent()) > policy.cpu_threshold;
        match season {
            Season::Usual(reason) if over => Some(reason),
            _ => None,
        }
    };
    usual(snapshot, fleet, policy).into_iter().enumerate().map(excuse).collect()
}

/// That a node's load is beyond what is usual, as evidence.
pub(crate) fn beyond(index: usize, snapshot: &Snapshot, fleet: &Fleet, policy: &Policy) -> Option<Reason> {
    match usual(snapshot, fleet, policy).into_iter().nth(index) {
        Some(Season::Beyond(reason)) => Some(reason),
        _ => None,
    }
}
