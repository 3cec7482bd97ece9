//! Kills the executor at its writes and at any time, while Proxmox answers late, wrongly or not at all: whatever happens,
//! a migration is started at most once, none is lost sight of, and what is said of it in the end is what became of it.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel_aggregator::execute::{Intent, State};
use evenkeel_aggregator::store::{Direction, KeyRange, OnDamage, SledStore, StoreConfig, trees};
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::units::Bytes;
use evenkeel_runtime::clock::Clock;
use evenkeel_runtime::random::{self, SeededEntropy};
use evenkeel_tests::fake_pve::cluster::FakeHaResource;
use evenkeel_tests::fake_pve::{
    self, Behaviour, Course, FakeCluster, FakeGuest, FakePve, Fault, PostOutcome, PveVersion,
};
use evenkeel_tests::harness::real_time;
use evenkeel_tests::quick::QuickClock;
use futures_util::{StreamExt as _, stream};

/// How many runs to make.
const RUNS: &str = "EVENKEEL_MOVER_RUNS";
/// Runs at once: most of the time they wait.
const AT_ONCE: usize = 6;
/// Real time after its last start in which an executor has come to an end, its task's own time left out.
const SETTLED: Duration = Duration::from_secs(30);
/// Real time after which something is stuck.
const STUCK: Duration = Duration::from_secs(120);
/// Writes of the store that a migration takes: each is a place to die at.
const WRITES: u64 = 8;

fn runs() -> u64 {
    std::env::var(RUNS).map_or(60, |runs| runs.parse().unwrap())
}

/// What a run is made of, by its seed.
struct Scenario {
    entropy: SeededEntropy,
    seed: u64,
}

impl Scenario {
    fn of(seed: u64) -> Self {
        Self { entropy: SeededEntropy::new(seed), seed }
    }

    fn draw(&self, below: u64) -> u64 {
        u64::from_le_bytes(random::bytes(&self.entropy).unwrap()) % below
    }

    fn one_in(&self, many: u64) -> bool {
        self.draw(many) == 0
    }

    fn course(&self) -> Behaviour {
        let course = match self.draw(9) {
            0 | 1 => Course::FailsHalfway("migration aborted".into()),
            2 => Course::ProblemsButMoves,
            3 => Course::VanishesMidway,
            4 => Course::Reused,
            5 => Course::LandsElsewhere(node("pve4")),
            _ => Course::Succeeds,
        };
        let behaviour = Behaviour::from(course).after(Duration::from_secs(3 + self.draw(30)));
        if self.one_in(5) { behaviour.locked() } else { behaviour }
    }

    /// What becomes of the answer to the call.
    fn fault(&self) -> Option<Fault> {
        match self.draw(12) {
            0 | 1 => Some(Fault::ResetAfter),
            2 => Some(Fault::HangAfter),
            3 => Some(Fault::InternalAfter("got timeout".into())),
            4 => Some(Fault::Reset),
            5 => Some(Fault::Hang),
            6 => Some(Fault::Internal("no quorum".into())),
            7 => Some(Fault::Forbidden("Permission check failed (/vms/101, VM.Migrate)".into())),
            8 => Some(Fault::NodeUnreachable),
            _ => None,
        }
    }

    /// The write to die at: with its seed each in turn, before it, between its two halves, and after it.
    fn death(&self) -> Option<String> {
        let place = ["before", "applied", "after"][usize::try_from(self.seed % 3).unwrap()];
        (!self.one_in(4)).then(|| format!("{place}:{}", self.seed / 3 % WRITES + 1))
    }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn vmid(number: u32) -> Vmid {
    Vmid::new(number).unwrap()
}

/// The cluster that the executor's plan is about, with what is to go wrong in it.
fn cluster(scenario: &Scenario, clock: &QuickClock) -> FakeCluster {
    let mut cluster = FakeCluster::new("lab", 4, clock.now());
    for number in [101, 102] {
        let name = format!("guest{number}");
        let mut guest = FakeGuest::new(GuestKind::Qemu, &name, &node("pve1"), 9, Bytes::gib(4), "shared1");
        guest
            .options
            .insert("smbios1".into(), format!("uuid=00000000-0000-4000-8000-000000000{number}").into());
        cluster.add_guest(vmid(number), guest);
        cluster.behaviours.insert(vmid(number), scenario.course());
        if scenario.one_in(5) {
            cluster
                .ha_resources
                .insert(vmid(number), FakeHaResource { state: "started".into(), group: None });
        }
    }
    if scenario.one_in(4) {
        cluster.version = PveVersion::V8;
    }
    if let Some(fault) = scenario.fault() {
        cluster.fail_posts_times("/nodes/", fault, 1 + u32::try_from(scenario.draw(2)).unwrap());
    }
    if scenario.one_in(3) {
        let path = ["/cluster/tasks", "/cluster/resources", "/cluster/status", "/access"];
        let path = path[usize::try_from(scenario.draw(4)).unwrap()];
        let fault = [Fault::Reset, Fault::Internal("busy".into()), Fault::EmptyList, Fault::InvalidJson];
        let fault = fault[usize::try_from(scenario.draw(4)).unwrap()].clone();
        cluster.fail_times(path, fault, 1 + u32::try_from(scenario.draw(6)).unwrap());
    }
    cluster
}

/// One executor with its directory and its Proxmox.
struct Rig {
    dir: tempfile::TempDir,
    fake: Arc<Mutex<FakeCluster>>,
    pve: FakePve,
    clock: Arc<QuickClock>,
    epoch_ms: i64,
}

impl Rig {
    async fn start(scenario: &Scenario) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let epoch_ms = real_time().as_millis();
        let clock = Arc::new(QuickClock::since(epoch_ms));
        let fake = Arc::new(Mutex::new(cluster(scenario, &clock)));
        let pve = FakePve::start(Arc::clone(&fake)).await.unwrap();
        for (name, token) in [("audit", pve.token()), ("exec", pve.exec_token())] {
            evenkeel_runtime::files::write_atomic(&dir.path().join(name), token.as_bytes(), 0o600).unwrap();
        }
        Self { dir, fake, pve, clock, epoch_ms }
    }

    fn spawn(&self, die: Option<&str>) -> Child {
        let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_mover")));
        command.arg(self.dir.path()).args(["--endpoint", &self.pve.endpoint()]);
        command.args(["--pin", &self.pve.fingerprint.to_string()]);
        command.args(["--epoch-ms", &self.epoch_ms.to_string()]).args(die.map(|die| format!("--die={die}")));
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Lets time pass at Proxmox until the child has ended, or this has passed in the world; whether it ended.
    async fn wait(&self, child: &mut Child, most: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < most {
            fake_pve::lock(&self.fake).advance(self.clock.now());
            if child.try_wait().unwrap().is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    fn intents(&self) -> Vec<Intent> {
        let config = StoreConfig { ballast_mib: 0, ..StoreConfig::default() };
        let store = SledStore::open(&self.dir.path().join("store"), &config, real_time()).unwrap();
        let mut intents = Vec::new();
        let all = KeyRange::all();
        let scanned = trees::INTENTS.scan(&store, &all, Direction::Forward, OnDamage::Fail, |_, value| {
            intents.push(serde_json::from_value(value).unwrap());
            ControlFlow::Continue(())
        });
        assert_eq!(scanned.unwrap(), 0);
        intents
    }
}

/// What a run showed.
struct Seen {
    kills: u32,
    started: usize,
    done: usize,
    /// Real time of the last start to the end.
    settled: Duration,
}

/// One run: killed a few times, then left to come to its end.
async fn run(seed: u64) -> Seen {
    let scenario = Scenario::of(seed);
    let rig = Rig::start(&scenario).await;
    let mut kills = 0;
    let mut death = scenario.death();
    for _ in 0..=scenario.draw(2) {
        let mut child = rig.spawn(death.take().as_deref());
        let time = Duration::from_millis(50 + scenario.draw(1_500));
        if !rig.wait(&mut child, time).await {
            child.kill().unwrap();
            kills += 1;
        }
        let status = child.wait().unwrap();
        if status.success() {
            break;
        }
        kills += u32::from(status.code().is_none());
    }
    let restarted = Instant::now();
    let mut child = rig.spawn(None);
    let ended = rig.wait(&mut child, STUCK).await;
    if !ended {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("seed {seed}: it never ends: {:#?}\n{:#?}", rig.intents(), fake_pve::lock(&rig.fake).posts);
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&output.stderr));
    let settled = restarted.elapsed();
    let intents = rig.intents();
    let started = check(&rig, &intents, seed);
    Seen { kills, started, done: intents.iter().filter(|i| i.state == State::Done).count(), settled }
}

/// Holds what is said against what happened; gives the number of migrations that were started.
fn check(rig: &Rig, intents: &[Intent], seed: u64) -> usize {
    let fake = fake_pve::lock(&rig.fake);
    let told = || format!("seed {seed}: {intents:#?}\n{:#?}\n{:#?}", fake.posts, fake.tasks);
    assert!(!intents.is_empty() || fake.posts.is_empty(), "called without an intent; {}", told());
    for post in &fake.posts {
        let of = intents.iter().filter(|intent| intent.guest == post.vmid && intent.submitted_at.is_some());
        assert_eq!(of.count(), 1, "a call that was not written down before it was made; {}", told());
    }
    for intent in intents {
        assert!(intent.state.is_over(), "{}", told());
        let calls = fake.posts.iter().filter(|post| post.vmid == intent.guest).count();
        assert!(calls <= 1, "called {calls} times; {}", told());
        let started = fake.posts.iter().find_map(|post| match &post.outcome {
            PostOutcome::Accepted(upid) if post.vmid == intent.guest => Some(upid),
            _ => None,
        });
        assert_eq!(started, intent.upid.as_ref(), "a task that is lost sight of; {}", told());
        let uuid = |guest: &FakeGuest| guest.options.get("smbios1").cloned();
        let own = format!("uuid=00000000-0000-4000-8000-000000000{}", intent.guest);
        let guest = fake.guests.get(&intent.guest).filter(|guest| uuid(guest) == Some(own.into()));
        let arrived = guest.is_some_and(|guest| guest.node == intent.target);
        assert_eq!(intent.state == State::Done, arrived, "not what became of it; {}", told());
    }
    fake.accepted().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_started_once_and_followed_to_its_end_whenever_the_executor_is_killed() {
    let first = std::env::var("EVENKEEL_MOVER_SEED").map_or(1, |seed| seed.parse().unwrap());
    let runs = runs();
    let seen: Vec<Seen> = stream::iter(first..first + runs)
        .map(|seed| tokio::spawn(run(seed)))
        .buffer_unordered(AT_ONCE)
        .map(Result::unwrap)
        .collect()
        .await;
    let kills: u32 = seen.iter().map(|seen| seen.kills).sum();
    let started: usize = seen.iter().map(|seen| seen.started).sum();
    let done: usize = seen.iter().map(|seen| seen.done).sum();
    let slowest = seen.iter().map(|seen| seen.settled).max().unwrap_or_default();
    println!(
        "{runs} runs, {kills} kills: {started} migrations started, none twice, {done} arrived; \
         at most {slowest:.1?} from the last start to the end (time in it runs 20 times as fast)"
    );
    assert!(kills > 0 && started > 0 && done > 0, "the runs have to show something");
    assert!(slowest < SETTLED, "{slowest:?}");
}
