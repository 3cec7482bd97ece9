//! Decisions: what became of each recommendation in one run, and the trail of filters that explains it.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{DecisionId, NodeId, Vmid};
use crate::reason::Reason;
use crate::units::{Bytes, Score};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Stable name, as it appears in JSON, in metrics and on screen.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

words!(
    /// The filters a recommendation passes, in the order in which they are asked.
    Step {
        /// The guest moved recently.
        Cooldown = "cooldown",
        /// Back to the node it just left.
        Rollback = "rollback",
        /// Closes a circle over three or more nodes.
        Cycle = "cycle",
        /// Too little confidence.
        Confidence = "confidence",
        /// Contradicts another recommendation or a migration under way.
        Conflict = "conflict",
        /// Too risky for its confidence.
        Risk = "risk",
        /// The source's load is falling by itself.
        Trend = "trend",
        /// This pair of nodes has a poor record.
        Outcome = "outcome",
        /// Source, target or guest is in its daily peak.
        Pattern = "pattern",
        /// Tags, pins, HA rules, devices, storage, maintenance.
        Affinity = "affinity",
        /// Costs more than it gains.
        CostBenefit = "cost_benefit",
        /// This guest has a poor record.
        GuestSuccess = "guest_success",
        /// The cluster is not measurably better after the move, or the target would exceed its limits.
        Improvement = "improvement",
    }
);

words!(
    /// What became of a recommendation.
    Action {
        /// The migration was done and observed.
        Executed = "executed",
        /// Accepted; the migration is to start or under way.
        Pending = "pending",
        /// The migration failed.
        Failed = "failed",
        /// A filter objected.
        Filtered = "filtered",
        /// Good, but over a limit of this run.
        Skipped = "skipped",
        /// Not seen in enough consecutive runs yet.
        Observing = "observing",
        /// A filter expects the cause to pass by itself.
        Deferred = "deferred",
        /// Passed everything; mode advise leaves it to the admin.
        Recommended = "recommended",
        /// Passed everything; mode approve waits for an operator.
        AwaitingApproval = "awaiting_approval",
    }
);

impl Action {
    /// Whether the guest is on its way, or would be if an admin followed the advice: later moves of the run are
    /// judged as if this one were done.
    #[must_use]
    pub const fn is_accepted(self) -> bool {
        matches!(self, Self::Executed | Self::Pending | Self::Recommended | Self::AwaitingApproval)
    }

    /// Name of the colour it is shown in.
    #[must_use]
    pub const fn color(self) -> &'static str {
        match self {
            Self::Executed => "green",
            Self::Pending | Self::Recommended | Self::AwaitingApproval => "blue",
            Self::Failed | Self::Filtered => "red",
            Self::Skipped => "gray",
            Self::Observing => "cyan",
            Self::Deferred => "amber",
        }
    }
}

words!(
    /// How much a migration could hurt.
    Risk {
        /// Small and live.
        Low = "low",
        /// Something to think of.
        Medium = "medium",
        /// Large memory, many vCPUs or disks, local disks.
        High = "high",
    }
);

/// One thing that makes a migration risky.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum RiskPart {
    /// Much memory to send.
    Memory {
        /// What it may use.
        memory: Bytes,
    },
    /// Many virtual CPUs, which all stop for the hand-over.
    Vcpus {
        /// How many.
        vcpus: f64,
    },
    /// Many disks, each with its own hand-over.
    Disks {
        /// How many.
        disks: u32,
    },
    /// Disks that are copied while the guest writes to them.
    LocalDisks {
        /// Their size; 0 when not known.
        size: Bytes,
    },
    /// Memory that changes faster than it may be sent.
    DirtyRate {
        /// In MB/s.
        mb_s: f64,
    },
    /// It is stopped on one node and started on the other.
    Restart,
}

impl fmt::Display for RiskPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { memory } => write!(f, "{memory} of memory"),
            Self::Vcpus { vcpus } => write!(f, "{vcpus:.0} vCPUs"),
            Self::Disks { disks } => write!(f, "{disks} disks"),
            Self::LocalDisks { size: Bytes(0) } => f.write_str("local disks"),
            Self::LocalDisks { size } => write!(f, "{size} of local disks"),
            Self::DirtyRate { mb_s } => write!(f, "changes {mb_s:.0} MB/s of memory"),
            Self::Restart => f.write_str("moves by restart"),
        }
    }
}

words!(
    /// What a node can run out of.
    Resource {
        /// Processor time.
        Cpu = "cpu",
        /// Memory.
        Memory = "memory",
        /// Time spent waiting, by the kernel's pressure stall information.
        Pressure = "pressure",
        /// Bandwidth of its NICs.
        Network = "network",
    }
);

words!(
    /// Who moved a guest.
    Mover {
        /// evenkeel.
        Evenkeel = "evenkeel",
        /// Anyone else: an admin, HA, another balancer.
        Foreign = "foreign",
    }
);

/// What a filter answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "snake_case")]
pub enum Verdict {
    /// No objection; with a reason where a number mattered.
    Pass(Option<Reason>),
    /// Must not happen: the action is `filtered`.
    Filtered(Reason),
    /// Better later: the action is `deferred`.
    Deferred(Reason),
    /// The filter is switched off.
    NotEnabled,
    /// An earlier filter objected, so this one was not asked.
    NotAsked,
}

impl Verdict {
    /// The answer that has nothing to add.
    pub const PASS: Self = Self::Pass(None);

    /// Stable name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Filtered(_) => "filtered",
            Self::Deferred(_) => "deferred",
            Self::NotEnabled => "not_enabled",
            Self::NotAsked => "not_asked",
        }
    }

    /// Its reason, if it gave one.
    #[must_use]
    pub const fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Pass(reason) => reason.as_ref(),
            Self::Filtered(reason) | Self::Deferred(reason) => Some(reason),
            Self::NotEnabled | Self::NotAsked => None,
        }
    }

    /// The action and reason that follow from an objection; `None` when there is none.
    #[must_use]
    pub const fn objection(&self) -> Option<(Action, &Reason)> {
        match self {
            Self::Filtered(reason) => Some((Action::Filtered, reason)),
            Self::Deferred(reason) => Some((Action::Deferred, reason)),
            Self::Pass(_) | Self::NotEnabled | Self::NotAsked => None,
        }
    }
}

/// One filter's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrailEntry {
    /// Which filter.
    pub filter: Step,
    /// Its answer.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The answers of all thirteen filters, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trail(pub Vec<TrailEntry>);

impl Trail {
    /// The first objection: filter, action and reason.
    #[must_use]
    pub fn stopped(&self) -> Option<(Step, Action, &Reason)> {
        self.0.iter().find_map(|entry| entry.verdict.objection().map(|(a, r)| (entry.filter, a, r)))
    }
}

impl fmt::Display for Trail {
    /// A line per filter: number, name, verdict, reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, TrailEntry { filter, verdict }) in self.0.iter().enumerate() {
            write!(f, "{:>2} {filter:<13} {}", index + 1, verdict.name())?;
            match verdict.reason() {
                Some(reason) => writeln!(f, ": {reason}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

/// What a migration costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Expected duration in minutes.
    pub minutes: f64,
    /// Data that crosses the network.
    pub bytes: Bytes,
}

/// A move that would help.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Which guest.
    pub guest: Vmid,
    /// Its name; attacker-controlled text, empty when unknown.
    pub name: String,
    /// Where it runs.
    pub source: NodeId,
    /// Where it should run.
    pub target: NodeId,
    /// Expected improvement of the cluster's score, in points, before the price of the move.
    pub improvement: f64,
    /// 0 to 100: of those told 80, 80 % should improve the cluster.
    pub confidence: Score,
    /// Whether what it is for is reached with the guest's arrival, rather than forecast.
    #[serde(default)]
    pub certain: bool,
    /// How much it could hurt.
    pub risk: Risk,
    /// What it costs.
    pub cost: Cost,
    /// Why it contradicts another recommendation, if it does.
    pub conflict: Option<Reason>,
    /// What speaks for it.
    pub evidence: Vec<Reason>,
}

impl Recommendation {
    /// Guests that are no decisions of their own, because HA moves them along with this one.
    #[must_use]
    pub fn along(&self) -> &[Vmid] {
        let along = self.evidence.iter().find_map(|reason| match reason {
            Reason::HaTakesAlong { guests } => Some(guests.as_slice()),
            _ => None,
        });
        along.unwrap_or_default()
    }
}

/// What became of one recommendation in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Run and place in it.
    pub id: DecisionId,
    /// The move.
    #[serde(flatten)]
    pub recommendation: Recommendation,
    /// What became of it.
    pub action: Action,
    /// The filter that objected, if one did.
    pub filter: Option<Step>,
    /// Why, in one sentence.
    pub reason: Reason,
    /// All filters' answers.
    pub trail: Trail,
}

/// How many recommendations of a run met which fate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunSummary(pub BTreeMap<Action, u32>);

impl RunSummary {
    /// Counts decisions by action; actions that did not occur are absent.
    #[must_use]
    pub fn of(decisions: &[Decision]) -> Self {
        let mut counts = BTreeMap::new();
        for decision in decisions {
            *counts.entry(decision.action).or_insert(0) += 1;
        }
        Self(counts)
    }

    /// How many had this action.
    #[must_use]
    pub fn count(&self, action: Action) -> u32 {
        self.0.get(&action).copied().unwrap_or(0)
    }
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no recommendations");
        }
        for (index, (action, count)) in self.0.iter().enumerate() {
            write!(f, "{}{count} {action}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClusterId;

    fn decision() -> Decision {
        let node = |name| NodeId::new(name).unwrap();
        let reason = Reason::Observing { seen: 2, needed: 3 };
        Decision {
            id: DecisionId { cluster: ClusterId::new("lab").unwrap(), run_s: 1_000, number: 1 },
            recommendation: Recommendation {
                guest: Vmid::new(101).unwrap(),
                name: "db".into(),
                source: node("pve1"),
                target: node("pve2"),
                improvement: 0.1 + 0.2,
                confidence: Score::clamped(80.0),
                certain: false,
                risk: Risk::Low,
                cost: Cost { minutes: 0.7, bytes: Bytes::gib(8) },
                conflict: None,
                evidence: vec![],
            },
            action: Action::Filtered,
            filter: Some(Step::Rollback),
            reason: reason.clone(),
            trail: Trail(vec![
                TrailEntry { filter: Step::Cooldown, verdict: Verdict::PASS },
                TrailEntry { filter: Step::Rollback, verdict: Verdict::Filtered(reason) },
                TrailEntry { filter: Step::Cycle, verdict: Verdict::NotAsked },
                TrailEntry { filter: Step::Risk, verdict: Verdict::NotEnabled },
            ]),
        }
    }

    #[test]
    fn json_is_flat_and_survives() {
        let json = serde_json::to_value(decision()).unwrap();
        assert_eq!(json["guest"], 101);
        assert_eq!(json["filter"], "rollback");
        assert_eq!(json["reason"]["code"], "observing");
        assert_eq!(json["trail"][0], serde_json::json!({"filter":"cooldown","verdict":"pass","reason":null}));
        assert_eq!(json["trail"][3], serde_json::json!({"filter":"risk","verdict":"not_enabled"}));
        assert_eq!(serde_json::from_value::<Decision>(json).unwrap(), decision());
    }

    #[test]
    fn the_first_objection_stops() {
        let decision = decision();
        let (step, action, _) = decision.trail.stopped().unwrap();
        assert_eq!((step, action), (Step::Rollback, Action::Filtered));
        assert!(decision.trail.to_string().contains(" 2 rollback      filtered: observing: 2/3 periods\n"));
        assert_eq!(RunSummary::of(&[decision.clone(), decision]).to_string(), "2 filtered");
    }

    #[test]
    fn thirteen_steps_in_the_order_of_the_specification() {
        let names: Vec<_> = Step::ALL.iter().map(|s| s.name()).collect();
        assert_eq!(
            names.join(" "),
            "cooldown rollback cycle confidence conflict risk trend outcome pattern affinity cost_benefit \
             guest_success improvement"
        );
    }
}
