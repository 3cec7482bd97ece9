//! The rules of who inherits what, on a real store.

use super::*;
use crate::store::{SledStore, StoreConfig};
use evenkeel_common::id::Vmid;

const START: Timestamp = Timestamp::from_millis(1_760_000_000_000);

fn minutes(minutes: u64) -> Timestamp {
    START.after(Duration::from_mins(minutes))
}

/// Samples every minute.
fn learned(from: u64, until: u64) -> GuestProfiler {
    let mut profiler = GuestProfiler::default();
    (from..=until).for_each(|minute| profiler.observe(minutes(minute), 1.0, 1e9));
    profiler
}

fn seen(node: &str, identity: Option<&str>, history: &GuestProfiler) -> Seen {
    Seen {
        guest: GuestKey { cluster: ClusterId::new("lab").unwrap(), vmid: Vmid::new(101).unwrap() },
        node: NodeId::new(node).unwrap(),
        kind: Some(GuestKind::Qemu),
        identity: identity.map(str::to_owned),
        pieces: history.pieces().to_vec(),
    }
}

struct Rig {
    _dir: tempfile::TempDir,
    store: Arc<dyn Store>,
    histories: Histories,
}

impl Rig {
    fn new(identified: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig { ballast_mib: 0, ..StoreConfig::default() };
        let store: Arc<dyn Store> = Arc::new(SledStore::open(dir.path(), &config, START).unwrap());
        let histories = open(&store, identified, START);
        Self { _dir: dir, store, histories }
    }

    fn take(&self, seen: Seen, history: &GuestProfiler, last: bool) {
        self.take_bytes(seen, history.to_bytes().unwrap(), last);
    }

    fn take_bytes(&self, seen: Seen, bytes: Vec<u8>, last: bool) {
        let mut batch = Batch::new();
        self.histories.take(Told { seen, bytes, last }, &mut batch, minutes(20_000)).unwrap();
        self.store.apply(batch).unwrap();
    }

    /// Times at which the pieces of what is stored began, in minutes.
    fn stored(&self) -> Vec<u64> {
        let key = seen("a", None, &learned(0, 0)).guest;
        let Some(bytes) = trees::HISTORIES.get(self.store.as_ref(), &key).unwrap() else { return vec![] };
        let history = GuestProfiler::from_bytes(&bytes, minutes(20_000)).unwrap();
        history.pieces().iter().map(|piece| piece.began.since(START).as_secs() / 60).collect()
    }
}

fn open(store: &Arc<dyn Store>, identified: bool, now: Timestamp) -> Histories {
    let clusters = identified.then(|| ClusterId::new("lab").unwrap()).into_iter().collect();
    Histories::open(Arc::clone(store), clusters, now).unwrap()
}

#[test]
fn a_guest_inherits_from_itself_and_from_nobody_else() {
    // Stored: from node a, minutes 0 to 100. Identity then and now, where it appears and when, and what follows:
    // whether the agent is handed it, and whether it stands against a minute of the new life.
    let cases = [
        (true, Some("x"), Some("x"), "b", 101, true, true),
        (true, Some("x"), Some("x"), "a", 9_000, true, true),
        (true, Some("x"), Some("y"), "b", 101, false, false),
        (true, Some("x"), None, "b", 101, false, true),
        (true, None, Some("x"), "b", 101, false, true),
        (false, None, None, "b", 101, true, true),
        (false, None, None, "b", 95, true, true),
        (false, None, None, "b", 117, false, false),
        (false, None, None, "a", 101, false, false),
    ];
    for (identified, before, now, node, at, handed, stands) in cases {
        let case = format!("{identified} {before:?} {now:?} {node} {at}");
        let rig = Rig::new(identified);
        let past = learned(0, 100);
        rig.take(seen("a", before, &past), &past, true);
        let young = seen(node, now, &learned(at, at + 1));
        let life = minutes(at);
        assert_eq!(rig.histories.has_news(&young, life), handed, "{case}");
        assert_eq!(rig.histories.news(&young, life).unwrap().is_some(), handed, "{case}");
        assert_eq!(rig.histories.tells_more(&young), stands, "{case}");
        assert_eq!(rig.histories.stranger_until(&young).is_some(), !handed && !stands, "{case}");
        // What is of none it knows counts all the same once it is old enough.
        assert!(!rig.histories.tells_more(&seen(node, now, &learned(at, at + 400))), "{case}");
    }
}

#[test]
fn who_has_it_is_not_handed_it_again() {
    let rig = Rig::new(true);
    let past = learned(0, 100);
    rig.take(seen("a", Some("x"), &past), &past, true);
    let mut here = learned(101, 110);
    let news = rig.histories.news(&seen("b", Some("x"), &here), minutes(101)).unwrap().unwrap();
    assert!(here.merge(&GuestProfiler::from_bytes(&news, minutes(110)).unwrap()));
    let whole = seen("b", Some("x"), &here);
    assert!(!rig.histories.has_news(&whole, minutes(101)) && !rig.histories.tells_more(&whole));
    // The node's own agent, after a reconnection or a restart.
    assert!(!rig.histories.has_news(&seen("a", Some("x"), &past), START));
}

#[test]
fn of_one_guest_the_newest_stays_and_last_words_are_joined() {
    let rig = Rig::new(true);
    let first = learned(0, 100);
    rig.take(seen("a", Some("x"), &first), &first, false);
    let older = learned(0, 50);
    rig.take(seen("a", Some("x"), &older), &older, true);
    assert_eq!(rig.histories.lock().heads.values().next().unwrap().pieces, first.pieces(), "a late one");
    // A young one that has not been handed the past yet: not while it goes on, but when it ends.
    let second = learned(101, 103);
    rig.take(seen("b", Some("x"), &second), &second, false);
    assert_eq!(rig.stored(), [0]);
    rig.take(seen("b", Some("x"), &second), &second, true);
    rig.take(seen("b", Some("x"), &second), &second, true); // Said again after a cut.
    assert_eq!(rig.stored(), [0, 101]);
    // Its agent has lost what it was handed: it knows less than what it told, and that does not count.
    let poor = learned(101, 120);
    rig.take(seen("b", Some("x"), &poor), &poor, false);
    assert_eq!(rig.stored(), [0, 101]);
    assert!(rig.histories.tells_more(&seen("b", Some("x"), &poor)));
    let rich = learned(101, 300);
    assert!(!rig.histories.tells_more(&seen("b", Some("x"), &rich)));
    // Another guest's takes the place, but not one that ended before.
    let before = learned(60, 70);
    rig.take(seen("c", Some("y"), &before), &before, true);
    assert_eq!(rig.stored(), [0, 101]);
    let after = learned(200, 210);
    rig.take(seen("c", Some("y"), &after), &after, false);
    assert_eq!(rig.stored(), [200]);
    // Whoever it is: what is stored is not given up for it.
    let unknown = learned(300, 310);
    rig.take(seen("c", None, &unknown), &unknown, true);
    assert_eq!(rig.stored(), [200]);
}

#[test]
fn last_words_that_come_late_find_whose_they_are() {
    let rig = Rig::new(true);
    let past = learned(0, 100);
    rig.histories.note(&seen("a", Some("x"), &past));
    rig.take(seen("a", None, &past), &past, true);
    assert!(rig.histories.has_news(&seen("b", Some("x"), &learned(101, 102)), minutes(101)));
    assert!(!rig.histories.has_news(&seen("b", Some("y"), &learned(101, 102)), minutes(101)));
}

#[test]
fn what_is_no_history_is_counted_and_changes_nothing() {
    let rig = Rig::new(true);
    let past = learned(0, 100);
    rig.take(seen("a", Some("x"), &past), &past, true);
    let good = past.to_bytes().unwrap();
    let mut flipped = good.clone();
    flipped[40] ^= 1;
    for bytes in [vec![], b"EKH".to_vec(), flipped, vec![0; 9000], good[..100].to_vec()] {
        rig.take_bytes(seen("a", Some("x"), &past), bytes, true);
    }
    assert_eq!((rig.histories.refused(), rig.stored()), (5, vec![0]));
}

#[test]
fn what_the_rrd_told_waits_for_the_life_it_was_read_for() {
    let rig = Rig::new(true);
    let young = seen("a", Some("x"), &learned(100, 101));
    assert!(rig.histories.wants_rrd(&young, minutes(100)));
    let mean = |minute| evenkeel_detect::profile::RrdMean {
        at: minutes(minute),
        seconds: 60,
        cpu_cores: 1.0,
        memory_bytes: 1e9,
    };
    let rrd = GuestProfiler::of_rrd((0..90).map(mean)).unwrap();
    rig.histories.offer(young.guest.clone(), minutes(100), rrd.to_bytes().unwrap().into());
    assert!(!rig.histories.wants_rrd(&young, minutes(100)), "it has been read");
    assert!(rig.histories.has_news(&young, minutes(100)) && !rig.histories.has_news(&young, minutes(99)));
    assert_eq!(rig.histories.news(&young, minutes(100)).unwrap(), Some(rrd.to_bytes().unwrap()));
    let mut whole = learned(100, 101);
    whole.merge(&rrd);
    let whole = seen("a", Some("x"), &whole);
    assert!(!rig.histories.has_news(&whole, minutes(100)) && !rig.histories.wants_rrd(&whole, minutes(100)));
    rig.histories.keep_offers(&young.guest.cluster, |_, _| false);
    assert!(!rig.histories.has_news(&young, minutes(100)));
    // Where an agent's history is stored, that comes first.
    let past = learned(0, 90);
    rig.take(seen("b", Some("x"), &past), &past, true);
    assert!(!rig.histories.wants_rrd(&young, minutes(100)));
}

#[test]
fn it_outlives_a_restart_and_fades_after_two_weeks() {
    let rig = Rig::new(true);
    let past = learned(0, 100);
    rig.take(seen("a", Some("x"), &past), &past, true);
    let young = seen("b", Some("x"), &learned(101, 102));
    assert!(open(&rig.store, true, minutes(101)).has_news(&young, minutes(101)));
    let later = START.after(FADED + Duration::from_hours(2));
    assert!(!open(&rig.store, true, later).has_news(&young, minutes(101)));
    assert_eq!(rig.stored(), [0_u64; 0]);
}

/// What has faded fills a batch long before the last guest is read, whose history must be known all the same.
#[test]
fn many_that_have_faded_do_not_hide_one_that_has_not() {
    let rig = Rig::new(false);
    let (old, fresh) = (learned(0, 1), learned(30_000, 30_001));
    let head = |history: &GuestProfiler| HistoryRecord {
        node: NodeId::new("a").unwrap(),
        kind: Some(GuestKind::Qemu),
        identity: None,
        pieces: history.pieces().to_vec(),
        at: START,
    };
    let key = |vmid: u32| GuestKey { vmid: Vmid::new(vmid).unwrap(), ..seen("a", None, &old).guest };
    let last = key(5000);
    let mut batch = Batch::new();
    for vmid in 100..5000 {
        batch.put(&trees::HISTORY_HEADS, &key(vmid), &head(&old)).unwrap();
        if batch.is_full() {
            rig.store.apply(std::mem::take(&mut batch)).unwrap();
        }
    }
    batch.put(&trees::HISTORY_HEADS, &last, &head(&fresh)).unwrap();
    rig.store.apply(batch).unwrap();
    let histories = open(&rig.store, false, minutes(30_002));
    assert_eq!(histories.lock().heads.keys().collect::<Vec<_>>(), [&last]);
}
