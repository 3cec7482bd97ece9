//! Migrations in the task list, anybody's: running ones bind nodes and guests, past ones are history.
//!
//! The list names where a migration started, not where it led, and its status can be wrong both ways: a
//! `hamigrate` that ended `OK` was only queued, and a `qmigrate` that ended in "problems" may have moved the
//! guest. [`settle`] therefore reads the outcome off where the guest was seen next.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use serde::Deserialize;

use super::client::PveClient;
use super::error::{PveError, plain};
use super::lenient::{self, words};

const PATH: &str = "/cluster/tasks";

words!(
    /// Kind of a migration task.
    MigrationKind {
        /// Moves a VM.
        Qemu = "qmigrate",
        /// Moves a container.
        Lxc = "vzmigrate",
        /// Asks HA to move a guest; the move itself is a later task of one of the other kinds.
        HaRequest = "hamigrate",
    }
);

/// Proxmox' name of a task, `UPID:node:pid:pstart:starttime:type:id:user:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upid {
    text: String,
    /// Node it runs on.
    pub node: NodeId,
    /// When it started.
    pub started_at: Timestamp,
    /// Its type: qmigrate, vzdump, ...
    pub kind: String,
    /// What it works on, mostly a vmid; may be empty.
    pub id: String,
    /// Whose: `user@realm` or `user@realm!tokenid`.
    pub user: String,
}

/// Not the name of a task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a task id: expected UPID:NODE:PID:PSTART:STARTTIME:TYPE:ID:USER:")]
pub struct InvalidUpid(String);

impl FromStr for Upid {
    type Err = InvalidUpid;
    fn from_str(text: &str) -> Result<Self, InvalidUpid> {
        parse_upid(text).ok_or_else(|| InvalidUpid(plain(text).chars().take(80).collect()))
    }
}

fn parse_upid(text: &str) -> Option<Upid> {
    let parts: Vec<&str> = text.split(':').collect();
    let ["UPID", node, pid, pstart, start, kind, id, user, ""] = parts[..] else { return None };
    let hex = |part: &str, lengths: [usize; 2]| {
        lengths.contains(&part.len()).then(|| i64::from_str_radix(part, 16).ok()).flatten()
    };
    hex(pid, [8, 8]).and(hex(pstart, [8, 9]))?;
    let seconds = hex(start, [8, 8])?;
    let bad = |c: char| c.is_whitespace() || c == '/';
    if kind.is_empty() || user.is_empty() || [kind, id, user].iter().any(|part| part.contains(bad)) {
        return None;
    }
    Some(Upid {
        text: text.to_owned(),
        node: NodeId::new(node).ok()?,
        started_at: Timestamp::from_millis(seconds * 1000),
        kind: kind.to_owned(),
        id: id.to_owned(),
        user: user.to_owned(),
    })
}

impl Upid {
    /// As Proxmox writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// How a task ended, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskOutcome {
    /// It has not.
    Running,
    /// `OK`.
    Ok,
    /// `WARNINGS: n`.
    Warnings(u32),
    /// Anything else.
    Failed(String),
}

impl TaskOutcome {
    fn ended(status: &str) -> Self {
        match status.strip_prefix("WARNINGS: ") {
            _ if status == "OK" => Self::Ok,
            Some(count) => Self::Warnings(count.trim().parse().unwrap_or(1)),
            None => Self::Failed(plain(status)),
        }
    }
}

/// A migration, ours or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationTask {
    /// Identity; also tells user and start.
    pub upid: Upid,
    /// Kind.
    pub kind: MigrationKind,
    /// The guest.
    pub vmid: Vmid,
    /// When it ended; `None` while it runs.
    pub ended_at: Option<Timestamp>,
    /// How it ended by its own words; where the guest is now is the better witness.
    pub outcome: TaskOutcome,
    /// Where the guest was seen next, when that is not where the task ran. `None` while it runs, when the guest
    /// stayed, and for requests to HA.
    pub moved_to: Option<NodeId>,
}

impl MigrationTask {
    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.outcome == TaskOutcome::Running
    }

    /// Node the guest was on when it started.
    #[must_use]
    pub fn source(&self) -> &NodeId {
        &self.upid.node
    }
}

/// A task of any kind that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedTask {
    /// Identity; tells node, kind and what it worked on.
    pub upid: Upid,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Its last words when it failed, cut to [`MAX_STATUS`] characters. Stopped by a person is no failure.
    pub failed: Option<String>,
}

/// Longest text kept of how a task failed, in characters.
pub const MAX_STATUS: usize = 200;

/// The ended tasks of the list. What can not be read is left out: these only count failures.
fn ended(rows: &[Row]) -> Vec<EndedTask> {
    rows.iter()
        .filter_map(|row| {
            let status = row.status.as_deref()?;
            let ended_at = Timestamp::from_millis(i64::from(row.endtime?) * 1000);
            let failed = match TaskOutcome::ended(status) {
                TaskOutcome::Failed(words) if !words.contains("received interrupt") => {
                    Some(words.chars().take(MAX_STATUS).collect())
                }
                _ => None,
            };
            Some(EndedTask { upid: row.upid.parse().ok()?, ended_at, failed })
        })
        .collect()
}

#[derive(Deserialize)]
struct Row {
    #[serde(deserialize_with = "lenient::required")]
    upid: String,
    #[serde(rename = "type", deserialize_with = "lenient::required")]
    kind: MigrationKind,
    #[serde(default, deserialize_with = "lenient::opt")]
    status: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt")]
    endtime: Option<u32>,
}

/// A backup that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Where.
    pub node: NodeId,
    /// Of which guest; `None` for a job that goes from guest to guest.
    pub guest: Option<Vmid>,
}

/// Type of the task of a backup.
const BACKUP: &str = "vzdump";

/// What is read out of the task list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Migrations: all running ones, and those ended that the nodes still announce (about the last 25 tasks of each).
    pub migrations: Vec<MigrationTask>,
    /// All ended tasks of any kind, as far as they are announced.
    pub ended: Vec<EndedTask>,
    /// Backups that are being made.
    pub backups: Vec<Backup>,
}

fn backups(rows: &[Row]) -> Vec<Backup> {
    let runs = |row: &&Row| row.status.is_none() && row.endtime.is_none();
    let named = rows.iter().filter(runs).filter_map(|row| row.upid.parse::<Upid>().ok());
    let backups = named.filter(|upid| upid.kind == BACKUP);
    backups.map(|upid| Backup { guest: upid.id.parse().ok(), node: upid.node }).collect()
}

/// Reads the cluster's task list.
///
/// # Errors
/// As [`PveClient::get`]; [`PveError::Decode`] when a migration can not be understood.
pub async fn list(client: &PveClient) -> Result<Listed, PveError> {
    let rows: Vec<Row> = client.get(PATH, &[]).await?;
    let (ended, backups) = (ended(&rows), backups(&rows));
    let migrations = collect(rows).map_err(|what| client.misunderstood(PATH, &what))?;
    Ok(Listed { migrations, ended, backups })
}

fn collect(rows: Vec<Row>) -> Result<Vec<MigrationTask>, String> {
    let migrations = rows.into_iter().filter(|row| !matches!(row.kind, MigrationKind::Other(_)));
    migrations
        .map(|row| {
            let upid: Upid = row.upid.parse().map_err(|error: InvalidUpid| error.to_string())?;
            let vmid = upid.id.parse().map_err(|_| format!("{upid} names no guest"))?;
            let ended_at = row.endtime.map(|s| Timestamp::from_millis(i64::from(s) * 1000));
            let outcome = match (&row.status, ended_at) {
                (Some(status), _) => TaskOutcome::ended(status),
                (None, Some(_)) => TaskOutcome::Failed("it ended without saying how".into()),
                (None, None) => TaskOutcome::Running,
            };
            // A status without an end still is an end; the start is the best guess for when.
            let ended_at = ended_at.or((outcome != TaskOutcome::Running).then_some(upid.started_at));
            Ok(MigrationTask { kind: row.kind, vmid, ended_at, outcome, moved_to: None, upid })
        })
        .collect()
}

/// Fills in `moved_to`: each migration led to where the guest's next one started, the last to where it is now.
/// `tasks` may be in any order and are sorted by start.
pub(super) fn settle(tasks: &mut [MigrationTask], places: &BTreeMap<Vmid, NodeId>) {
    tasks.sort_by(|a, b| (a.upid.started_at, &a.upid).cmp(&(b.upid.started_at, &b.upid)));
    let mut next = places.clone();
    for task in tasks.iter_mut().rev().filter(|task| task.kind != MigrationKind::HaRequest) {
        let source = task.upid.node.clone();
        let seen = next.insert(task.vmid, source.clone());
        task.moved_to = seen.filter(|seen| *seen != source && !task.is_running());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upid(node: &str, start: u32, kind: &str, id: &str) -> String {
        format!("UPID:{node}:0000A1B2:00061A2B:{start:08X}:{kind}:{id}:ek@pve!rw:")
    }

    #[test]
    fn task_names_are_parsed_and_bad_ones_refused() {
        let upid: Upid = "UPID:n1:0000A1B2:123456789:6553F100:qmigrate:110:root@pam:".parse().unwrap();
        assert_eq!((upid.node.as_str(), upid.kind.as_str(), upid.id.as_str()), ("n1", "qmigrate", "110"));
        assert_eq!((upid.started_at.as_secs(), upid.user.as_str()), (1_700_000_000, "root@pam"));
        assert!("UPID:n1:0000A1B2:00061A2B:6553F100:vzdump::root@pam:".parse::<Upid>().is_ok(), "empty id");
        for bad in [
            "",
            "UPID:n1:0000A1B2:00061A2B:6553F100:qmigrate:110:root@pam",
            "UPID:n1:A1B2:00061A2B:6553F100:qmigrate:110:root@pam:",
            "UPID:n1:0000A1B2:00061A2B:6553F1zz:qmigrate:110:root@pam:",
            "UPID:../n:0000A1B2:00061A2B:6553F100:qmigrate:110:root@pam:",
            "UPID:n1:0000A1B2:00061A2B:6553F100:q/m:110:root@pam:",
            "UPID:n1:0000A1B2:00061A2B:6553F100:qmigrate:110:root@pam:x:",
        ] {
            assert!(bad.parse::<Upid>().is_err(), "{bad}");
        }
    }

    fn read(rows: &str) -> Result<Vec<MigrationTask>, String> {
        collect(serde_json::from_str(rows).map_err(|e| e.to_string())?)
    }

    #[test]
    fn migrations_are_picked_out_with_their_outcome() {
        let running = upid("n1", 1_700_000_000, "qmigrate", "110");
        let tasks = read(&format!(
            r#"[{{"upid":"{running}","type":"qmigrate"}},
                {{"upid":"{}","type":"vzdump","status":"OK","endtime":1}},
                {{"upid":"{}","type":"vzmigrate","status":"WARNINGS: 2","endtime":"1700000100","saved":"1"}},
                {{"upid":"{}","type":"hamigrate","status":"migration problems","endtime":1700000200}}]"#,
            upid("n1", 1, "vzdump", ""),
            upid("n2", 1_700_000_001, "vzmigrate", "111"),
            upid("n3", 1_700_000_002, "hamigrate", "112"),
        ))
        .unwrap();
        let outcomes: Vec<_> = tasks.iter().map(|task| task.outcome.clone()).collect();
        let failed = TaskOutcome::Failed("migration problems".into());
        assert_eq!(outcomes, [TaskOutcome::Running, TaskOutcome::Warnings(2), failed]);
        assert_eq!(tasks[1].ended_at, Some(Timestamp::from_millis(1_700_000_100_000)));
        assert!(
            read(r#"[{"upid":"nonsense","type":"qmigrate"}]"#).is_err(),
            "a migration is never passed over"
        );
        assert_eq!(read(r#"[{"upid":"nonsense","type":"vzdump"}]"#).unwrap(), []);
    }

    #[test]
    fn backups_that_run_are_told_by_guest_or_for_a_whole_node() {
        let [of_one, of_all, ended] =
            [("n1", "110"), ("n2", ""), ("n3", "111")].map(|(node, id)| upid(node, 1, "vzdump", id));
        let rows = format!(
            r#"[{{"upid":"{of_one}","type":"vzdump"}},{{"upid":"{of_all}","type":"vzdump"}},
                {{"upid":"{ended}","type":"vzdump","status":"OK","endtime":5}}]"#
        );
        let backup = |node: &str, guest: Option<u32>| Backup {
            node: NodeId::new(node).unwrap(),
            guest: guest.map(|guest| Vmid::new(guest).unwrap()),
        };
        let rows: Vec<Row> = serde_json::from_str(&rows).unwrap();
        assert_eq!(backups(&rows), [backup("n1", Some(110)), backup("n2", None)]);
    }

    #[test]
    fn where_a_migration_led_is_read_off_the_next_place() {
        let task = |node: &str, start: u32, kind: &str, vmid: u32, status: &str| {
            let status = if status.is_empty() {
                String::new()
            } else {
                format!(r#","status":"{status}","endtime":9"#)
            };
            format!(r#"{{"upid":"{}","type":"{kind}"{status}}}"#, upid(node, start, kind, &vmid.to_string()))
        };
        let mut tasks = read(&format!(
            "[{},{},{},{},{}]",
            task("n2", 20, "qmigrate", 110, "migration problems"), // Moved to n3 nevertheless.
            task("n1", 10, "qmigrate", 110, "OK"),
            task("n1", 5, "hamigrate", 110, "OK"),
            task("n1", 30, "vzmigrate", 111, "aborted"), // Stayed.
            task("n1", 40, "qmigrate", 112, ""),
        ))
        .unwrap();
        let places = [(110, "n3"), (111, "n1"), (112, "n1")];
        let places = places.map(|(vmid, node)| (Vmid::new(vmid).unwrap(), NodeId::new(node).unwrap()));
        settle(&mut tasks, &BTreeMap::from(places));
        let led: Vec<_> = tasks.iter().map(|t| t.moved_to.as_ref().map(NodeId::as_str)).collect();
        assert_eq!(led, [None, Some("n2"), Some("n3"), None, None]);
    }
}
