//! Other balancers, by what they leave in Proxmox' task list: two movers would chase guests around the cluster.
//!
//! A user or token counts as a balancer when it calls itself one, or when it starts three migrations within an hour.
//! A person does that too, but only to empty one node or to fill it again; so without a token, the moves must also be
//! from several nodes to several nodes. What the HA manager does by itself is not another's doing, and what it does
//! on request is the requester's. Tags of other balancers prove nothing: they are left when their tool is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_common::id::NodeId;
use evenkeel_core::coexist::{OtherBalancer, QUIET, Sign};

use crate::execute::Intent;
use crate::pve::Inventory;
use crate::pve::tasks::{MigrationKind, MigrationTask};

/// Migrations by one user or token within [`BURST`] that no person starts one by one.
const MANY: usize = 3;
const BURST: Duration = Duration::from_hours(1);
/// Time within which the HA manager begins what it was asked for.
const REQUESTED: Duration = Duration::from_mins(15);
/// Whom HA manager and root's own session run as.
const ROOT: &str = "root@pam";
/// What a balancer has in its name; "balance" stands for ProxBalance too.
const NAMES: [&str; 2] = ["proxlb", "balance"];
/// Longest name kept, in characters.
const LONGEST_NAME: usize = 100;

/// The other balancers of one cluster. Proxmox forgets its tasks soon, so they are remembered for as long as they
/// count.
#[derive(Debug, Default)]
pub(super) struct Others(BTreeMap<String, OtherBalancer>);

impl Others {
    /// Those that an earlier run knew of.
    pub(super) fn of(known: &[OtherBalancer]) -> Self {
        Self(known.iter().map(|other| (other.name.clone(), other.clone())).collect())
    }

    /// Takes in what an inventory shows. `own`: evenkeel's own token, `user@realm!tokenid`; `intents`: what it started,
    /// with whichever token.
    pub(super) fn observe(&mut self, inventory: &Inventory, own: &str, intents: &[Intent]) {
        for other in found(inventory, own, intents) {
            let known = self.0.entry(other.name.clone()).or_insert_with(|| {
                tracing::warn!(name = other.name, moves = other.moves, "another balancer moves guests");
                other.clone()
            });
            // After a restart Proxmox may show less than was seen before.
            known.moves = known.moves.max(other.moves);
            known.last = known.last.max(other.last);
            known.since = known.since.min(other.since);
        }
        self.0.retain(|_, other| inventory.taken_at.since(other.last) < QUIET);
    }

    /// Those that count now.
    pub(super) fn known(&self) -> Vec<OtherBalancer> {
        self.0.values().cloned().collect()
    }
}

/// The balancers that the tasks of the last day show.
fn found(inventory: &Inventory, own: &str, intents: &[Intent]) -> Vec<OtherBalancer> {
    let started: BTreeSet<&str> = intents.iter().filter_map(|intent| intent.upid.as_deref()).collect();
    let all = || inventory.history.iter().chain(&inventory.running);
    let mut by_user: BTreeMap<&str, Vec<&MigrationTask>> = BTreeMap::new();
    for task in all() {
        let recent = inventory.taken_at.since(task.upid.started_at) < QUIET;
        let ours = is_own(&task.upid.user, own) || started.contains(task.upid.as_str());
        if recent && !ours && !is_of_ha(task, inventory, all()) {
            by_user.entry(&task.upid.user).or_default().push(task);
        }
    }
    let balancer = |(user, mut tasks): (&str, Vec<&MigrationTask>)| {
        tasks.sort_by_key(|task| task.upid.started_at);
        let lower = user.to_lowercase();
        let what = if NAMES.iter().any(|name| lower.contains(name)) {
            Sign::Name
        } else if tasks.windows(MANY).any(|burst| is_burst(burst, user.contains('!'), &tasks)) {
            Sign::Pattern
        } else {
            return None;
        };
        Some(OtherBalancer {
            name: user.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect(),
            what,
            since: tasks.first()?.upid.started_at,
            last: tasks.last()?.upid.started_at,
            moves: u32::try_from(tasks.len()).unwrap_or(u32::MAX),
        })
    };
    by_user.into_iter().filter_map(balancer).collect()
}

/// Whether these migrations, within the hour that begins with the first, are no person's.
fn is_burst(burst: &[&MigrationTask], by_token: bool, all: &[&MigrationTask]) -> bool {
    let (Some(first), Some(last)) = (burst.first(), burst.last()) else { return false };
    let begin = first.upid.started_at;
    if last.upid.started_at.since(begin) > BURST {
        return false;
    }
    let hour = all.iter().filter(|task| task.upid.started_at >= begin);
    let hour: Vec<_> = hour.filter(|task| task.upid.started_at.since(begin) <= BURST).collect();
    let sources: BTreeSet<&NodeId> = hour.iter().map(|task| task.source()).collect();
    let targets: BTreeSet<&NodeId> = hour.iter().filter_map(|task| task.moved_to.as_ref()).collect();
    by_token || (sources.len() > 1 && targets.len() > 1)
}

/// Whether a user or token is evenkeel's: its token, or another of a user it has for itself.
fn is_own(user: &str, own: &str) -> bool {
    let person = |id: &str| id.split('!').next().unwrap_or_default().to_owned();
    !own.is_empty() && (user == own || (person(own) != ROOT && person(user) == person(own)))
}

/// Whether the HA manager did this: by itself, or because somebody asked, whose task then counts.
fn is_of_ha<'a>(
    task: &MigrationTask,
    inventory: &Inventory,
    mut all: impl Iterator<Item = &'a MigrationTask>,
) -> bool {
    let asked = |request: &MigrationTask| {
        request.kind == MigrationKind::HaRequest
            && request.vmid == task.vmid
            && request.upid.started_at <= task.upid.started_at
            && task.upid.started_at.since(request.upid.started_at) <= REQUESTED
    };
    task.upid.user == ROOT
        && task.kind != MigrationKind::HaRequest
        && (inventory.ha.services.contains_key(&task.vmid) || all.any(asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pve::ha::Ha;
    use crate::pve::tasks::TaskOutcome;
    use evenkeel_common::time::Timestamp;

    const OWN: &str = "evenkeel@pve!ro";
    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    /// `user kind vmid from>to minutes-ago`, a line each.
    fn inventory(tasks: &str) -> Inventory {
        let task = |(number, line): (usize, &str)| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [user, kind, vmid, way, ago] = words[..] else { panic!("{line}") };
            let (from, to) = way.split_once('>').unwrap();
            let start = NOW.before(minutes(ago.parse().unwrap())).as_secs();
            MigrationTask {
                upid: format!("UPID:{from}:{number:08X}:00061A2B:{start:08X}:{kind}:{vmid}:{user}:")
                    .parse()
                    .unwrap(),
                kind: match kind {
                    "hamigrate" => MigrationKind::HaRequest,
                    "qmigrate" => MigrationKind::Qemu,
                    other => panic!("{other}"),
                },
                vmid: vmid.parse().unwrap(),
                ended_at: Some(NOW),
                outcome: TaskOutcome::Ok,
                moved_to: (!to.is_empty()).then(|| NodeId::new(to).unwrap()),
            }
        };
        Inventory {
            utc_offset_s: 0,
            taken_at: NOW,
            cluster_name: None,
            quorate: true,
            nodes: BTreeMap::new(),
            guests: BTreeMap::new(),
            storages: vec![],
            ha: Ha::default(),
            crs: crate::pve::cluster::Crs::default(),
            running: vec![],
            history: tasks.lines().map(str::trim).filter(|l| !l.is_empty()).enumerate().map(task).collect(),
            tasks: vec![],
            backups: vec![],
            configs: BTreeMap::new(),
            warnings: vec![],
        }
    }

    #[track_caller]
    fn check(tasks: &str, expected: &[(&str, Sign, u32)]) {
        let mut others = Others::default();
        others.observe(&inventory(tasks), OWN, &[]);
        let known = others.known();
        let told: Vec<_> = known.iter().map(|o| (o.name.as_str(), o.what, o.moves)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_token_that_calls_itself_a_balancer_is_one_from_its_first_move() {
        for name in ["root@pam!proxlb", "ProxBalance@pve!api", "ops@pve!rebalancer"] {
            check(&format!("{name} qmigrate 101 n1>n2 300"), &[(name, Sign::Name, 1)]);
        }
    }

    #[test]
    fn three_moves_of_a_token_within_an_hour_are_a_balancer_and_two_are_not() {
        let two = "a@pve!cron qmigrate 101 n1>n2 100\na@pve!cron qmigrate 102 n1>n2 130";
        check(two, &[]);
        check(&format!("{two}\na@pve!cron qmigrate 103 n1>n2 80"), &[("a@pve!cron", Sign::Pattern, 3)]);
        check(&format!("{two}\na@pve!cron qmigrate 103 n1>n2 60"), &[]);
        check(&format!("{two}\nb@pve!cron qmigrate 103 n1>n2 80"), &[]);
    }

    #[test]
    fn a_person_who_empties_a_node_and_fills_it_again_is_none() {
        let emptied =
            "root@pam qmigrate 101 n1>n2 50\nroot@pam qmigrate 102 n1>n3 49\nroot@pam qmigrate 103 n1>n2 48";
        check(emptied, &[]);
        check(
            "ann@pam qmigrate 101 n2>n1 50\nann@pam qmigrate 102 n3>n1 49\nann@pam qmigrate 103 n2>n1 48",
            &[],
        );
        check(&format!("{emptied}\nroot@pam qmigrate 104 n2>n3 20"), &[("root@pam", Sign::Pattern, 4)]);
    }

    #[test]
    fn evenkeel_itself_and_the_ha_manager_are_none() {
        check(
            "evenkeel@pve!exec qmigrate 101 n1>n2 50\nevenkeel@pve!exec qmigrate 102 n1>n2 49\nevenkeel@pve!exec qmigrate 103 n3>n2 48",
            &[],
        );
        // On request of a token: counted once, and as the token's.
        let asked: String = [101, 102, 103]
            .iter()
            .map(|vmid| {
                format!(
                    "x@pve!t hamigrate {vmid} n{}> 40\nroot@pam qmigrate {vmid} n{}>n9 39\n",
                    vmid % 2,
                    vmid % 2
                )
            })
            .collect();
        check(&asked, &[("x@pve!t", Sign::Pattern, 3)]);
        let mut others = Others::default();
        // Tokens of root are not evenkeel's only because its own is one of them.
        others.observe(&inventory("root@pam!proxlb qmigrate 101 n1>n2 5"), "root@pam!evenkeel", &[]);
        assert_eq!(others.known().len(), 1);
        // What evenkeel started with a token of another user is its own all the same.
        let started = inventory(
            "m@pve!rw qmigrate 101 n1>n2 50\nm@pve!rw qmigrate 102 n1>n2 49\nm@pve!rw qmigrate 103 n3>n2 48",
        );
        let intents = started.history.iter().zip(1..).map(|(task, run_s)| Intent {
            upid: Some(task.upid.to_string()),
            ..crate::execute::intent::tests::intent(run_s)
        });
        let mut others = Others::default();
        others.observe(&started, OWN, &intents.collect::<Vec<_>>());
        assert_eq!(others.known(), []);
        others.observe(&started, OWN, &[]);
        assert_eq!(others.known().len(), 1);
    }

    #[test]
    fn what_was_seen_is_remembered_over_a_restart_until_it_has_been_quiet_for_a_day() {
        let mut others = Others::default();
        others.observe(
            &inventory("root@pam!proxlb qmigrate 101 n1>n2 600\nroot@pam!proxlb qmigrate 102 n1>n2 500"),
            OWN,
            &[],
        );
        let mut others = Others::of(&others.known());
        let mut later = Inventory { taken_at: NOW.after(minutes(900)), ..inventory("") };
        others.observe(&later, OWN, &[]);
        assert_eq!((others.known().len(), others.known()[0].moves), (1, 2));
        later.taken_at = NOW.after(minutes(24 * 60 - 500));
        others.observe(&later, OWN, &[]);
        assert_eq!(others.known(), []);
    }
}
