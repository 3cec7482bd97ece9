//! Hours of a cluster in which something is wrong now and then: the API, quorum, agents, locks, rights, people. While
//! what is known is stale or partial, or somebody is at it, no migration is started.

use std::time::Duration;

use evenkeel_aggregator::cycle::{Pause, Rearmed};
use evenkeel_aggregator::execute::State;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::{Timestamp, Window};
use evenkeel_core::Mode;
use evenkeel_runtime::clock::Clock as _;
use evenkeel_runtime::random::{self, SeededEntropy};
use evenkeel_tests::fake_pve::{self, Behaviour, Course, FakePost, Fault, PostOutcome};
use evenkeel_tests::lab::{Options, VirtualLab};
use evenkeel_tests::sim;

use crate::support::{options, pass};

/// How many hours.
const HOURS: &str = "EVENKEEL_STALE_HOURS";
/// What the hours are made of.
const SEED: &str = "EVENKEEL_STALE_SEED";
/// Seconds between samples; a run is made with every other one.
const STEP: u32 = 30;

/// Something wrong, and which calls it forbids while it lasts.
#[derive(Clone, Debug)]
enum Trouble {
    Api(Fault, &'static str),
    NoQuorum,
    PartialView,
    MayNotMigrate,
    SilentNode(NodeId),
    Locked(Vmid),
    NodeBackup(NodeId),
    Foreign(Vmid),
    Paused,
    NoExecute,
}

impl Trouble {
    fn draw(draw: &impl Fn(u64) -> u64) -> Self {
        let node = |draw: &dyn Fn(u64) -> u64| NodeId::new(format!("pve{}", 1 + draw(8))).unwrap();
        let guest = |draw: &dyn Fn(u64) -> u64| Vmid::new(100 + u32::try_from(draw(100)).unwrap()).unwrap();
        match draw(14) {
            0 => Self::Api(Fault::Unauthorized, "/"),
            1 => Self::Api(Fault::Internal("busy".into()), "/cluster"),
            2 => Self::Api(Fault::Reset, "/"),
            3 => Self::Api(Fault::EmptyList, "/cluster/resources"),
            4 => Self::Api(Fault::HalfList, "/cluster/resources"),
            5 => Self::Api(Fault::InvalidJson, "/cluster/tasks"),
            6 => Self::NoQuorum,
            7 => Self::PartialView,
            8 => Self::MayNotMigrate,
            9 => Self::SilentNode(node(draw)),
            10 => Self::Locked(guest(draw)),
            11 => Self::NodeBackup(node(draw)),
            12 => Self::Foreign(guest(draw)),
            _ if draw(2) == 0 => Self::Paused,
            _ => Self::NoExecute,
        }
    }

    /// Whether a call at a time within it may not have been made.
    fn forbids(&self, post: &FakePost, since: Timestamp) -> bool {
        match self {
            Self::Locked(guest) => post.vmid == *guest,
            Self::NodeBackup(node) => post.node == *node,
            // What was heard a moment ago is fresh for `max_data_age`.
            Self::SilentNode(_) => post.at.since(since) > Duration::from_secs(30 + 2 * u64::from(STEP)),
            _ => true,
        }
    }
}

struct Simulation {
    lab: VirtualLab,
    entropy: SeededEntropy,
    /// Foreign migration or backup under way, to be ended.
    task: Option<String>,
}

impl Simulation {
    fn draw(&self, below: u64) -> u64 {
        u64::from_le_bytes(random::bytes(&self.entropy).unwrap()) % below
    }

    fn handle(&self) -> std::sync::Arc<evenkeel_aggregator::cycle::ClusterHandle> {
        self.lab.site.aggregator.clusters.values().next().unwrap().clone()
    }

    fn no_execute(&self) -> std::path::PathBuf {
        self.lab.site.dir.join("aggregator/NO_EXECUTE")
    }

    async fn begin(&mut self, trouble: &Trouble, lasts: Duration) {
        let now = self.lab.clock.now();
        let (handle, store) = (self.handle(), self.lab.site.aggregator.store.clone());
        match trouble {
            Trouble::Paused => {
                let pause = Pause { by: "test".into(), why: "a rehearsal".into(), at: now };
                tokio::task::spawn_blocking(move || handle.pause(pause, store.as_ref()))
                    .await
                    .unwrap()
                    .unwrap();
                return;
            }
            Trouble::NoExecute => return std::fs::write(self.no_execute(), "").unwrap(),
            Trouble::SilentNode(node) => {
                let during = Window { from: now, to: now.after(lasts) };
                let fault = sim::Fault::Silent { node: node.clone(), during };
                return self.lab.cluster.fleet.lock().unwrap().faults.push(fault);
            }
            _ => {}
        }
        let mut fake = fake_pve::lock(&self.lab.cluster.fake);
        match trouble {
            Trouble::Api(fault, path) => fake.fail(path, fault.clone()),
            Trouble::NoQuorum => fake.quorate = false,
            Trouble::PartialView => fake.tokens[0].revoke("Sys.Audit"),
            Trouble::MayNotMigrate => fake.tokens[1].revoke("VM.Migrate"),
            Trouble::Locked(guest) => self.task = fake.start_backup(*guest, "root@pam"),
            Trouble::NodeBackup(node) => self.task = Some(fake.start_node_backup(node, "root@pam")),
            Trouble::Foreign(guest) => {
                let free = fake.guests.get(guest).is_some_and(|guest| guest.lock.is_none());
                self.task = free.then(|| fake.start_migration(*guest, "root@pam")).flatten();
            }
            Trouble::Paused | Trouble::NoExecute | Trouble::SilentNode(_) => {}
        }
    }

    fn end(&mut self, trouble: &Trouble) {
        match trouble {
            Trouble::Paused => self.handle().resume(self.lab.site.aggregator.store.as_ref()).unwrap(),
            Trouble::NoExecute => std::fs::remove_file(self.no_execute()).unwrap(),
            _ => {
                let mut fake = fake_pve::lock(&self.lab.cluster.fake);
                fake.heal();
                fake.quorate = true;
                for (place, privileges) in [(0, fake_pve::cluster::AUDIT.to_owned()), (1, exec())] {
                    fake.tokens[place] = fake.tokens[place].clone().with("/", &privileges);
                }
                if let Some(task) = self.task.take() {
                    fake.end_task(&task, "OK", None);
                }
            }
        }
    }

    /// A node is hot for a while, so that there is something to move.
    fn heat(&self) {
        let node = NodeId::new(format!("pve{}", 1 + self.draw(8))).unwrap();
        let now = self.lab.clock.now();
        let during = Window { from: now, to: now.after(Duration::from_mins(20 + self.draw(60))) };
        let share = 0.3 + 0.1 * f64::from(u32::try_from(self.draw(4)).unwrap());
        self.lab.cluster.fleet.lock().unwrap().faults.push(sim::Fault::HostLoad { node, share, during });
    }
}

fn exec() -> String {
    format!("{} VM.Migrate", fake_pve::cluster::AUDIT)
}

async fn start(dir: &std::path::Path, seed: u64) -> Simulation {
    let options = Options { interval_s: STEP, mode: Mode::Auto, seed, ..options(dir) };
    let lab = VirtualLab::start_with(&options, |config| {
        let cluster = &mut config.clusters[0];
        cluster.policy.decision_interval = 2 * STEP;
        cluster.policy.cooldown_minutes = 15;
        cluster.policy.max_migrations_per_day = 50;
        cluster.execute.breaker_minutes = 10;
        config.fleet.ensemble.check_interval_s = STEP;
        config.fleet.silence_after_secs = 2 * STEP;
    });
    let lab = lab.await.unwrap();
    {
        let mut fake = fake_pve::lock(&lab.cluster.fake);
        let entropy = SeededEntropy::new(seed ^ 0xfa11);
        for guest in fake.guests.keys().copied().collect::<Vec<_>>() {
            let course = match u64::from_le_bytes(random::bytes(&entropy).unwrap()) % 12 {
                0 => Course::FailsHalfway("migration aborted".into()),
                1 => Course::ProblemsButMoves,
                _ => Course::Succeeds,
            };
            fake.behaviours.insert(guest, Behaviour::from(course));
        }
    }
    Simulation { lab, entropy: SeededEntropy::new(seed), task: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_started_on_what_is_stale_partial_or_somebody_elses() {
    let hours: u64 = std::env::var(HOURS).map_or(8, |hours| hours.parse().unwrap());
    let seed: u64 = std::env::var(SEED).map_or(1, |seed| seed.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut simulation = start(dir.path(), seed).await;
    let (begin, mut troubles) = (simulation.lab.clock.now(), Vec::new());
    while simulation.lab.clock.now().since(begin) < Duration::from_hours(hours) {
        simulation.heat();
        pass(&simulation.lab, u32::try_from(10 + simulation.draw(30)).unwrap()).await;
        let trouble = Trouble::draw(&|below| simulation.draw(below));
        let steps = u32::try_from(4 + simulation.draw(20)).unwrap();
        let since = simulation.lab.clock.now();
        simulation.begin(&trouble, Duration::from_secs(u64::from(steps * STEP))).await;
        pass(&simulation.lab, steps).await;
        troubles.push((trouble.clone(), since, simulation.lab.clock.now()));
        simulation.end(&trouble);
        if simulation.draw(4) == 0 {
            let rearmed = Rearmed { by: "test".into(), why: String::new(), at: simulation.lab.clock.now() };
            simulation.handle().rearm(&rearmed, simulation.lab.site.aggregator.store.as_ref()).unwrap();
        }
    }
    let posts = fake_pve::lock(&simulation.lab.cluster.fake).posts.clone();
    for post in &posts {
        for (trouble, since, until) in &troubles {
            let within = post.at > *since && post.at < *until;
            assert!(
                !(within && trouble.forbids(post, *since)),
                "seed {seed}: {post:?} during {trouble:?} since {since}"
            );
        }
    }
    let intents = simulation.handle().book.all();
    for intent in intents.iter().filter(|intent| intent.submitted_at.is_some()) {
        let calls =
            posts.iter().filter(|post| post.vmid == intent.guest && Some(post.at) == intent.submitted_at);
        assert_eq!(calls.count(), 1, "{intent:#?}");
    }
    let of = |state| intents.iter().filter(|intent| intent.state == state).count();
    let accepted = posts.iter().filter(|post| matches!(post.outcome, PostOutcome::Accepted(_))).count();
    println!(
        "{hours} h, seed {seed}: {} troubles, {} calls, {accepted} taken; {} done, {} failed, {} aborted, {} unknown",
        troubles.len(),
        posts.len(),
        of(State::Done),
        of(State::Failed),
        of(State::Aborted),
        of(State::Unknown),
    );
    assert!(accepted as u64 >= hours / 2, "the hours have to show something: {intents:#?}");
    simulation.lab.site.shut_down().await;
}
