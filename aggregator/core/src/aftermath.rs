//! What a migration did to its nodes, against those it has nothing to do with.
//!
//! That a source is calmer an hour after a move proves nothing when the whole cluster is calmer: evening comes. So what
//! counts is by how much its use fell beyond the others' (difference in differences). The others are the nodes that
//! take part, source and target left out; without any there is nothing to compare with.

use std::time::Duration;

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::snapshot::{NodeState, Snapshot, takes_part};

/// How long after its end a migration is looked at.
pub const AFTER: [Duration; 3] =
    [Duration::from_secs(300), Duration::from_secs(3600), Duration::from_secs(24 * 3600)];

/// Use of CPU in percent, waiting time counted, at one time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Of the source.
    pub source: f64,
    /// Of the target.
    pub target: f64,
    /// Mean of the others; `None` when there are none.
    pub others: Option<f64>,
}

/// A look after the end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// How long after the end it was due, in seconds.
    pub after_s: u64,
    /// When it was made.
    pub at: Timestamp,
    /// What was seen.
    pub figures: Figures,
}

impl Figures {
    /// Those of a snapshot; `None` when it can not be relied on, or one of the two takes no part.
    #[must_use]
    pub fn of(snapshot: &Snapshot, source: &NodeId, target: &NodeId) -> Option<Self> {
        if !snapshot.problems.is_empty() {
            return None;
        }
        let known = |node: &&NodeState| takes_part(node) && node.agent_age_s.is_some() && node.cores > 0.0;
        let used = |node: &NodeState| 100.0 * (node.cpu_used + node.cpu_waited) / node.cores;
        let of = |id: &NodeId| snapshot.nodes.iter().filter(known).find(|node| node.id == *id).map(used);
        let others =
            snapshot.nodes.iter().filter(known).filter(|node| node.id != *source && node.id != *target);
        let (sum, count) = others.map(used).fold((0.0, 0.0), |(sum, count), used| (sum + used, count + 1.0));
        let others = (count > 0.0).then(|| sum / count);
        Some(Self { source: of(source)?, target: of(target)?, others })
    }

    /// Points of use that the source lost since `before`, beyond what the others lost; `None` without others.
    #[must_use]
    pub fn relief(&self, before: &Self) -> Option<f64> {
        let of_others = before.others? - self.others?;
        Some((before.source - self.source) - of_others)
    }
}

/// Points of use that a node loses when a guest leaves it; `None` when not known.
#[must_use]
pub fn expected_relief(snapshot: &Snapshot, guest: Vmid) -> Option<f64> {
    let guest = snapshot.guests.iter().find(|state| state.vmid == guest)?;
    let node = snapshot.nodes.iter().find(|node| node.id == guest.node && node.cores > 0.0)?;
    Some(100.0 * (guest.cpu_used? + guest.cpu_waited) / node.cores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn figures(text: &str) -> Option<Figures> {
        let node = |name| NodeId::new(name).unwrap();
        Figures::of(&fixture::snapshot(text), &node("pve1"), &node("pve2"))
    }

    const BEFORE: &str = "
        pve1 cpu=10 ram=64 base=0 | 101 cpu=6 mem=4 | 102 cpu=2 mem=4
        pve2 cpu=10 ram=64 base=1
        pve3 cpu=10 ram=64 base=3
        pve4 cpu=10 ram=64 base=5";

    #[test]
    fn what_falls_everywhere_is_no_relief() {
        let before = figures(BEFORE).unwrap();
        assert_eq!(before, Figures { source: 80.0, target: 10.0, others: Some(40.0) });
        // 101 has left, and the evening took ten points from everybody else.
        let after = figures(
            "
            pve1 cpu=10 ram=64 base=0 | 102 cpu=1 mem=4
            pve2 cpu=10 ram=64 base=0 | 101 cpu=6 mem=4
            pve3 cpu=10 ram=64 base=2
            pve4 cpu=10 ram=64 base=4",
        );
        assert!((after.unwrap().relief(&before).unwrap() - 60.0).abs() < 1e-9);
        let evening = figures(
            &BEFORE.replace("cpu=6", "cpu=5").replace("base=3", "base=2").replace("base=5", "base=4"),
        );
        assert!(evening.unwrap().relief(&before).unwrap().abs() < 1e-9);
    }

    #[test]
    fn without_others_or_figures_nothing_is_said() {
        let two = BEFORE.lines().filter(|line| !line.contains("pve3") && !line.contains("pve4"));
        let two = figures(&two.collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!((two.others, two.relief(&two)), (None, None));
        assert_eq!(figures(&BEFORE.replace("pve2 cpu=10", "pve2 offline cpu=10")), None);
        assert_eq!(figures(&BEFORE.replace("pve1 cpu=10", "pve1 no-agent cpu=10")), None);
        let guest = Vmid::new(101).unwrap();
        assert!((expected_relief(&fixture::snapshot(BEFORE), guest).unwrap() - 60.0).abs() < 1e-9);
    }
}
