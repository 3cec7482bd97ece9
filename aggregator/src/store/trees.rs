//! Every tree, once: name, first byte of its keys, types, who writes it and who reads it. A first byte is never used
//! again for another tree; a new version of a tree is a new line here.

use evenkeel_common::decision::Decision;
use evenkeel_common::sample::SeriesKey;

use super::records::{
    AnomalyKey, AnomalyRecord, AnomalyTimeKey, BlockKey, Cursor, DecisionKey, EventKey, EventRecord,
    FeedbackRecord, GapKey, GapRecord, GuestKey, HistoryRecord, HostDayKey, HostScoreRecord, MetaRecord,
    MigrationKey, ModelKey, ModelRecord, MoveKey, NodeKey, NodeRecord, ProfileRecord, RollupRecord, RunKey,
    ScoreKey, ScoreRecord, SeriesNumber,
};
use super::tree::{Raw, Tree, TreeId};

/// What this store is, under the key "store". Its row keeps this form for good: it is how a newer schema is noticed.
/// Written when the store is created, read when it is opened.
pub const META: Tree<String, MetaRecord> = Tree::new(0x01, "meta");
/// Nodes that have reported. Written by ingest, read by the server.
pub const NODES: Tree<NodeKey, NodeRecord> = Tree::new(0x02, "nodes");
/// The series behind the numbers in blocks. Written by ingest before the first block that uses a number, read
/// wherever blocks are.
pub const SERIES: Tree<SeriesNumber, SeriesKey> = Tree::new(0x03, "series");
/// Samples of a node and minute, coded by `evenkeel_common::columns`. Written by ingest, read by server and training.
pub const BLOCKS: Tree<BlockKey, Vec<u8>, Raw> = Tree::new(0x04, "blocks");
/// How far each agent's lanes are durable. Written by ingest, in the batch of the data itself; read at hello.
pub const CURSORS: Tree<NodeKey, Cursor> = Tree::new(0x05, "cursors");
/// Events in order of time. Written by ingest, read by the server.
pub const EVENTS: Tree<EventKey, EventRecord> = Tree::new(0x06, "events");
/// Anomalies by identity, so that a closing finds its opening. Written by ingest, read by the server.
pub const ANOMALIES: Tree<AnomalyKey, AnomalyRecord> = Tree::new(0x07, "anomalies");
/// Anomalies by the time they opened. Written with [`ANOMALIES`], read by server and retention.
pub const ANOMALIES_BY_TIME: Tree<AnomalyTimeKey, ()> = Tree::new(0x08, "anomalies_by_time");
/// Gaps in samples. Written by ingest, read wherever blocks are: a gap is shown as "no data", never as zero.
pub const GAPS: Tree<GapKey, GapRecord> = Tree::new(0x09, "gaps");
/// Guest profiles, which follow their guests. Written by ingest, read by the decision cycle and the server.
pub const PROFILES: Tree<GuestKey, ProfileRecord> = Tree::new(0x0A, "profiles");
/// Decision runs with the snapshot they came from, for replay. Written by the decision cycle, read by the server.
pub const RUNS: Tree<RunKey, serde_json::Value> = Tree::new(0x0B, "runs");
/// Decisions with their trails. Written by the decision cycle, read by the server.
pub const DECISIONS: Tree<DecisionKey, Decision> = Tree::new(0x0C, "decisions");
/// What operators set, by name (the pause). Written by the server, read by the decision cycle.
pub const CONTROL: Tree<String, serde_json::Value> = Tree::new(0x0D, "control");
/// Moves of guests, by whomever. Written by the decision cycle from PVE's tasks and inventory, read by its filters.
pub const MOVES: Tree<MoveKey, serde_json::Value> = Tree::new(0x0E, "moves");
/// Guests that came by advice, and what came of it so far. Written and read by the decision cycle.
pub const WATCHED: Tree<MoveKey, serde_json::Value> = Tree::new(0x0F, "watched");
/// Health of nodes and guests, a row when it changes and every ten minutes. Written by fleet detection, read by the
/// server.
pub const SCORES: Tree<ScoreKey, ScoreRecord> = Tree::new(0x20, "scores");
/// Means of a node over some minutes, by their start. Written and read by fleet detection.
pub const ROLLUPS: Tree<BlockKey, RollupRecord> = Tree::new(0x21, "rollups");
/// What people think of anomalies. Written and read by the server.
pub const FEEDBACK: Tree<AnomalyKey, FeedbackRecord> = Tree::new(0x22, "feedback");
/// Trained models. Written and read by fleet detection.
pub const MODELS: Tree<ModelKey, ModelRecord> = Tree::new(0x23, "models");
/// What is known of guests' usual behaviour in a form that can be merged, see `evenkeel_detect::profile`; newest wins.
/// Written and read by ingest.
pub const HISTORIES: Tree<GuestKey, Vec<u8>, Raw> = Tree::new(0x30, "histories");
/// What those are of. Written in the batch of the history itself; read at the start.
pub const HISTORY_HEADS: Tree<GuestKey, HistoryRecord> = Tree::new(0x31, "history_heads");
/// Migrations that have ended, imported or seen; all there is of one is in its key, so it can not be there twice. Written
/// by import and the decision cycle, read by the history.
pub const MIGRATIONS: Tree<MigrationKey, ()> = Tree::new(0x40, "migrations");
/// Anomaly scores of hosts by day, a row when one changes. Written and read by the history.
pub const HOST_SCORES: Tree<HostDayKey, HostScoreRecord> = Tree::new(0x41, "host_scores");

/// Migrations that evenkeel starts, each as far as it is; see `crate::execute`. Written by the decision cycle and, for
/// operators' words, by the server; read by both.
pub const INTENTS: Tree<DecisionKey, serde_json::Value> = Tree::new(0x50, "intents");

/// All trees, in the order of exports and scrubs.
pub const ALL: [TreeId; 24] = [
    META.id(),
    NODES.id(),
    SERIES.id(),
    BLOCKS.id(),
    CURSORS.id(),
    EVENTS.id(),
    ANOMALIES.id(),
    ANOMALIES_BY_TIME.id(),
    GAPS.id(),
    PROFILES.id(),
    RUNS.id(),
    DECISIONS.id(),
    CONTROL.id(),
    MOVES.id(),
    WATCHED.id(),
    SCORES.id(),
    ROLLUPS.id(),
    FEEDBACK.id(),
    MODELS.id(),
    HISTORIES.id(),
    HISTORY_HEADS.id(),
    MIGRATIONS.id(),
    HOST_SCORES.id(),
    INTENTS.id(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_first_bytes_are_unique_and_leave_the_backends_theirs() {
        let names: HashSet<_> = ALL.iter().map(|tree| tree.name).collect();
        let prefixes: HashSet<_> = ALL.iter().map(|tree| tree.prefix).collect();
        assert_eq!((names.len(), prefixes.len()), (ALL.len(), ALL.len()));
        assert!(prefixes.iter().all(|&prefix| prefix < 0xF0));
    }
}
