//! How each node's demand for CPU went over the last hour, from one decision run to the next: what filter 7 fits its
//! line through. Demand as decisions see it (used and waited for), as means of five minutes: a run is stored with its
//! snapshot, and a line needs no more. A node that takes no part leaves a gap: of it nothing is known then.

use std::collections::BTreeMap;

use evenkeel_common::id::NodeId;
use evenkeel_core::{RunRecord, Snapshot, TrailPoint};

/// Seconds of a step.
const STEP_S: i64 = 300;
/// Seconds kept.
const KEPT_S: i64 = 3600;

/// What ran together into one mean.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    times_s: i64,
    percents: f64,
    count: u32,
}

/// The trails of a cluster's nodes; by node, steps by their number since 1970.
#[derive(Debug, Default)]
pub struct Trails(BTreeMap<NodeId, BTreeMap<i64, Step>>);

impl Trails {
    /// Takes up where the last run left off.
    #[must_use]
    pub fn of(last: Option<&RunRecord>) -> Self {
        let mut trails = Self::default();
        for (snapshot, node) in last.iter().flat_map(|r| r.snapshot.nodes.iter().map(|n| (&r.snapshot, n))) {
            for point in &node.demand_trail {
                trails.add(&node.id, snapshot.at.as_secs() - i64::from(point.age_s), point.percent);
            }
        }
        trails
    }

    fn add(&mut self, node: &NodeId, at_s: i64, percent: f64) {
        if !percent.is_finite() {
            return;
        }
        let step = self.0.entry(node.clone()).or_default().entry(at_s.div_euclid(STEP_S)).or_default();
        step.times_s += at_s.rem_euclid(STEP_S);
        step.percents += percent;
        step.count += 1;
    }

    /// Adds what a snapshot shows, and gives it the trails up to now.
    pub fn follow(&mut self, snapshot: &mut Snapshot) {
        let now_s = snapshot.at.as_secs();
        for node in &snapshot.nodes {
            let known =
                node.online && node.barred.is_none() && node.agent_age_s.is_some() && node.cores > 0.0;
            if known {
                self.add(&node.id, now_s, 100.0 * (node.cpu_used + node.cpu_waited) / node.cores);
            }
        }
        // What lies ahead was noted before the clock was set back.
        let (oldest, newest) = ((now_s - KEPT_S).div_euclid(STEP_S), now_s.div_euclid(STEP_S));
        self.0.retain(|node, steps| {
            steps.retain(|number, _| (oldest + 1..=newest).contains(number));
            snapshot.nodes.iter().any(|known| known.id == *node)
        });
        for node in &mut snapshot.nodes {
            let steps = self.0.get(&node.id).into_iter().flatten();
            node.demand_trail = steps.filter_map(|(number, step)| step.point(*number, now_s)).collect();
        }
    }
}

impl Step {
    fn point(&self, number: i64, now_s: i64) -> Option<TrailPoint> {
        let at_s = number * STEP_S + self.times_s / i64::from(self.count.max(1));
        // Hundredths are more than anything measures, and keep the record short.
        let percent = (100.0 * self.percents / f64::from(self.count)).round() / 100.0;
        Some(TrailPoint { age_s: u32::try_from(now_s - at_s).ok()?, percent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::reason::Reason;
    use evenkeel_common::time::Timestamp;
    use evenkeel_core::{Memory, Policy};

    /// Two nodes of ten cores at a second, of which the first uses and waits for so many.
    fn snapshot(at_s: i64, used: f64, waited: f64) -> Snapshot {
        let node = |name: &str| {
            serde_json::json!({"id": name, "online": true, "maintenance": false, "barred": null, "agent_age_s": 1,
                "cores": 10.0, "memory": 64, "memory_used": 1, "cpu_used": used, "cpu_waited": waited,
                "pressure": {"cpu": null, "memory": null, "io": null}, "iowait_percent": 0.0, "cpu_model": null,
                "storages": []})
        };
        let mut snapshot: Snapshot = serde_json::from_value(serde_json::json!({"cluster": "lab", "at": 0,
            "nodes": [node("pve1"), node("pve2")], "guests": [], "rules": [], "history": [], "in_flight": [],
            "problems": [], "paused": null, "pve_rebalances": false}))
        .unwrap();
        snapshot.at = Timestamp::from_millis(1000 * at_s);
        snapshot
    }

    fn told(snapshot: &Snapshot) -> Vec<(u32, f64)> {
        snapshot.nodes[0].demand_trail.iter().map(|point| (point.age_s, point.percent)).collect()
    }

    #[test]
    fn an_hour_is_kept_in_means_of_five_minutes() {
        let mut trails = Trails::default();
        for minute in 0..200 {
            let mut now = snapshot(60 * minute, 5.0 + (minute % 5) as f64, 1.0);
            trails.follow(&mut now);
            assert!(told(&now).len() <= 13);
        }
        let mut now = snapshot(60 * 200, 9.0, 0.0);
        trails.follow(&mut now);
        let trail = told(&now);
        assert_eq!(trail.len(), 12, "{trail:?}");
        // Minutes 195 to 199, as a mean at 197; then the one that has just begun.
        assert_eq!(trail[10..], [(180, 80.0), (0, 90.0)]);
        assert!(trail.windows(2).all(|pair| pair[0].0 > pair[1].0) && trail[0].0 <= 3600);
    }

    #[test]
    fn a_node_that_takes_no_part_leaves_a_gap_and_one_that_is_gone_nothing() {
        let mut trails = Trails::default();
        trails.follow(&mut snapshot(0, 5.0, 0.0));
        let mut silent = snapshot(300, 0.0, 0.0);
        silent.nodes[0].agent_age_s = None;
        trails.follow(&mut silent);
        let mut drill = snapshot(600, 9.0, 0.0);
        drill.nodes[0].barred = Some(Reason::DataInjected { node: drill.nodes[0].id.clone() });
        trails.follow(&mut drill);
        let mut now = snapshot(900, 6.0, 0.0);
        trails.follow(&mut now);
        assert_eq!(told(&now), [(900, 50.0), (0, 60.0)]);
        let mut gone = snapshot(1200, 5.0, 0.0);
        gone.nodes.remove(0);
        trails.follow(&mut gone);
        let mut back = snapshot(1500, 7.0, 0.0);
        trails.follow(&mut back);
        assert_eq!(told(&back), [(0, 70.0)]);
        let mut set_back = snapshot(-9000, 3.0, 0.0);
        trails.follow(&mut set_back);
        assert_eq!(told(&set_back), [(0, 30.0)]);
    }

    #[test]
    fn a_restart_takes_the_trail_up_from_the_last_run() {
        let mut trails = Trails::default();
        let mut last = snapshot(0, 0.0, 0.0);
        for step in 0..9 {
            last = snapshot(300 * step, step as f64, 0.0);
            trails.follow(&mut last);
        }
        let record = RunRecord::of(last.clone(), Policy::default(), Memory::default());
        let (mut going_on, mut restarted) = (snapshot(2700, 9.0, 0.0), snapshot(2700, 9.0, 0.0));
        trails.follow(&mut going_on);
        Trails::of(Some(&record)).follow(&mut restarted);
        assert_eq!(told(&going_on).len(), 10);
        assert_eq!(told(&going_on), told(&restarted));
        let mut much_later = snapshot(90_000, 1.0, 0.0);
        Trails::of(Some(&record)).follow(&mut much_later);
        assert_eq!(told(&much_later), [(0, 10.0)]);
    }
}
