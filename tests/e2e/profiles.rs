//! The profile of a guest goes with its guest, over nodes, restarts and reconnections, begins with what Proxmox has
//! recorded, and is never another guest's.

use std::time::Duration;

use evenkeel_aggregator::identity::roles::Role;
use evenkeel_aggregator::store::records::GuestKey;
use evenkeel_aggregator::store::trees;
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::profile::GuestProfiler;
use evenkeel_proto::v1;
use evenkeel_proto::v1::from_agent::Message;
use evenkeel_runtime::clock::Clock as _;
use evenkeel_tests::fake_pve;
use evenkeel_tests::harness::{Site, real_time};
use evenkeel_tests::lab::{VIRTUAL_START, VirtualLab};

use crate::support::{Wire, certificate, config, control_as, event, hello, options, pass, site};

const DAY: Duration = Duration::from_hours(24);

fn vmid(number: u32) -> Vmid {
    Vmid::new(number).unwrap()
}

/// A day's rhythm, as a share of the guest's CPUs.
fn rhythm(second: i64) -> f64 {
    0.5 + 0.3 * (second as f64 / 86_400.0 * std::f64::consts::TAU).sin()
}

async fn shown(site: &Site, guest: Vmid) -> v1::Profile {
    let request = v1::ListProfilesRequest { cluster: "lab".into(), vmid: guest.get() };
    let answer = control_as(site, Role::Viewer).await.list_profiles(request).await.unwrap().into_inner();
    answer.profiles.into_iter().next().expect("a profile")
}

/// The first guest of the first node, which is the first that Proxmox is asked about.
fn first_guest(lab: &VirtualLab) -> (Vmid, NodeId) {
    let fleet = lab.cluster.fleet.lock().unwrap();
    let node = fleet.nodes.keys().next().unwrap().clone();
    (fleet.guests.values().find(|guest| guest.node == node).unwrap().vmid, node)
}

/// Gives a guest a new life on a node.
fn begin_life(lab: &VirtualLab, guest: Vmid, node: &str) {
    let mut fleet = lab.cluster.fleet.lock().unwrap();
    let guest = fleet.guests.get_mut(&guest).unwrap();
    (guest.node, guest.started_at) = (NodeId::new(node).unwrap(), lab.clock.now());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_day_one_a_guest_has_the_profile_of_its_weeks_before_and_keeps_it_wherever_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let lab = VirtualLab::start(&options(dir.path()), |_| {}).await.unwrap();
    let (guest, home) = first_guest(&lab);
    {
        let mut fake = fake_pve::lock(&lab.cluster.fake);
        let shown = fake.guests.get_mut(&guest).unwrap();
        shown.recorded = Some((VIRTUAL_START.before(10 * DAY), rhythm));
        shown.options.insert("meta".into(), "creation-qemu=10.1.2,ctime=1700000000".into());
    }
    // A minute until its agent tells of it, another until it is handed what Proxmox knows, and one until it tells.
    pass(&lab, 185).await;
    let profile = shown(&lab.site, guest).await;
    assert_eq!((profile.class.as_str(), profile.node.as_str()), ("cyclical", home.as_str()));
    let days = |seconds: u64| seconds as f64 / DAY.as_secs_f64();
    assert!((days(profile.rrd_s) - 10.0).abs() < 0.1, "{profile:?}");
    assert!((100..200).contains(&profile.here_s) && profile.earlier_s == 0, "{profile:?}");

    begin_life(&lab, guest, "pve2");
    for minute in 0..3 {
        pass(&lab, 60).await;
        let moved = shown(&lab.site, guest).await;
        assert_eq!(moved.class, "cyclical", "minute {minute}: it is never taken for a stranger");
        assert!(moved.observed_s >= profile.observed_s, "minute {minute}: {moved:?}");
    }
    let moved = shown(&lab.site, guest).await;
    assert_eq!((moved.node.as_str(), moved.rrd_s), ("pve2", profile.rrd_s));
    assert!(moved.earlier_s >= profile.here_s && moved.here_s > 0, "{moved:?}");

    // Aggregator and agents begin anew on what they left.
    let lab = lab.restart().await.unwrap();
    pass(&lab, 130).await;
    let again = shown(&lab.site, guest).await;
    assert_eq!((again.rrd_s, again.earlier_s), (moved.rrd_s, moved.earlier_s), "{again:?}");
    assert!(again.here_s > moved.here_s && again.here_s < moved.here_s + 200, "{again:?}");

    // The vmid is given to another guest, on the same node, of the same name and size.
    let other = "uuid=11111111-2222-4000-8000-000000000000";
    fake_pve::lock(&lab.cluster.fake)
        .guests
        .get_mut(&guest)
        .unwrap()
        .options
        .insert("smbios1".into(), other.into());
    begin_life(&lab, guest, "pve2");
    pass(&lab, 420).await;
    let stranger = shown(&lab.site, guest).await;
    assert_eq!(
        (stranger.class.as_str(), stranger.rrd_s, stranger.earlier_s),
        ("unknown", 0, 0),
        "{stranger:?}"
    );
    lab.site.shut_down().await;
}

/// A guest's history of two days, and its profile, ending some time ago.
fn past(ended: Duration) -> (Vec<u8>, GuestProfiler) {
    let (mut profiler, end) = (GuestProfiler::default(), real_time().before(ended));
    for minute in (0..2 * 24 * 60 + 30).rev() {
        let at = end.before(Duration::from_mins(minute));
        profiler.observe(at, 4.0 * rhythm(at.as_secs()), 2e9);
    }
    (profiler.to_bytes().unwrap(), profiler)
}

fn runs(started_at: Timestamp) -> v1::GuestFacts {
    let started_at_ms = started_at.as_millis();
    v1::GuestFacts { vmid: 101, kind: 1, started_at_ms, ..v1::GuestFacts::default() }
}

fn vanished(profiler: &GuestProfiler, history: Vec<u8>) -> Message {
    let profile = Some(profiler.profile(vmid(101)).into());
    let kind = Some(v1::event::Kind::GuestVanished(v1::GuestVanished { vmid: 101, profile, history }));
    let gone = v1::Event { at_ms: real_time().as_millis(), uptime_ms: 1, kind };
    Message::Events(v1::EventBatch { first_seq: 1, events: vec![gone] })
}

fn report(profiler: &GuestProfiler) -> Message {
    let profiles = vec![profiler.profile(vmid(101)).into()];
    Message::Profiles(v1::ProfileReport { profiles, histories: vec![] })
}

/// What the aggregator has to say to a report before it echoes a clock, which it is asked for after it.
async fn handed(wire: &mut Wire, profiler: &GuestProfiler) -> Vec<v1::GuestHistory> {
    wire.say(report(profiler)).await;
    wire.say(Message::Clock(v1::ClockProbe::default())).await;
    let mut histories = Vec::new();
    loop {
        match wire.hear().await.unwrap().expect("the stream goes on") {
            v1::to_agent::Message::History(history) => histories.push(history),
            v1::to_agent::Message::Clock(_) => return histories,
            _ => {}
        }
    }
}

/// A profiler of a life that began some seconds ago.
fn young(seconds: u64) -> GuestProfiler {
    let mut profiler = GuestProfiler::default();
    (0..seconds).rev().for_each(|s| profiler.observe(real_time().before(Duration::from_secs(s)), 1.0, 1e9));
    profiler
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_comes_once_to_whoever_lacks_it_though_the_stream_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), config()).await;
    let (bytes, history) = past(Duration::from_secs(40));
    let before = v1::Hello { guests: vec![runs(real_time().before(3 * DAY))], ..hello(1, 2, 1) };
    let (mut left, _) = Wire::greet(&site, &certificate(dir.path(), "pve1"), before).await.unwrap();

    // While it still runs there the other node, to which it is on its way, is told nothing.
    let here = certificate(dir.path(), "pve2");
    let life = real_time().before(Duration::from_secs(60));
    let greeting = || v1::Hello { guests: vec![runs(life)], ..hello(2, 1, 1) };
    let (mut wire, _) = Wire::greet(&site, &here, greeting()).await.unwrap();
    let mut profiler = young(50);
    assert_eq!(handed(&mut wire, &profiler).await, []);
    left.say(vanished(&history, bytes.clone())).await;
    left.acknowledged(1, 0).await;

    // Then it is, once a stream, however often it asks.
    let told = v1::GuestHistory { vmid: 101, history: bytes.clone(), started_at_ms: life.as_millis() };
    assert_eq!(handed(&mut wire, &profiler).await, vec![told.clone()]);
    assert_eq!(handed(&mut wire, &profiler).await, []);
    // What was said before an acknowledged event is written, or it never will be.
    wire.say(event(1)).await;
    wire.acknowledged(1, 0).await;
    let stored = || {
        let key = GuestKey { cluster: ClusterId::new("lab").unwrap(), vmid: vmid(101) };
        trees::PROFILES.get(site.aggregator.store.as_ref(), &key).unwrap().unwrap()
    };
    assert_eq!(stored().profile, history.profile(vmid(101)), "a young one does not take its place");

    // A cut before the agent took it: again. After it has: never more, and its own profile is the whole.
    let (mut wire, _) = Wire::greet(&site, &here, greeting()).await.unwrap();
    assert_eq!(handed(&mut wire, &profiler).await, [told]);
    assert!(profiler.merge(&GuestProfiler::from_bytes(&bytes, real_time()).unwrap()));
    let (mut wire, _) = Wire::greet(&site, &here, greeting()).await.unwrap();
    assert_eq!(handed(&mut wire, &profiler).await, []);
    assert_eq!(handed(&mut wire, &profiler).await, []);
    let shown = shown(&site, vmid(101)).await;
    assert_eq!((shown.class.as_str(), shown.node.as_str(), shown.rrd_s), ("cyclical", "pve2", 0));
    assert!(shown.earlier_s >= 2 * DAY.as_secs() && (40..60).contains(&shown.here_s), "{shown:?}");

    // Without Proxmox nobody can tell a guest that starts anew where it was from another that got its number.
    drop((left, wire));
    let anew = v1::Hello { guests: vec![runs(real_time())], ..hello(3, 1, 1) };
    let (mut wire, _) = Wire::greet(&site, &certificate(dir.path(), "pve1"), anew).await.unwrap();
    assert_eq!(handed(&mut wire, &young(30)).await, []);
    site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_history_is_refused_and_costs_nobody_anything() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), config()).await;
    let (bytes, history) = past(Duration::from_secs(30));
    let life = real_time().before(3 * DAY);
    let greeting = v1::Hello { guests: vec![runs(life)], ..hello(1, 2, 1) };
    let (mut wire, _) = Wire::greet(&site, &certificate(dir.path(), "pve1"), greeting).await.unwrap();
    let mut flipped = bytes.clone();
    flipped[100] ^= 1;
    let wrong =
        [vec![], b"rubbish".to_vec(), flipped.clone(), vec![0; 1 << 20], bytes[..bytes.len() / 2].to_vec()];
    let tell = |history| v1::GuestHistory { vmid: 101, history, started_at_ms: life.as_millis() };
    let unknown = v1::GuestHistory { vmid: 7, history: bytes.clone(), started_at_ms: 0 };
    let histories = wrong.map(tell).into_iter().chain([unknown]).collect();
    wire.say(Message::Profiles(v1::ProfileReport { profiles: vec![], histories })).await;
    wire.say(vanished(&history, flipped)).await;
    wire.acknowledged(1, 0).await;
    let key = GuestKey { cluster: ClusterId::new("lab").unwrap(), vmid: vmid(101) };
    let store = site.aggregator.store.as_ref();
    assert_eq!(trees::HISTORIES.get(store, &key).unwrap(), None);
    assert_eq!(trees::HISTORY_HEADS.get(store, &key).unwrap(), None);
    // The figures came all the same, and a good one is taken afterwards.
    assert_eq!(shown(&site, vmid(101)).await.class, "cyclical");
    let greeting = v1::Hello { guests: vec![runs(life)], ..hello(2, 1, 1) };
    let (wire, _) = Wire::greet(&site, &certificate(dir.path(), "pve1"), greeting).await.unwrap();
    let histories = vec![tell(bytes.clone())];
    wire.say(Message::Profiles(v1::ProfileReport { profiles: vec![], histories })).await;
    crate::support::until("the history is stored", || {
        trees::HISTORIES.get(store, &key).unwrap().as_ref() == Some(&bytes)
    })
    .await;
    site.shut_down().await;
}
