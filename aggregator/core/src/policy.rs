//! The policy: every option that shapes a decision, with its range, default and what it does.
//!
//! Names, ranges and defaults of `intelligent_migrations` and `penalty_config` are a contract with admins who come
//! from ProxBalance. `preset` sets their toggles in one word; a toggle that is given overrides it.

use std::collections::BTreeMap;

use evenkeel_common::config::{Validate, Violation};
use evenkeel_common::id::NodeId;
use evenkeel_common::reason::Reason;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::risk::RiskLimits;
use crate::snapshot::NodeState;

/// A named setting of all toggles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// The rules that are always on: cooldown, rollback, conflict, affinity, improvement; and cycle detection.
    #[default]
    Off,
    /// Adds persistence: a recommendation must last before it counts.
    Basic,
    /// Adds risk, cost_benefit, outcome and guest_success.
    Standard,
    /// Adds trend, pattern and the seasonal baseline.
    Full,
}

/// What is done with a recommendation that passed everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Shown to the admin.
    #[default]
    Advise,
    /// Executed after an operator's approval.
    Approve,
    /// Executed.
    Auto,
}

/// How migrations are decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Sets all toggles of `intelligent_migrations` and the seasonal baseline in one word; each toggle that is given
    /// overrides it.
    pub preset: Preset,
    /// What is done with a recommendation that passed everything.
    pub mode: Mode,
    /// Seconds from one decision run to the next.
    #[schemars(range(min = 10, max = 3600))]
    pub decision_interval: u32,
    /// Seconds after which a node's data is too old to decide on; the whole cluster then waits.
    #[schemars(range(min = 5, max = 600))]
    pub max_data_age: u32,
    /// Use of CPU in percent from which a node is too full, waiting time counted. Also the limit of a target, unless
    /// the source stays above the target.
    #[schemars(range(min = 10, max = 100))]
    pub cpu_threshold: f64,
    /// Use of memory in percent from which a node is too full.
    #[schemars(range(min = 10, max = 100))]
    pub mem_threshold: f64,
    /// Pressure (CPU, memory or I/O, the highest) in percent from which a node is too full.
    #[schemars(range(min = 1, max = 100))]
    pub pressure_threshold: f64,
    /// Memory that a target keeps free after a move, in percent of its RAM. A hard limit; too low risks the OOM killer.
    #[schemars(range(min = 0, max = 50))]
    pub memory_reserve_percent: f64,
    /// Improvement of the cluster's score, in points, below which a move is not worth it: one point is one percent of an
    /// average node for an hour. Where hardly anything waits a move has to gain up to four times as much, and the fewer of
    /// the day's migrations are left, the more.
    #[schemars(range(min = 0.01, max = 10))]
    pub min_improvement: f64,
    /// Whether tags that are broken as things stand (guests that stay apart on one node, a group that is split, a pinned
    /// guest elsewhere) are put right on a calm cluster too. If not, that waits until guests move anyway, and a warning
    /// tells of it.
    pub enforce_rules: bool,
    /// Rooms (racks, fire compartments) by name, each with the nodes that fail together in it, as in
    /// `{ north = ["pve1", "pve2"], south = ["pve3"] }`. A guest whose tags or HA rule keep it apart from others is never
    /// moved into a room that holds more of its group than the one it leaves. A node stands in one room at most; one that
    /// stands in none is a room of its own. Empty by default: each node is one.
    pub rooms: BTreeMap<String, Vec<String>>,
    /// Speed of the migration network in Mbit/s, for what a move costs.
    #[schemars(range(min = 10, max = 400_000))]
    pub migration_link_mbps: u32,
    /// Minutes a guest rests after any move, by whomever; twice as long for each further move within 24 hours.
    #[schemars(range(min = 0, max = 10_080))]
    pub cooldown_minutes: u32,
    /// Confidence, 0 to 100, that a recommendation needs.
    #[schemars(range(min = 0, max = 100))]
    pub confidence_threshold: f64,
    /// Most migrations that one run may decide; the rest is skipped.
    #[schemars(range(min = 1, max = 100))]
    pub max_migrations_per_run: u32,
    /// Most migrations at once in a cluster; besides, a node has one out and one in at a time.
    #[schemars(range(min = 1, max = 50))]
    pub max_concurrent_migrations: u32,
    /// Most migrations by evenkeel in 24 hours, times the number of nodes of the cluster.
    #[schemars(range(min = 1, max = 100))]
    pub max_migrations_per_day: u32,
    /// What learns from the past.
    pub intelligent_migrations: IntelligentMigrations,
    /// What makes a move one of high risk.
    pub risk: RiskLimits,
    /// What counts as balanced.
    pub penalty_config: PenaltyConfig,
}

/// What learns from the past. A toggle that is absent follows `preset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IntelligentMigrations {
    /// Persistence: a recommendation must appear in consecutive runs before it counts. Absent: from preset basic on.
    pub enabled: Option<bool>,
    /// Consecutive runs a recommendation must appear in.
    #[schemars(range(min = 2, max = 10))]
    pub observation_periods: u32,
    /// Hours after which an observation no longer counts.
    #[schemars(range(min = 1, max = 48))]
    pub observation_window_hours: f64,
    /// Hours of data before any recommendation counts.
    #[schemars(range(min = 0, max = 48))]
    pub minimum_data_collection_hours: f64,
    /// High-risk moves need more confidence. Absent: from preset standard on.
    pub risk_gating_enabled: Option<bool>,
    /// Times the confidence threshold for high-risk moves.
    #[schemars(range(min = 1, max = 2))]
    pub risk_confidence_multiplier: f64,
    /// Moves wait while the source's load falls by itself. Absent: in preset full.
    pub trend_awareness_enabled: Option<bool>,
    /// Pairs of nodes with a poor record are avoided. Absent: from preset standard on.
    pub outcome_learning_enabled: Option<bool>,
    /// Moves wait while source, target or guest is in its daily peak. Absent: in preset full.
    pub pattern_suppression_enabled: Option<bool>,
    /// Moves that cost more than they gain are filtered. Absent: from preset standard on.
    pub cost_benefit_enabled: Option<bool>,
    /// Improvement over cost, both in node-score points, that a move needs at least.
    #[schemars(range(min = 0.5, max = 5))]
    pub min_cost_benefit_ratio: f64,
    /// Circles over three or more nodes are filtered. Absent: on, in every preset.
    pub cycle_detection_enabled: Option<bool>,
    /// Hours within which a guest does not come back in a circle.
    #[schemars(range(min = 12, max = 168))]
    pub cycle_window_hours: u32,
    /// Guests with a poor record are ranked lower or filtered. Absent: from preset standard on.
    pub guest_success_tracking_enabled: Option<bool>,
}

/// What counts as balanced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PenaltyConfig {
    /// Spread of the node scores, in points, within which nothing is moved while no node is over a threshold.
    #[schemars(range(min = 1, max = 20))]
    pub cluster_convergence_threshold: f64,
    /// Load that is normal for the hour.
    pub seasonal_baseline: SeasonalBaseline,
}

/// Load that is normal for the hour is no reason to move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SeasonalBaseline {
    /// Whether to compare with what is usual at this hour. Absent: in preset full.
    pub enabled: Option<bool>,
    /// Standard deviations beyond which load is not usual.
    #[schemars(range(min = 1, max = 5))]
    pub sigma_threshold: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            preset: Preset::Off,
            mode: Mode::Advise,
            decision_interval: 60,
            max_data_age: 30,
            cpu_threshold: 70.0,
            mem_threshold: 80.0,
            pressure_threshold: 20.0,
            memory_reserve_percent: 10.0,
            min_improvement: 0.8,
            enforce_rules: false,
            rooms: BTreeMap::new(),
            migration_link_mbps: 1000,
            cooldown_minutes: 60,
            confidence_threshold: 75.0,
            max_migrations_per_run: 3,
            max_concurrent_migrations: 2,
            max_migrations_per_day: 4,
            intelligent_migrations: IntelligentMigrations::default(),
            risk: RiskLimits::default(),
            penalty_config: PenaltyConfig::default(),
        }
    }
}

impl Default for IntelligentMigrations {
    fn default() -> Self {
        Self {
            enabled: None,
            observation_periods: 3,
            observation_window_hours: 1.0,
            minimum_data_collection_hours: 0.0,
            risk_gating_enabled: None,
            risk_confidence_multiplier: 1.2,
            trend_awareness_enabled: None,
            outcome_learning_enabled: None,
            pattern_suppression_enabled: None,
            cost_benefit_enabled: None,
            min_cost_benefit_ratio: 1.0,
            cycle_detection_enabled: None,
            cycle_window_hours: 48,
            guest_success_tracking_enabled: None,
        }
    }
}

impl Default for PenaltyConfig {
    fn default() -> Self {
        Self { cluster_convergence_threshold: 8.0, seasonal_baseline: SeasonalBaseline::default() }
    }
}

impl Default for SeasonalBaseline {
    fn default() -> Self {
        Self { enabled: None, sigma_threshold: 2.0 }
    }
}

/// What is on, after preset and single options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // It is the list of toggles.
#[allow(missing_docs)] // Each is the filter or rule of its name.
pub struct Toggles {
    pub persistence: bool,
    pub cycle: bool,
    pub risk: bool,
    pub trend: bool,
    pub outcome: bool,
    pub pattern: bool,
    pub cost_benefit: bool,
    pub guest_success: bool,
    pub seasonal: bool,
}

impl Policy {
    /// What is on.
    #[must_use]
    pub fn toggles(&self) -> Toggles {
        let options = &self.intelligent_migrations;
        let basic = self.preset != Preset::Off;
        let standard = matches!(self.preset, Preset::Standard | Preset::Full);
        let full = self.preset == Preset::Full;
        Toggles {
            persistence: options.enabled.unwrap_or(basic),
            cycle: options.cycle_detection_enabled.unwrap_or(true),
            risk: options.risk_gating_enabled.unwrap_or(standard),
            trend: options.trend_awareness_enabled.unwrap_or(full),
            outcome: options.outcome_learning_enabled.unwrap_or(standard),
            pattern: options.pattern_suppression_enabled.unwrap_or(full),
            cost_benefit: options.cost_benefit_enabled.unwrap_or(standard),
            guest_success: options.guest_success_tracking_enabled.unwrap_or(standard),
            seasonal: self.penalty_config.seasonal_baseline.enabled.unwrap_or(full),
        }
    }

    /// The room that a node stands in.
    pub(crate) fn room_of(&self, node: &NodeId) -> Option<&str> {
        let stands = |nodes: &Vec<String>| nodes.iter().any(|name| name == node.as_str());
        self.rooms.iter().find(|(_, nodes)| stands(nodes)).map(|(room, _)| room.as_str())
    }

    /// Whether two nodes stand in one room.
    pub(crate) fn same_room(&self, a: &NodeId, b: &NodeId) -> bool {
        a == b || self.room_of(a).is_some_and(|room| self.room_of(b) == Some(room))
    }

    /// Nodes of rooms that the cluster does not have.
    pub(crate) fn unknown_in_rooms(&self, nodes: &[NodeState]) -> Vec<Reason> {
        let known = |name: &String| nodes.iter().any(|node| node.id.as_str() == name);
        let named = self.rooms.iter().flat_map(|(room, nodes)| nodes.iter().map(move |name| (room, name)));
        let unknown = named.filter(|(_, name)| !known(name));
        unknown.map(|(room, name)| Reason::RoomUnknown { room: room.clone(), name: name.clone() }).collect()
    }

    /// Every number with its option and range. The schema's ranges say the same; a test compares them.
    fn numbers(&self) -> [(&'static str, f64, f64, f64); 26] {
        let learned = &self.intelligent_migrations;
        let (penalty, risk) = (&self.penalty_config, &self.risk);
        let n = f64::from;
        [
            ("decision_interval", n(self.decision_interval), 10.0, 3600.0),
            ("max_data_age", n(self.max_data_age), 5.0, 600.0),
            ("cpu_threshold", self.cpu_threshold, 10.0, 100.0),
            ("mem_threshold", self.mem_threshold, 10.0, 100.0),
            ("pressure_threshold", self.pressure_threshold, 1.0, 100.0),
            ("memory_reserve_percent", self.memory_reserve_percent, 0.0, 50.0),
            ("min_improvement", self.min_improvement, 0.01, 10.0),
            ("migration_link_mbps", n(self.migration_link_mbps), 10.0, 400_000.0),
            ("cooldown_minutes", n(self.cooldown_minutes), 0.0, 10_080.0),
            ("confidence_threshold", self.confidence_threshold, 0.0, 100.0),
            ("max_migrations_per_run", n(self.max_migrations_per_run), 1.0, 100.0),
            ("max_concurrent_migrations", n(self.max_concurrent_migrations), 1.0, 50.0),
            ("max_migrations_per_day", n(self.max_migrations_per_day), 1.0, 100.0),
            ("intelligent_migrations.observation_periods", n(learned.observation_periods), 2.0, 10.0),
            ("intelligent_migrations.observation_window_hours", learned.observation_window_hours, 1.0, 48.0),
            (
                "intelligent_migrations.minimum_data_collection_hours",
                learned.minimum_data_collection_hours,
                0.0,
                48.0,
            ),
            (
                "intelligent_migrations.risk_confidence_multiplier",
                learned.risk_confidence_multiplier,
                1.0,
                2.0,
            ),
            ("intelligent_migrations.min_cost_benefit_ratio", learned.min_cost_benefit_ratio, 0.5, 5.0),
            ("intelligent_migrations.cycle_window_hours", n(learned.cycle_window_hours), 12.0, 168.0),
            ("risk.memory_gib", risk.memory_gib, 1.0, 65_536.0),
            ("risk.vcpus", risk.vcpus, 1.0, 1024.0),
            ("risk.disks", n(risk.disks), 1.0, 256.0),
            ("risk.local_disk_gib", risk.local_disk_gib, 0.0, 1_000_000.0),
            ("risk.dirty_rate_mb_s", risk.dirty_rate_mb_s, 1.0, 1_000_000.0),
            (
                "penalty_config.cluster_convergence_threshold",
                penalty.cluster_convergence_threshold,
                1.0,
                20.0,
            ),
            (
                "penalty_config.seasonal_baseline.sigma_threshold",
                penalty.seasonal_baseline.sigma_threshold,
                1.0,
                5.0,
            ),
        ]
    }
}

impl Validate for Policy {
    /// Holds every number against its range, NaN included, and each node of a room against the other rooms.
    fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (room, nodes) in &self.rooms {
            for node in nodes {
                if let Some(other) = seen.insert(node, room) {
                    let given = format!("{node} (listed in {other} and in {room})");
                    wrong.push(Violation::new(format!("rooms.{room}"), given, "each node once, in one room"));
                }
            }
        }
        for (option, value, low, high) in self.numbers() {
            if !(low..=high).contains(&value) {
                wrong.push(Violation::new(option, value, format!("{low} to {high}")));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::config::{assert_documented, parse, parse_valid};

    #[test]
    fn every_option_is_documented() {
        assert_documented::<Policy>();
    }

    #[test]
    fn the_schema_and_the_check_know_the_same_ranges() {
        for (option, _, low, high) in Policy::default().numbers() {
            let key = |value: f64| {
                let (section, name) = option.rsplit_once('.').unwrap_or(("", option));
                let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
                format!("{header}{name} = {value}\n")
            };
            for good in [low, high] {
                assert!(parse_valid::<Policy>(&key(good), "test").is_ok(), "{option} = {good}");
            }
            let step = if low < 1.0 && low > 0.0 { 0.005 } else { 1.0 };
            for bad in [low - step, high + 1.0] {
                let error = parse::<Policy>(&key(bad), "test").unwrap_err().to_string();
                assert!(error.contains(option) && error.contains(&bad.to_string()), "{error}");
            }
        }
    }

    #[test]
    fn a_node_stands_in_one_room() {
        let rooms = |text: &str| parse_valid::<Policy>(&format!("[rooms]\n{text}"), "test");
        let policy = rooms("north = ['pve1', 'pve2']\nsouth = ['pve3']").unwrap();
        let same = |a, b| policy.same_room(&NodeId::new(a).unwrap(), &NodeId::new(b).unwrap());
        assert!(same("pve1", "pve2") && same("pve4", "pve4"));
        assert!(!same("pve1", "pve3") && !same("pve4", "pve5"), "a node in no room is a room of its own");
        for twice in ["a = ['pve1']\nb = ['pve1']", "a = ['pve1', 'pve1']"] {
            let error = rooms(twice).unwrap_err().to_string();
            assert!(error.contains("rooms.") && error.contains("pve1 (listed in a"), "{error}");
        }
    }

    #[test]
    fn a_bad_value_is_named_with_its_range() {
        let mut policy = Policy::default();
        policy.intelligent_migrations.observation_periods = 1;
        policy.cpu_threshold = f64::NAN;
        let wrong = policy.validate().unwrap_err();
        let told: Vec<_> = wrong.iter().map(|v| format!("{} {} {}", v.option, v.given, v.allowed)).collect();
        assert_eq!(
            told,
            ["cpu_threshold NaN 10 to 100", "intelligent_migrations.observation_periods 1 2 to 10"]
        );
    }

    #[test]
    fn a_preset_sets_toggles_and_an_option_overrides_it() {
        let toggles = |text: &str| parse_valid::<Policy>(text, "test").unwrap().toggles();
        let on = |t: Toggles| {
            [
                (t.persistence, "persistence"),
                (t.cycle, "cycle"),
                (t.risk, "risk"),
                (t.trend, "trend"),
                (t.outcome, "outcome"),
                (t.pattern, "pattern"),
                (t.cost_benefit, "cost_benefit"),
                (t.guest_success, "guest_success"),
                (t.seasonal, "seasonal"),
            ]
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| *name)
            .collect::<Vec<_>>()
            .join(" ")
        };
        assert_eq!(on(toggles("")), "cycle");
        assert_eq!(on(toggles("preset = 'basic'")), "persistence cycle");
        assert_eq!(
            on(toggles("preset = 'standard'")),
            "persistence cycle risk outcome cost_benefit guest_success"
        );
        assert_eq!(
            on(toggles("preset = 'full'")),
            "persistence cycle risk trend outcome pattern cost_benefit guest_success seasonal"
        );
        let text = "preset = 'full'\n[intelligent_migrations]\nenabled = false\ncycle_detection_enabled = false\n\
                    trend_awareness_enabled = false\n";
        assert_eq!(on(toggles(text)), "risk outcome pattern cost_benefit guest_success seasonal");
        assert_eq!(on(toggles("[intelligent_migrations]\nenabled = true")), "persistence cycle");
    }
}
