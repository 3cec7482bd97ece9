//! Reasons: everything evenkeel can say about why it does, or does not, move a guest.
//!
//! A reason is a value with its numbers as fields; log, API, web page, metric label and tests all come from it.
//! Codes are stable. Each variant stands in one table with its code and its sentence, and a field that the
//! sentence does not tell is a compiler warning: no number can be forgotten.

mod words;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::decision::{Mover, Resource, Risk, RiskPart, Step};
use crate::guest::ProfileClass;
use crate::id::{DecisionId, NodeId, Vmid};
use crate::units::Bytes;
use words::{arrows, basis, clock, gains, list, mover, resource_word, verb};

impl Reason {
    /// The numbers and names behind it by field name: texts bare, all else as JSON.
    #[must_use]
    pub fn fields(&self) -> BTreeMap<String, String> {
        let Ok(serde_json::Value::Object(object)) = serde_json::to_value(self) else {
            return BTreeMap::new();
        };
        let text = |value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        object
            .into_iter()
            .filter(|(name, _)| name != "code")
            .map(|(name, value)| (name, text(value)))
            .collect()
    }
}

reasons! {
    // --- Why a whole run decided nothing -------------------------------------------------------------------

    /// An operator paused the cluster.
    "paused" Paused { why: String } => ("paused by an operator: {}", if why.is_empty() { "no reason given" } else { why });
    /// Fewer than two nodes could take part.
    "too_few_nodes" TooFewNodes { nodes: u32 } => ("{nodes} node(s) of this cluster can take part; a move needs two");
    /// No inventory from the PVE API.
    "no_pve_inventory" NoPveInventory { detail: String } => ("no inventory from the Proxmox VE API: {detail}");
    /// The inventory is too old.
    "pve_inventory_stale" PveInventoryStale { age_s: u64, limit_s: u64 } =>
        ("the Proxmox VE inventory is {age_s} s old; at most {limit_s} s is trusted");
    /// The API token does not see everything.
    "pve_inventory_partial" PveInventoryPartial { detail: String } =>
        ("the Proxmox VE inventory is not complete: {detail}");
    /// A node's agent has been silent for too long.
    "agent_stale" AgentStale { node: NodeId, age_s: u64, limit_s: u64 } =>
        ("the data of {node} is {age_s} s old; at most {limit_s} s is trusted");
    /// A node has no agent.
    "agent_missing" AgentMissing { node: NodeId } =>
        ("{node} has no agent that reports; enrol one with `evenkeelctl join-token create --node {node}`");
    /// A number in a node's data makes no sense.
    "data_invalid" DataInvalid { node: NodeId, detail: String } => ("the data of {node} can not be right: {detail}");
    /// A fault drill is on.
    "data_injected" DataInjected { node: NodeId } => ("{node} reports injected data of a fault drill");
    /// Agents and PVE disagree.
    "placement_disputed" PlacementDisputed { guest: Vmid, agents: Vec<NodeId>, pve: Option<NodeId> } =>
        ("agents see guest {guest} on {}, Proxmox VE on {}",
            if agents.is_empty() { "no node".to_owned() } else { list(agents) },
            pve.as_ref().map_or("no node", NodeId::as_str));
    /// A node's clock is off.
    "clock_skew" ClockSkew { node: NodeId, skew_ms: i64, limit_ms: u64 } =>
        ("the clock of {node} is off by {skew_ms} ms; at most {limit_ms} ms is trusted");
    /// The cluster has no quorum.
    "no_quorum" NoQuorum {} => ("the cluster has no quorum");
    /// Somebody else is moving a guest.
    "foreign_migration" ForeignMigration { guest: Vmid, source: NodeId, target: Option<NodeId> } =>
        ("a migration that evenkeel did not start is under way: guest {guest} from {source}{}",
            target.as_ref().map_or_else(String::new, |node| format!(" to {node}")));
    /// Nothing to balance.
    "converged" Converged { spread: f64, threshold: f64 } =>
        ("the cluster is balanced: node scores within {spread:.1} points (threshold {threshold:.1}), no node over a limit");
    /// Decisions are switched off for lack of a configuration.
    "not_configured" NotConfigured { detail: String } => ("no decisions are made: {detail}");

    // --- Filters: objections, and passes where a number matters --------------------------------------------

    /// The guest rests.
    "cooldown_active" CooldownActive { minutes_ago: f64, rest_minutes: f64, by: Mover, moves_last_day: u32 } =>
        ("moved {minutes_ago:.0} min ago by {}, rests {rest_minutes:.0} min ({moves_last_day} move(s) in 24 h)",
            mover(*by));
    /// The rest is over.
    "cooldown_over" CooldownOver { minutes_ago: f64, rest_minutes: f64 } =>
        ("last moved {minutes_ago:.0} min ago, rest of {rest_minutes:.0} min is over");
    /// Back to the node it just left.
    "rollback" Rollback { node: NodeId, hours_ago: f64, window_h: f64 } =>
        ("would go back to {node}, which it left {hours_ago:.1} h ago (not within {window_h:.0} h)");
    /// Closes a circle.
    "cycle" Cycle { path: Vec<NodeId>, window_h: f64 } =>
        ("cycle detected {} within {window_h:.0} h", arrows(path));
    /// Not sure enough.
    "confidence_too_low" ConfidenceTooLow { confidence: f64, needed: f64 } =>
        ("confidence {confidence:.0}, {needed:.0} is needed");
    /// Sure enough.
    "confidence_enough" ConfidenceEnough { confidence: f64, needed: f64 } =>
        ("confidence {confidence:.0} of the {needed:.0} that is needed");
    /// The guest is being moved.
    "conflict_in_flight" ConflictInFlight { guest: Vmid, target: Option<NodeId>, by: Mover } =>
        ("guest {guest} is being moved{} by {}",
            target.as_ref().map_or_else(String::new, |node| format!(" to {node}")), mover(*by));
    /// The recommendations of this run together are too much for the target.
    "conflict_overload" ConflictOverload { target: NodeId, resource: Resource, percent: f64, limit_percent: f64 } =>
        ("with the other moves of this run {target} would reach {percent:.0} % {resource} (limit {limit_percent:.0} %)");
    /// Could hurt, and is not certain enough for that.
    "risk_too_high" RiskTooHigh { parts: Vec<RiskPart>, confidence: f64, needed: f64 } =>
        ("high risk ({}) needs confidence {needed:.0}; it has {confidence:.0}", list(parts));
    /// Could hurt, but is certain enough.
    "risk_accepted" RiskAccepted { parts: Vec<RiskPart>, confidence: f64, needed: f64 } =>
        ("high risk ({}), and confidence {confidence:.0} of the {needed:.0} that this needs", list(parts));
    /// What makes a move risky.
    "risk_parts" RiskParts { risk: Risk, parts: Vec<RiskPart> } => ("risk {risk}: {}", list(parts));
    /// The source can not wait for its load to pass.
    "node_urgent" NodeUrgent { node: NodeId, resource: Resource, percent: f64, limit_percent: f64 } =>
        ("{node} can not wait: {percent:.0} % {resource}, the limit is {limit_percent:.0} %");
    /// The source's load goes away by itself.
    "trend_falling" TrendFalling {
        node: NodeId, percent: f64, per_hour: f64, ahead_percent: f64, ahead_minutes: f64, limit_percent: f64
    } => ("CPU demand of {node} ({percent:.0} %) falls by itself by {per_hour:.0} points an hour: {ahead_percent:.0} % in {ahead_minutes:.0} min, the limit is {limit_percent:.0} %");
    /// The source's load falls, but not soon enough.
    "trend_too_slow" TrendTooSlow { node: NodeId, per_hour: f64, ahead_percent: f64, ahead_minutes: f64, limit_percent: f64 } =>
        ("CPU demand of {node} falls by {per_hour:.0} points an hour, too slowly: still {ahead_percent:.0} % in {ahead_minutes:.0} min, the limit is {limit_percent:.0} %");
    /// The same move failed a moment ago.
    "retry_too_soon" RetryTooSoon { source: NodeId, target: NodeId, minutes_ago: f64, rest_minutes: f64 } =>
        ("its last attempt {source}->{target} failed {minutes_ago:.0} min ago; not tried again within {rest_minutes:.0} min");
    /// Moves between these nodes have disappointed.
    "pair_poor" PairPoor { source: NodeId, target: NodeId, poor: u32, judged: u32, rate_percent: f64 } =>
        ("{poor} of {judged} moves {source}->{target} failed or gained nothing: expected success rate {rate_percent:.0} %");
    /// Moves between these nodes have gone well enough.
    "pair_record" PairRecord { source: NodeId, target: NodeId, poor: u32, judged: u32, rate_percent: f64 } =>
        ("{poor} of {judged} moves {source}->{target} failed or gained nothing: expected success rate {rate_percent:.0} %, which is enough");
    /// Moves of this guest have disappointed.
    "guest_poor" GuestPoor { poor: u32, judged: u32, rate_percent: f64 } =>
        ("{poor} of {judged} moves of this guest failed or gained nothing: expected success rate {rate_percent:.0} %");
    /// Some moves of this guest have disappointed.
    "guest_ranked_lower" GuestRankedLower { poor: u32, judged: u32, rank_percent: f64 } =>
        ("{poor} of {judged} moves of this guest failed or gained nothing: ranked at {rank_percent:.0} % of its improvement");
    /// The guest is in its daily peak.
    "peak_guest" PeakGuest { cores: f64, mean_cores: f64, from_s: u32, until_s: u32 } =>
        ("is in its daily peak ({cores:.1} cores, {mean_cores:.1} on average); next good window {} to {}", clock(*from_s), clock(*until_s));
    /// The source is in its daily peak.
    "peak_source" PeakSource { node: NodeId, cores: f64, mean_cores: f64, from_s: u32, until_s: u32 } =>
        ("the source {node} is in its daily peak ({cores:.1} cores, {mean_cores:.1} on average); next good window {} to {}", clock(*from_s), clock(*until_s));
    /// The target is in its daily peak.
    "peak_target" PeakTarget { node: NodeId, cores: f64, mean_cores: f64, from_s: u32, until_s: u32 } =>
        ("the target {node} is in its daily peak ({cores:.1} cores, {mean_cores:.1} on average); next good window {} to {}", clock(*from_s), clock(*until_s));
    /// Gains less than it costs.
    "cost_too_high" CostTooHigh { improvement: f64, minutes: f64, ratio: f64, needed: f64 } =>
        ("better by {improvement:.2} points for {minutes:.1} min of migration: ratio {ratio:.2}, {needed:.2} is needed");
    /// Worth its minutes.
    "cost_worth_it" CostWorthIt { improvement: f64, minutes: f64, ratio: f64, needed: f64 } =>
        ("better by {improvement:.2} points for {minutes:.1} min of migration: ratio {ratio:.2} of the {needed:.2} that is needed");
    /// Not better enough.
    "improvement_too_small" ImprovementTooSmall { before: f64, after: f64, improvement: f64, needed: f64 } =>
        ("cluster score {before:.1} -> {after:.1}: better by {improvement:.2} points, {needed:.2} are needed");
    /// Better.
    "improvement" Improvement { before: f64, after: f64, improvement: f64 } =>
        ("cluster score {before:.1} -> {after:.1}: better by {improvement:.2} points");
    /// The target's memory would not suffice.
    "target_memory" TargetMemory { target: NodeId, free_after: Bytes, reserve: Bytes } =>
        ("{target} would {}; its reserve is {reserve}",
            if free_after.0 == 0 { "run out of memory".to_owned() } else { format!("keep {free_after} of memory free") });
    /// The target would exceed a limit and be worse off than the source is.
    "target_over_limit" TargetOverLimit { target: NodeId, resource: Resource, percent: f64, limit_percent: f64 } =>
        ("{target} would reach {percent:.0} % {resource}; its limit is {limit_percent:.0} %");

    /// After it, more guests would find no memory if a node failed.
    "spare_lost" SpareLost { guests: u32, improvement: f64, needed: f64 } =>
        ("after it {guests} more guest(s) would find no memory if their node failed; that is worth it from {needed:.2} points on, and it gains {improvement:.2}");
    /// Not every node may fail.
    "spare_short" SpareShort { nodes: Vec<NodeId>, guests: u32, memory: Bytes } =>
        ("the rest has no memory for all guests of {} if one of these fails: up to {guests} guest(s) with {memory} would find none", list(nodes));

    /// A tag is not kept as things stand.
    "rule_broken" RuleBroken { tag: String, node: NodeId, peers: Vec<Vmid> } =>
        ("tag {tag} is not kept on {node}{}",
            if peers.is_empty() { String::new() } else { format!(" (guest {})", list(peers)) });

    // --- Affinity ------------------------------------------------------------------------------------------

    /// A tag keeps evenkeel away.
    "tag_ignore" TagIgnore { tag: String } => ("tag {tag} tells balancers to leave it alone");
    /// A tag of ours that says nothing we know; the safe reading is taken.
    "tag_unknown" TagUnknown { tag: String } =>
        ("tag {tag} is not understood, so the guest is left alone; correct or remove it");
    /// A tag pins it.
    "tag_pin" TagPin { tags: Vec<String>, nodes: Vec<NodeId> } =>
        ("pinned to {} by tag {}", if nodes.is_empty() { "no node of this cluster".to_owned() } else { list(nodes) }, list(tags));
    /// A member of its anti-affinity group runs on the target.
    "tag_apart" TagApart { group: String, peer: Vmid, target: NodeId } =>
        ("{target} runs guest {peer} of the same anti-affinity group (tag {group})");
    /// The target's room holds more of its anti-affinity group than the one it is in.
    "room_apart" RoomApart { target: NodeId, room: String, group: String, guests: Vec<Vmid>, here: u32 } =>
        ("{target} is in room {room}, which holds guest {} of the same anti-affinity group ({group}); the room it would leave holds {here}",
            list(guests));
    /// A room names a node that is not there.
    "room_unknown" RoomUnknown { room: String, name: String } =>
        ("room {room} names {name}, which is no node of this cluster; correct `rooms` of its policy");
    /// Its affinity group would be split.
    "tag_together" TagTogether { group: String, peers: Vec<Vmid>, source: NodeId } =>
        ("its affinity group (tag {group}) stays together: guest {} on {source}", list(peers));
    /// Its group stands complete, and all of it moves.
    "group_moves" GroupMoves { groups: Vec<String>, guests: Vec<Vmid> } =>
        ("its group ({}) moves whole: guest {}; the improvement is that of all together", list(groups), list(guests));
    /// Its group is on its way, and it comes after.
    "group_follows" GroupFollows { groups: Vec<String>, leader: Vmid, target: NodeId, guests: Vec<Vmid> } =>
        ("its group ({}) is on its way: guest {leader} went to {target}, the rest (guest {}) follows; the improvement is that of the rest",
            list(groups), list(guests));
    /// Another member keeps its group where it is.
    "group_held" GroupHeld { groups: Vec<String>, guest: Vmid, why: Box<Reason> } =>
        ("its group ({}) moves whole or not at all, and guest {guest} stays: {why}", list(groups));
    /// A group that was on its way is split.
    "group_stuck" GroupStuck { groups: Vec<String>, guests: Vec<Vmid>, target: NodeId, why: Box<Reason> } =>
        ("the group {} is split: guest {} can not follow the rest to {target}: {why}", list(groups), list(guests));
    /// No node takes all of its group.
    "group_no_room" GroupNoRoom { groups: Vec<String>, guests: Vec<Vmid>, memory: Bytes } =>
        ("no other node has room for all of its group ({}: guest {}), {memory}, and the memory reserve", list(groups), list(guests));
    /// HA moves others when it moves this guest.
    "ha_takes_along" HaTakesAlong { guests: Vec<Vmid> } =>
        ("HA moves guest {} along with it; the cost is that of all", list(guests));
    /// HA moves it when it moves another.
    "ha_comes_along" HaComesAlong { rule: String, guest: Vmid, target: NodeId } =>
        ("HA rule {rule} moves it along with guest {guest} to {target}");
    /// A strict HA rule keeps it off the target.
    "ha_node_affinity" HaNodeAffinity { rule: String, nodes: Vec<NodeId>, strict: bool } =>
        ("HA rule {rule} {} {}", if *strict { "allows only" } else { "prefers and would move it back to" }, list(nodes));
    /// An HA rule ranks the target lower.
    "ha_node_priority" HaNodePriority { rule: String, source: NodeId, target: NodeId } =>
        ("HA rule {rule} prefers {source} to {target}");
    /// An HA rule keeps guests apart.
    "ha_apart" HaApart { rule: String, peer: Vmid, target: NodeId } =>
        ("HA rule {rule} keeps it apart from guest {peer} on {target}");
    /// An HA rule keeps guests together.
    "ha_together" HaTogether { rule: String, peers: Vec<Vmid>, source: NodeId } =>
        ("HA rule {rule} would move guest {} along from {source}", list(peers));
    /// HA is busy with the guest.
    "ha_state" HaState { state: String } => ("its HA state is {state}; only started guests are moved");
    /// Proxmox VE balances HA guests itself.
    "pve_rebalances" PveRebalances {} =>
        ("Proxmox VE's own auto-rebalance is on, so HA guests are left to it");
    /// The target is not taking guests.
    "target_maintenance" TargetMaintenance { target: NodeId } => ("{target} is in maintenance");
    /// The target is not online.
    "target_offline" TargetOffline { target: NodeId } => ("{target} is not online");
    /// The target's data bars it.
    "target_barred" TargetBarred { target: NodeId, why: Box<Reason> } => ("{target} takes no part: {why}");
    /// Devices of the host.
    "passthrough" Passthrough { devices: Vec<String> } => ("uses devices of its node: {}", list(devices));
    /// Disks that only its node has.
    "local_disks" LocalDisks { disks: Vec<String> } => ("has disks that are not on shared storage: {}", list(disks));
    /// A storage that the target lacks.
    "storage_missing" StorageMissing { storage: String, target: NodeId } =>
        ("storage {storage} is not available on {target}");
    /// More vCPUs than the target has.
    "too_few_cores" TooFewCores { vcpus: f64, cores: f64, target: NodeId } =>
        ("has {vcpus:.0} vCPUs, {target} only {cores:.0} cores");
    /// Passes the host's CPU type through, and the target's differs.
    "cpu_model" CpuModel { source: String, target: String } =>
        ("its CPU type is host: {source} and {target} are not the same");
    /// A container moves by restart.
    "container_restart" ContainerRestart {} =>
        ("a container moves by restart, which tag evenkeel-restart-ok must allow");

    // --- Why a guest is no candidate -----------------------------------------------------------------------

    /// Not running.
    "guest_stopped" GuestStopped {} => ("is not running, so moving it relieves nobody");
    /// A template.
    "guest_template" GuestTemplate {} => ("is a template");
    /// Locked by an operation.
    "guest_locked" GuestLocked { lock: String } => ("is locked ({lock}); wait for that task, or run `qm unlock` or `pct unlock` if it is left over");
    /// No room anywhere.
    "no_room" NoRoom { memory: Bytes } => ("no other node has room for its {memory} and the memory reserve");
    /// Nowhere to go at all.
    "no_target" NoTarget { nodes: Vec<NodeId> } =>
        ("no other node takes guests: {} not online, barred or in maintenance", verb(nodes));
    /// Its node is fine.
    "source_calm" SourceCalm { node: NodeId, score: f64 } => ("{node} is at score {score:.0}: nothing to relieve");
    /// Its node is fine once this run's moves are made.
    "source_relieved" SourceRelieved { node: NodeId, before: f64, after: f64 } =>
        ("{node} goes from score {before:.0} to {after:.0} with the moves of this run: nothing else to relieve");
    /// No figures of this guest.
    "guest_unknown_load" GuestUnknownLoad {} => ("its load is not known yet");

    // --- Why nothing (else) happens ------------------------------------------------------------------------

    /// Nothing to relieve.
    "node_calm" NodeCalm { node: NodeId, score: f64 } => ("{node} is at score {score:.0}: nothing to relieve");
    /// Over the threshold, but as on any day.
    "usual_load" UsualLoad { node: NodeId, percent: f64, usual_percent: f64, sigma_percent: f64 } =>
        ("{node} at {percent:.0} % CPU is as usual at this hour ({usual_percent:.0} %, give or take {sigma_percent:.0}), and nobody waits");
    /// Not as on any day.
    "unusual_load" UnusualLoad { node: NodeId, percent: f64, usual_percent: f64, sigmas: f64, sigma_threshold: f64 } =>
        ("{node} at {percent:.0} % CPU is beyond its usual {usual_percent:.0} % at this hour by {sigmas:.1} standard deviations (sigma_threshold {sigma_threshold:.1})");
    /// Not online.
    "node_offline" NodeOffline { node: NodeId } => ("{node} is not online");
    /// Its data bars it.
    "node_barred" NodeBarred { node: NodeId, why: Box<Reason> } => ("{node} takes no part: {why}");
    /// No guest on it.
    "node_empty" NodeEmpty { node: NodeId } => ("{node} runs no guest");
    /// None of its guests can move.
    "node_no_candidate" NodeNoCandidate { node: NodeId, score: f64, guests: u32 } =>
        ("{node} is at score {score:.0}, but none of its {guests} guest(s) can move");
    /// Moves are on their way.
    "node_moves" NodeMoves { node: NodeId, out: u32, into: u32 } =>
        ("{node}: {out} move(s) out of it and {into} into it are decided in this run");
    /// The best move of a node or guest, and why it does not happen.
    "best_move_held" BestMoveHeld { guest: Vmid, target: NodeId, improvement: f64, filter: Step, objection: Box<Reason> } =>
        ("best move is guest {guest} to {target} (better by {improvement:.2} points), held by {filter}: {objection}");
    /// The best move is not worth it.
    "best_move_too_small" BestMoveTooSmall { guest: Vmid, target: NodeId, improvement: f64, needed: f64 } =>
        ("best candidate is guest {guest} to {target}: it {}", gains(*improvement, *needed));
    /// The best move is not worth it, now that the day's migrations run out.
    "best_move_too_dear" BestMoveTooDear { guest: Vmid, target: NodeId, improvement: f64, needed: f64, used: u32, limit: u32 } =>
        ("best candidate is guest {guest} to {target}: it {}, since {used} of the day's {limit} migrations are used", gains(*improvement, *needed));
    /// The best move waits its turn.
    "best_move_waits" BestMoveWaits { guest: Vmid, target: NodeId, why: Box<Reason> } =>
        ("best move is guest {guest} to {target}; it waits: {why}");
    /// A tag that evenkeel can not follow; the safe reading is taken.
    "tag_not_understood" TagNotUnderstood { guest: Vmid, tag: String, reading: String } =>
        ("guest {guest}: tag {tag} is not understood; {reading}");

    // --- Fate of what passed the filters -------------------------------------------------------------------

    /// Not seen often enough.
    "observing" Observing { seen: u32, needed: u32 } => ("observing: {seen}/{needed} periods");
    /// Not enough data yet.
    "collecting" Collecting { hours: f64, needed_h: f64 } =>
        ("observing: {hours:.1} h of data collected, {needed_h:.1} h are needed");
    /// Over the run's limit.
    "limit_run" LimitRun { limit: u32 } => ("max_migrations_per_run {limit} is reached");
    /// Over the limit of migrations at once.
    "limit_concurrent" LimitConcurrent { limit: u32, running: u32 } =>
        ("max_concurrent_migrations {limit} is reached ({running} under way)");
    /// One out of, one into a node at a time.
    "limit_node" LimitNode { node: NodeId, into: bool } =>
        ("another guest already moves {} {node}; one at a time", if *into { "into" } else { "out of" });
    /// The target's memory is not free yet.
    "limit_room" LimitRoom { target: NodeId } =>
        ("{target} has the memory for it only once the guests that are to leave it have left");
    /// Over the day's limit.
    "limit_day" LimitDay { moved: u32, limit: u32, per_node: u32 } =>
        ("{moved} migrations in the last 24 h; the limit is {limit} (max_migrations_per_day {per_node} per node)");
    /// What the day has left is promised.
    "limit_promised" LimitPromised { moved: u32, promised: u32, limit: u32 } =>
        ("{moved} migrations in the last 24 h, and {promised} promised to groups on their way; the limit is {limit}");
    /// More members than the day has migrations left.
    "limit_group" LimitGroup { groups: Vec<String>, migrations: u32, left: u32, limit: u32 } =>
        ("its group ({}) moves whole, in {migrations} migrations; of the day's {limit} there are {left} left", list(groups));
    /// Mode advise.
    "advised" Advised { before: f64, after: f64 } =>
        ("passed all filters: cluster score {before:.1} -> {after:.1}; mode advise leaves the move to you");
    /// Mode approve.
    "needs_approval" NeedsApproval { before: f64, after: f64 } =>
        ("passed all filters: cluster score {before:.1} -> {after:.1}; waits for an operator's approval");
    /// Another balancer is at work.
    "other_balancer" OtherBalancer { name: String, moves: u32, minutes_ago: f64, quiet_h: f64 } =>
        ("another balancer, {name}, moved {moves} guest(s), the last {minutes_ago:.0} min ago; evenkeel only advises until it has been quiet for {quiet_h:.0} h");
    /// Mode auto.
    "accepted" Accepted { before: f64, after: f64 } =>
        ("passed all filters: cluster score {before:.1} -> {after:.1}");

    // --- Why what was decided is not started ---------------------------------------------------------------

    /// The file that forbids it is there.
    "no_execute" NoExecute { path: String } => ("nothing is started while the file {path} exists; delete it to go on");
    /// The aggregator may not start migrations.
    "no_exec_token" NoExecToken { detail: String } =>
        ("evenkeel may not start migrations: {detail}; see execute.token_file");
    /// The mode leaves moves to people.
    "mode_advises" ModeAdvises {} => ("mode advise leaves every move to people; policy.mode changes that");
    /// It has only just started.
    "starting" Starting { seconds_left: u64 } =>
        ("the aggregator has only just started; it moves nothing for another {seconds_left} s");
    /// What became of a migration is not known.
    "unresolved" Unresolved { migration: DecisionId, guest: Vmid } =>
        ("what became of migration {migration} of guest {guest} is not known; look at the guest, then run `evenkeelctl rearm`");
    /// What an earlier process started is not known in full.
    "intents_damaged" IntentsDamaged { rows: u32 } =>
        ("{rows} record(s) of earlier migrations can not be read; look whether guests are locked, then run `evenkeelctl rearm`");
    /// Too many migrations failed.
    "breaker_open" BreakerOpen { node: Option<NodeId>, failed: u32, of: u32, minutes_left: u32 } =>
        ("{failed} of the last {of} migrations{} failed; the next one is tried in {minutes_left} min, or after `evenkeelctl rearm`",
            node.as_ref().map_or_else(String::new, |node| format!(" from or to {node}")));
    /// After a breaker opened one move is tried.
    "breaker_trial" BreakerTrial { node: Option<NodeId> } =>
        ("after too many failures{} one migration at a time is tried, and one is under way",
            node.as_ref().map_or_else(String::new, |node| format!(" from or to {node}")));
    /// A backup is being made.
    "backup_running" BackupRunning { node: NodeId, guest: Option<Vmid> } =>
        ("a backup of {} is being made",
            guest.map_or_else(|| format!("guests of {node}"), |guest| format!("guest {guest} on {node}")));
    /// Proxmox VE refused a short while ago.
    "refused_lately" RefusedLately { minutes_left: u32, why: Box<Reason> } =>
        ("this was refused a moment ago and rests for {minutes_left} min: {why}");
    /// The guest is not where it was.
    "guest_elsewhere" GuestElsewhere { guest: Vmid, expected: NodeId, found: Option<NodeId> } =>
        ("guest {guest} is no longer on {expected}; it is {}",
            found.as_ref().map_or_else(|| "gone".to_owned(), |node| format!("on {node}")));
    /// The number belongs to another guest now.
    "another_guest" AnotherGuest { guest: Vmid } => ("the number {guest} belongs to another guest now");
    /// What Proxmox VE itself, or the token, has against it.
    "pve_objects" PveObjects { detail: String } => ("Proxmox VE objects: {detail}");
    /// An operator said no.
    "rejected" Rejected { by: String, why: String } =>
        ("rejected by {by}: {}", if why.is_empty() { "no reason given" } else { why });
    /// An operator has it emptied.
    "evacuating" Evacuating { node: NodeId } => ("{node} is being emptied on an operator's request");
    /// Another move of the guest took its place.
    "superseded" Superseded { target: NodeId } => ("a later run wants the guest on {target} instead");
    /// Nobody said yes in time, or it could not be started in time.
    "expired" Expired { minutes: u32, approved: bool } =>
        ("{} within {minutes} min", if *approved { "approved, but could not be started" } else { "not approved" });

    // --- What became of a migration ------------------------------------------------------------------------

    /// Waits to be started.
    "approved" Approved { by: String } => ("approved by {by}; it is started after a last look at fresh data");
    /// Under way.
    "under_way" UnderWay { state: String } => ("the migration is under way: {state}");
    /// Seen on its target.
    "arrived" Arrived { target: NodeId, seconds: u64 } => ("moved: it was seen on {target} {seconds} s after the start");
    /// It ended, and the guest is not on its target.
    "migration_failed" MigrationFailed { detail: String } => ("the migration failed: {detail}");
    /// Proxmox VE did not take it.
    "not_accepted" NotAccepted { detail: String } => ("Proxmox VE did not start it: {detail}");
    /// Nothing tells what became of it.
    "migration_unknown" MigrationUnknown { detail: String } => ("what became of the migration is not known: {detail}");

    // --- Evidence ------------------------------------------------------------------------------------------

    /// The source stands out.
    "node_hot" NodeHot { node: NodeId, resource: Resource, percent: f64, cluster_percent: f64 } =>
        ("{node} {} {percent:.0} % against the cluster's {cluster_percent:.0} %", resource_word(*resource));
    /// Guests of the source wait.
    "waiting" Waiting { node: NodeId, cores: f64 } => ("guests of {node} wait for {cores:.1} cores more than they get");
    /// What the guest is expected to need.
    "predicted_load" PredictedLoad { class: ProfileClass, cores: f64, memory: Bytes, now_cores: f64 } =>
        ("expected to need {cores:.1} cores ({}, now {now_cores:.1}) and {memory}", basis(*class));
    /// Score of source and target, before and after.
    "score_change" ScoreChange { node: NodeId, before: f64, after: f64 } =>
        ("score of {node} {before:.0} -> {after:.0}");
    /// The source is being emptied.
    "source_maintenance" SourceMaintenance { node: NodeId } => ("{node} is in maintenance and has to be emptied");
}

#[cfg(test)]
#[path = "reason_tests.rs"]
mod tests;
