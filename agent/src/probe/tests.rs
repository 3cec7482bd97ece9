//! Real sockets on loopback: agents that know each other, and those who want something from them.

use super::*;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use evenkeel_runtime::clock::{Clock, SystemClock};
use evenkeel_runtime::random::SeededEntropy;
use evenkeel_runtime::seal::SealKey;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::packet::{Kind, LENGTH, Packet};

const KEY: [u8; 32] = [7; 32];
const STUCK: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(100);

struct Node {
    name: &'static str,
    mesh: Mesh,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn node(name: &'static str, clock: &Arc<SystemClock>) -> Node {
    let socket = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, mesh, stop) = (socket.local_addr().unwrap(), Mesh::new(4), CancellationToken::new());
    let (task_mesh, task_clock, task_stop) = (mesh.clone(), clock.clone(), stop.clone());
    tokio::spawn(async move { run(socket, task_mesh, &*task_clock, INTERVAL, task_stop).await });
    Node { name, mesh, address, stop }
}

fn peer(node: &Node, ask: bool) -> Peer {
    Peer { node: node.name.into(), address: node.address, ask }
}

fn join(node: &Node, peers: Vec<Peer>, clock: &SystemClock) {
    let membership = Membership { key: KEY, peers };
    node.mesh.join(Some(&membership), &SeededEntropy::new(node.address.port().into()), clock.uptime());
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(STUCK, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn loss(node: &Node, clock: &SystemClock, of: &str) -> Option<f64> {
    let figures = node.mesh.figures(clock.uptime());
    figures.into_iter().find(|(name, _)| name == of)?.1.map(|figures| figures.loss_percent)
}

#[tokio::test]
async fn agents_measure_each_other_and_a_dead_one_is_lost() {
    let clock = Arc::new(SystemClock::new());
    let (a, b) = (node("a", &clock).await, node("b", &clock).await);
    // b does not answer faster than its rate, so some of a's ten questions a second are lost; but not all.
    join(&a, vec![peer(&b, true)], &clock);
    join(&b, vec![peer(&a, false)], &clock);
    until("a hears b", || {
        let figures = a.mesh.figures(clock.uptime());
        figures.first().and_then(|(_, figures)| figures.as_ref()?.latency_ms).is_some_and(|ms| ms > 0.0)
    })
    .await;
    assert_eq!(b.mesh.figures(clock.uptime()), [], "b was not told to ask");
    b.stop.cancel();
    until("b is lost", || loss(&a, &clock, "b") == Some(100.0)).await;
    join(&a, vec![], &clock);
    assert_eq!(a.mesh.figures(clock.uptime()), [], "taken out of the list");
}

#[tokio::test]
async fn nobody_else_gets_an_answer_and_a_peer_no_more_than_its_rate() {
    let clock = Arc::new(SystemClock::new());
    let target = node("target", &clock).await;
    let known = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (key, other) = (SealKey::new(&KEY), SealKey::new(&[8; 32]));
    let question = |number, key: &SealKey| Packet { kind: Kind::Question, nonce: 1, number }.encode(key);
    let peer = Peer { node: "known".into(), address: known.local_addr().unwrap(), ask: false };
    join(&target, vec![peer], &clock);
    let counts = target.mesh.counts.clone();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    for n in 0..50 {
        stranger.send_to(&question(n, &key), target.address).await.unwrap();
        known.send_to(&question(n, &other), target.address).await.unwrap();
        known.send_to(&question(n, &key)[..LENGTH - 1], target.address).await.unwrap();
        known.send_to(&[question(n, &key).as_slice(), &[0]].concat(), target.address).await.unwrap();
    }
    until("all were looked at", || count(&counts.strangers) == 50 && count(&counts.forged) == 150).await;
    for n in 0..100 {
        known.send_to(&question(n, &key), target.address).await.unwrap();
    }
    until("all were looked at", || count(&counts.answered) + count(&counts.limited) == 100).await;
    assert!((10..40).contains(&count(&counts.answered)), "{}", count(&counts.answered));
    let mut buffer = [0; 2048];
    let mut heard = 0;
    while let Ok((length, _)) = known.try_recv_from(&mut buffer) {
        assert_eq!(length, LENGTH, "never more than the question had");
        heard += 1;
    }
    assert!(heard > 0 && heard <= count(&counts.answered), "{heard}");
    assert!(stranger.try_recv_from(&mut buffer).is_err());
}

#[test]
fn a_node_is_as_the_ways_to_most_of_its_peers() {
    assert_eq!(own_figure(vec![0.2, 100.0, 0.1, 0.3]), Some(0.2), "one peer that is gone changes nothing");
    assert_eq!(own_figure(vec![40.0, 0.2]), Some(0.2));
    assert_eq!(own_figure(vec![40.0, 41.0, 39.0]), Some(40.0), "all of them: it is this node");
    assert_eq!(own_figure(vec![40.0]), None, "one alone does not tell whose fault it is");
}

#[tokio::test]
async fn a_taken_port_is_told_and_a_peer_that_goes_takes_its_series_along() {
    struct Nothing;
    impl Source for Nothing {
        fn facts(&mut self) -> NodeFacts {
            NodeFacts::default()
        }
        fn read(&mut self, at: Timestamp, uptime: Duration, _: &mut Registry) -> Reading {
            let tick = evenkeel_common::sample::Tick { at, uptime, values: Vec::new() };
            Reading { tick, guests: None, faults: Vec::new() }
        }
    }
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    assert!(bind(taken.local_addr().unwrap()).await.is_err());

    let clock = Arc::new(SystemClock::new());
    let (a, b) = (node("a", &clock).await, node("b", &clock).await);
    join(&a, vec![peer(&b, true)], &clock);
    join(&b, vec![peer(&a, false)], &clock);
    let mut source = Probed::new(Box::new(Nothing), a.mesh.clone());
    let mut registry = Registry::new(100);
    let mut read = |registry: &mut Registry| source.read(clock.now(), clock.uptime(), registry);
    until("three series", || read(&mut registry).tick.values.len() == 3).await;
    let reading = read(&mut registry);
    let names: Vec<String> =
        reading.tick.values.iter().map(|(id, _)| registry.key(*id).unwrap().to_string()).collect();
    assert_eq!(names, ["probe_latency[b]", "probe_jitter[b]", "probe_loss[b]"]);
    join(&a, vec![], &clock);
    assert_eq!(read(&mut registry).tick.values, []);
    assert_eq!(registry.live(), 0);
    a.mesh.set_fault(Some("port taken".into()));
    assert_eq!(read(&mut registry).faults, [Fault { collector: "probe", message: "port taken".into() }]);
    assert_eq!(source.facts().blind_spots, ["port taken"]);
}
