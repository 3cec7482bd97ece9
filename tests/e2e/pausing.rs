//! After a pause has returned nothing is started, whenever it comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_aggregator::cycle::execution::Execution;
use evenkeel_aggregator::cycle::{ClusterHandle, Pause};
use evenkeel_aggregator::execute::{ExecuteConfig, Intent, LogError, State};
use evenkeel_aggregator::pve::migrate::Migrator;
use evenkeel_aggregator::pve::{Inventory, InventoryReader, PveClient, PveConfig};
use evenkeel_aggregator::store::{SledStore, Store, StoreConfig};
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::units::Bytes;
use evenkeel_core::{Memory, Mode, Policy, Snapshot, decide, fixture};
use evenkeel_runtime::clock::{Clock, SystemClock};
use evenkeel_runtime::random::{self, SeededEntropy};
use evenkeel_tests::fake_pve::{self, FakeCluster, FakeGuest, FakePve, Fault};

/// How many races to run.
const RACES: &str = "EVENKEEL_PAUSES";

const PLAN: &str = "
    pve1 cpu=16 ram=64 | 101 cpu=9 mem=4 | 102 cpu=9 mem=4
    pve2 cpu=16 ram=64
    pve3 cpu=16 ram=64";

/// An executor in this process, with a cluster that refuses every migration.
struct Rig {
    fake: Arc<Mutex<FakeCluster>>,
    handle: Arc<ClusterHandle>,
    store: Arc<dyn Store>,
    execution: Arc<Execution>,
    inventory: Inventory,
    clock: Arc<dyn Clock>,
    no_execute: std::path::PathBuf,
    exec_token: std::path::PathBuf,
    _pve: FakePve,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let mut cluster = FakeCluster::new("lab", 3, clock.now());
        for number in [101, 102] {
            let node = NodeId::new("pve1").unwrap();
            let guest = FakeGuest::new(GuestKind::Qemu, "guest", &node, 9, Bytes::gib(4), "shared1");
            cluster.add_guest(Vmid::new(number).unwrap(), guest);
        }
        let denied = "Permission check failed (/vms/101, VM.Migrate)";
        cluster.fail_posts("/nodes/", Fault::Forbidden(denied.into()));
        let fake = Arc::new(Mutex::new(cluster));
        let pve = FakePve::start(Arc::clone(&fake)).await.unwrap();
        for (name, token) in [("audit", pve.token()), ("exec", pve.exec_token())] {
            evenkeel_runtime::files::write_atomic(&dir.path().join(name), token.as_bytes(), 0o600).unwrap();
        }
        let config = StoreConfig { ballast_mib: 0, ..StoreConfig::default() };
        let store = SledStore::open(&dir.path().join("store"), &config, clock.now()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let policy = Policy { mode: Mode::Auto, ..Policy::default() };
        let exec_token = dir.path().join("exec");
        let execute =
            ExecuteConfig { token_file: exec_token.clone(), quiet_start_secs: 0, ..ExecuteConfig::default() };
        let id = ClusterId::new("lab").unwrap();
        let handle = Arc::new(ClusterHandle::open(id, policy, execute, &store, clock.now()).unwrap());
        let pve_config = PveConfig {
            endpoints: vec![pve.endpoint()],
            token_file: dir.path().join("audit"),
            fingerprints: vec![pve.fingerprint],
            ..PveConfig::default()
        };
        let client = Arc::new(PveClient::new(&pve_config).unwrap());
        let migrator = Migrator::new(Arc::clone(&client), &exec_token);
        let no_execute = dir.path().join("NO_EXECUTE");
        let execution = Arc::new(Execution::new(&handle, migrator, no_execute.clone(), &clock));
        let inventory = InventoryReader::new(client).fetch(clock.now()).await.unwrap();
        Self {
            fake,
            handle,
            store,
            execution,
            inventory,
            clock,
            no_execute,
            exec_token,
            _pve: pve,
            _dir: dir,
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { at: self.clock.now(), ..fixture::snapshot(PLAN) }
    }

    /// Approves a migration as a run of this second would; each with a number of its own.
    async fn approve(&self, number: u32) -> Intent {
        let run = decide(&self.snapshot(), &self.handle.policy, &Memory::default());
        let mut intent = Intent::of(&run.decisions[0], GuestKind::Qemu, 1.0);
        intent.id.number = number;
        intent.enter(self.clock.now(), State::Approved, "for a test");
        intent.approved = Some(("test".into(), self.clock.now()));
        self.handle.book.add(intent.clone()).await.unwrap();
        intent
    }

    async fn start_all(&self) {
        self.execution.start(self.snapshot(), &self.inventory, &BTreeMap::new()).await.unwrap();
    }

    fn posts(&self) -> usize {
        fake_pve::lock(&self.fake).posts.len()
    }

    /// Ends what was held.
    async fn give_up(&self) {
        for intent in self.handle.book.in_state(&[State::Approved, State::Prepared]) {
            let end = |intent: &mut Intent| {
                intent.end(self.clock.now(), State::Aborted, Reason::Expired { minutes: 0, approved: true });
                Ok::<_, LogError>(())
            };
            self.handle.book.change(&intent.id, end).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_started_after_a_pause_has_returned() {
    let races: u32 = std::env::var(RACES).map_or(1000, |races| races.parse().unwrap());
    let rig = Arc::new(Rig::start().await);
    let entropy = SeededEntropy::new(7);
    let (mut before, mut never) = (0, 0);
    for number in 1..=races {
        rig.approve(number).await;
        let posts = rig.posts();
        let starting = tokio::spawn({
            let rig = Arc::clone(&rig);
            async move { rig.start_all().await }
        });
        let delay = u64::from_le_bytes(random::bytes(&entropy).unwrap()) % 12_000;
        tokio::time::sleep(Duration::from_micros(delay)).await;
        let pausing = Arc::clone(&rig);
        let paused = tokio::task::spawn_blocking(move || {
            let pause = Pause { by: "test".into(), why: String::new(), at: pausing.clock.now() };
            pausing.handle.pause(pause, pausing.store.as_ref()).unwrap();
            pausing.posts()
        });
        let at_return = paused.await.unwrap();
        starting.await.unwrap();
        rig.start_all().await;
        assert_eq!(rig.posts(), at_return, "race {number}: started after the pause had returned");
        if at_return > posts {
            before += 1
        } else {
            never += 1
        }
        rig.handle.resume(rig.store.as_ref()).unwrap();
        rig.give_up().await;
    }
    println!("{races} races: {before} started before the pause, {never} not at all, none after it");
    assert!(before > 0 && never > 0, "both have to come before: {before}, {never}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_switch_alone_keeps_a_migration_from_being_started_and_says_so() {
    let rig = Rig::start().await;
    let intent = rig.approve(1).await;
    let detail = || rig.handle.book.get(&intent.id).unwrap().log.last().unwrap().detail.clone();
    std::fs::write(&rig.no_execute, "").unwrap();
    rig.start_all().await;
    assert!(detail().contains("NO_EXECUTE"), "{}", detail());
    std::fs::remove_file(&rig.no_execute).unwrap();
    let token = std::fs::read(&rig.exec_token).unwrap();
    std::fs::remove_file(&rig.exec_token).unwrap();
    rig.start_all().await;
    assert!(detail().contains("may not start migrations") && detail().contains("exec"), "{}", detail());
    std::fs::write(&rig.exec_token, rig._pve.token()).unwrap();
    rig.start_all().await;
    assert!(detail().contains("another than the one that reads"), "{}", detail());
    std::fs::write(&rig.exec_token, &token).unwrap();
    let more = evenkeel_tests::fake_pve::cluster::AUDIT.to_owned() + " VM.Migrate VM.PowerMgmt";
    let held = |privileges: &str| {
        let mut fake = fake_pve::lock(&rig.fake);
        let token = fake.tokens[1].clone().with("/", privileges);
        fake.tokens[1] = token;
    };
    held(&more);
    rig.start_all().await;
    assert!(detail().contains("VM.PowerMgmt on /"), "{}", detail());
    held("VM.Audit");
    rig.start_all().await;
    let refused = rig.handle.book.get(&intent.id).unwrap();
    let why = refused.why.unwrap().to_string();
    assert!(refused.state == State::Aborted && why.contains("VM.Migrate") && why.contains("pveum"), "{why}");
    assert_eq!(rig.posts(), 0);
}
