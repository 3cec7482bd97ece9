//! The one loop: tick, collect, watch, hand over. It never waits for the network; the connection works beside it.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::event::{AgentEvent, EventKind};
use evenkeel_runtime::clock::{self, Clock, Ticker};
use evenkeel_runtime::random::{self, Entropy, NoEntropy};
use evenkeel_runtime::shutdown;
use tokio_util::sync::CancellationToken;

use crate::check::{self, Finding, Sight};
use crate::collect::source::{Reading, Registry, Source};
use crate::config::AgentConfig;
use crate::drill::Drills;
use crate::memory::{self, Keeper, Memory};
use crate::probe::{self, Mesh, Probed};
use crate::spool::{Spool, SpoolError};
use crate::uplink::{self, Lanes, Settings, SharedLanes};
use crate::watch::Watcher;

/// A tick that starts at most this late counts as in time: it keeps the time it was due at, so that ticks lie
/// exactly a step apart.
const IN_TIME: Duration = Duration::from_millis(50);
/// Between two looks at the node's facts.
const FACTS_INTERVAL: Duration = Duration::from_secs(600);
/// Between reports of the guests' histories: what a node that is lost for good takes along at most. One that stops in
/// order has them in `watch.state`, and a guest that leaves it takes its own along.
const HISTORY_INTERVAL: Duration = Duration::from_secs(3600);
/// The connection has this long to end.
const UPLINK_END: Duration = Duration::from_secs(3);

/// Why the agent can not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The spool can not be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// No random numbers for the spool's epoch.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
}

/// What an agent is made of. The daemon brings the real parts, the lab and the tests simulated ones.
pub struct Agent {
    /// What is sampled.
    pub source: Box<dyn Source>,
    /// Options. Only those of the collectors themselves (`root`) are not used here.
    pub config: AgentConfig,
    /// Paces ticks, reconnects and clock probes.
    pub clock: Arc<dyn Clock>,
    /// For the epoch of a new spool, and jitter.
    pub entropy: Arc<dyn Entropy>,
}

/// Runs an agent until `shutdown`, then brings everything in memory to disk and ends in order. `on_tick` is
/// called with the uptime after each tick. Needs a tokio runtime; collecting and fsync block its thread for
/// milliseconds.
///
/// # Errors
/// [`AgentError`] when it can not start. Once running, nothing ends it but `shutdown`.
pub async fn run(
    agent: Agent,
    shutdown: CancellationToken,
    on_tick: impl FnMut(Duration) + Send,
) -> Result<(), AgentError> {
    let Agent { source, config, clock, entropy } = agent;
    // Not a child of `shutdown`: the last events are handed over first.
    let stop_uplink = CancellationToken::new();
    let _stopped_with_us = stop_uplink.clone().drop_guard();
    let mesh = Mesh::new(config.probe.max_peers.into());
    let probe_port = join_mesh(&config, &mesh, &clock, &stop_uplink).await;
    let mut source: Box<dyn Source> = Box::new(Probed::new(source, mesh.clone()));
    let folder = config.state_dir.join("spool");
    let mib = |n: u32| u64::from(n) << 20;
    let spool = Spool::open(
        &folder,
        mib(config.spool.cap_mib),
        mib(config.spool.events_mib),
        random::bytes(&*entropy)?,
    )?;
    let clean = spool.clean_start();
    let mut lanes = Lanes::new(spool, config.spool.memory_ticks as usize, source.facts());
    lanes
        .emit([event(&*clock, EventKind::AgentStarted { version: env!("CARGO_PKG_VERSION").into(), clean })]);
    lanes.set_probe(probe_port, config.probe.max_peers);
    let lanes = SharedLanes::new(lanes);

    let uplink = tokio::spawn(uplink::run(
        config.target(),
        lanes.clone(),
        clock.clone(),
        entropy.clone(),
        stop_uplink.clone(),
    ));
    let mut agent_loop = Loop::new(source, &config, clock.clone(), lanes.clone(), Orders { mesh, entropy });
    agent_loop.until(&shutdown, on_tick).await;

    let closed = agent_loop.watcher.close(clock.now(), clock.uptime());
    lanes.update(|lanes| lanes.emit(closed));
    agent_loop.keeper.finish(&agent_loop.watcher, clock.now()).await;
    stop_uplink.cancel();
    if let Err(error) =
        shutdown::within(&*clock, UPLINK_END, "the connection to the aggregator", uplink).await
    {
        tracing::warn!(%error, "what was not acknowledged is sent again after the next start");
    }
    lanes.close();
    Ok(())
}

/// Starts to answer probes. Returns the port; 0 when this agent takes no part, or can not: it does all else then.
async fn join_mesh(
    config: &AgentConfig,
    mesh: &Mesh,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> u16 {
    if !config.probe.enabled {
        return 0;
    }
    let listen = config.probe.listen;
    let bound = match probe::bind(listen).await {
        Ok(socket) => socket.local_addr().map(|address| (socket, address.port())),
        Err(error) => Err(error),
    };
    match bound {
        Ok((socket, port)) => {
            let (mesh, clock, stop) = (mesh.clone(), clock.clone(), stop.clone());
            let interval = Duration::from_millis(config.probe.interval_ms.into());
            tokio::spawn(async move { probe::run(socket, mesh, &*clock, interval, stop).await });
            port
        }
        Err(error) => {
            let fault = format!(
                "no probes between nodes: UDP {listen} can not be used ({error}); `ss -lunp` shows who has it, \
                 option probe.listen changes it"
            );
            tracing::warn!("{fault}");
            mesh.set_fault(Some(fault));
            0
        }
    }
}

/// What `evenkeel-agent check` tells: two readings a second apart, since rates need two, and the certificates.
pub async fn look(mut source: Box<dyn Source>, config: &AgentConfig, clock: &dyn Clock) -> Vec<Finding> {
    let mut registry = Registry::new(config.max_series as usize);
    let first = source.read(clock.now(), clock.uptime(), &mut registry);
    clock::sleep(clock, Duration::from_secs(1)).await;
    let second = source.read(clock.now(), clock.uptime(), &mut registry);
    let guests = second.guests.clone().or(first.guests).unwrap_or_default();
    let mut findings = check::findings(&source.facts(), &guests, &second, &registry);
    let (sight, message) = match config.target().check() {
        Ok(()) => (Sight::Good, "certificate, key and authority are readable and fit".to_owned()),
        Err(error) => (Sight::Missing, uplink::chain(&error)),
    };
    findings.push(Finding { sight, subject: "identity".into(), message });
    findings
}

fn event(clock: &dyn Clock, kind: EventKind) -> AgentEvent {
    let uptime_ms = u64::try_from(clock.uptime().as_millis()).unwrap_or(u64::MAX);
    AgentEvent { at: clock.now(), uptime_ms, kind }
}

/// What the last run has learned, as far as it fits.
fn recall(config: &AgentConfig, clock: &dyn Clock) -> Memory {
    let path = memory::path(&config.state_dir);
    let limit = config.max_series as usize;
    match Memory::load(&path, &config.watch, config.interval(), clock.now(), limit) {
        Ok(None) => Memory::default(),
        Ok(Some(memory)) => {
            let ((series, guests), unfit) = (memory.left(), memory.unfit());
            tracing::info!(series, guests, unfit, "going on with what the last run has learned");
            memory
        }
        Err(error) => {
            tracing::warn!(
                file = %path.display(),
                error = uplink::chain(&error),
                "what the last run has learned can not be used; it is learned anew and the file replaced, nothing \
                 needs to be done"
            );
            Memory::default()
        }
    }
}

/// Who is told what the aggregator orders, beside the loop itself.
struct Orders {
    mesh: Mesh,
    entropy: Arc<dyn Entropy>,
}

struct Loop {
    source: Box<dyn Source>,
    registry: Registry,
    watcher: Watcher,
    keeper: Keeper,
    drills: Drills,
    orders: Orders,
    /// As last followed.
    settings: Arc<Settings>,
    /// Physical memory of the node, in bytes.
    memory: f64,
    lanes: SharedLanes,
    clock: Arc<dyn Clock>,
    /// As configured.
    interval: Duration,
    profile_interval: Duration,
    next_profiles: Duration,
    next_histories: Duration,
    next_facts: Duration,
    refused: u64,
    /// Histories of guests that arrived and were no such.
    refused_histories: u64,
}

impl Loop {
    fn new(
        mut source: Box<dyn Source>,
        config: &AgentConfig,
        clock: Arc<dyn Clock>,
        lanes: SharedLanes,
        orders: Orders,
    ) -> Self {
        let profile_interval = Duration::from_secs(config.profile_interval_s.into());
        let now = clock.uptime();
        let mut watcher = Watcher::new(config.watch, config.interval()).with_node(config.node);
        watcher.remember(recall(config, &*clock));
        let memory = source.facts().memory.as_f64();
        Self {
            source,
            memory,
            drills: Drills::new(config.drills.clone()),
            orders,
            settings: Arc::default(),
            registry: Registry::new(config.max_series as usize),
            watcher,
            keeper: Keeper::new(memory::path(&config.state_dir), now),
            lanes,
            clock,
            interval: config.interval(),
            profile_interval,
            next_profiles: now.saturating_add(profile_interval),
            next_histories: now.saturating_add(HISTORY_INTERVAL),
            next_facts: now.saturating_add(FACTS_INTERVAL),
            refused: 0,
            refused_histories: 0,
        }
    }

    async fn until(&mut self, shutdown: &CancellationToken, mut on_tick: impl FnMut(Duration) + Send) {
        let mut interval = self.interval;
        let mut ticker = Ticker::new(self.clock.clone(), interval);
        loop {
            let due = tokio::select! {
                biased; // Nothing is read after the end was asked for.
                () = shutdown.cancelled() => return,
                due = ticker.tick() => due,
            };
            self.tick(due);
            self.keeper.tick(&self.watcher, self.clock.now(), self.clock.uptime()).await;
            on_tick(self.clock.uptime());
            let wanted = self.follow();
            if wanted != interval {
                tracing::info!(interval_s = wanted.as_secs_f64(), "the aggregator set another interval");
                interval = wanted;
                ticker = Ticker::new(self.clock.clone(), interval);
                let closed = self.watcher.set_interval(interval, self.clock.now(), self.clock.uptime());
                self.lanes.update(|lanes| lanes.emit(closed));
            }
        }
    }

    /// Does what the aggregator orders, when that changed, and returns the interval between ticks.
    fn follow(&mut self) -> Duration {
        let settings = self.lanes.peek(Lanes::settings);
        if !Arc::ptr_eq(&settings, &self.settings) {
            let uptime = self.clock.uptime();
            let Orders { mesh, entropy } = &self.orders;
            mesh.join(settings.probe.as_ref(), &**entropy, uptime);
            let told = self.drills.order(&settings.drills, uptime, &mut self.registry);
            self.tell(told);
            self.settings = settings;
        }
        let wanted = self.settings.interval_ms.map(|ms| Duration::from_millis(ms.into()));
        wanted.unwrap_or(self.interval)
    }

    /// Adds what arrived of the past of guests to their profiles.
    fn learn(&mut self) {
        if !self.lanes.peek(Lanes::has_arrived) {
            return;
        }
        let now = self.clock.now();
        for (vmid, (started_at, history)) in self.lanes.update(Lanes::take_arrived) {
            match self.watcher.learn(vmid, started_at, &history, now) {
                Ok(true) => tracing::info!(%vmid, "its profile goes on from what is known of its past"),
                Ok(false) => tracing::debug!(%vmid, "nothing new in what is known of its past"),
                Err(error) => {
                    self.refused_histories += 1;
                    let refused = self.refused_histories;
                    tracing::warn!(%vmid, refused, %error, "what arrived of its past is not used");
                }
            }
        }
    }

    fn tell(&self, kinds: Vec<EventKind>) {
        if !kinds.is_empty() {
            let events: Vec<_> = kinds.into_iter().map(|kind| event(&*self.clock, kind)).collect();
            self.lanes.update(|lanes| lanes.emit(events));
        }
    }

    fn tick(&mut self, due: Duration) {
        self.learn();
        let uptime = self.clock.uptime();
        let late = uptime.saturating_sub(due);
        let mut reading = self.source.read(self.clock.now(), uptime, &mut self.registry);
        if late <= IN_TIME {
            reading.tick.at = reading.tick.at.before(late);
            reading.tick.uptime = due;
        }
        let ended = self.drills.expire(uptime);
        self.tell(ended);
        let injected = self.drills.distort(&mut reading, &self.registry, self.memory);
        let Self { watcher, registry, lanes, drills, .. } = self;
        lanes.update(|lanes| {
            // Events first: a guest is announced before its samples.
            let events = watcher.observe(&reading, registry, &injected, &mut || lanes.take_anomaly_number());
            lanes.emit(events);
            drills.mark(&mut reading);
            if let Some(guests) = &reading.guests {
                lanes.set_guests(guests.clone());
            }
            lanes.push_tick(&reading.tick, |id| registry.key(id).cloned());
        });
        self.now_and_then(uptime);
        self.tell_refused(&reading);
    }

    fn now_and_then(&mut self, uptime: Duration) {
        if uptime >= self.next_profiles {
            let interval = self.settings.profile_interval_s.map(|s| Duration::from_secs(s.into()));
            self.next_profiles = uptime.saturating_add(interval.unwrap_or(self.profile_interval));
            let profiles = self.watcher.profiles();
            self.lanes.update(|lanes| lanes.report(profiles));
        }
        if uptime >= self.next_histories {
            self.next_histories = uptime.saturating_add(HISTORY_INTERVAL);
            let histories = self.watcher.histories();
            self.lanes.update(|lanes| lanes.report_histories(histories));
        }
        if uptime >= self.next_facts {
            self.next_facts = uptime.saturating_add(FACTS_INTERVAL);
            let facts = self.source.facts();
            self.lanes.update(|lanes| lanes.set_facts(facts));
        }
    }

    /// Logs when the limit on series is first hit.
    fn tell_refused(&mut self, reading: &Reading) {
        let refused = self.registry.refused();
        if refused > 0 && self.refused == 0 {
            let sampled = reading.tick.values.len();
            tracing::warn!(sampled, "max_series is reached; some devices or guests are not sampled");
        }
        self.refused = refused;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::guest::{GuestFacts, GuestKind};
    use evenkeel_common::id::Vmid;
    use evenkeel_common::node::NodeFacts;
    use evenkeel_common::sample::{Metric, SeriesKey, Tick};
    use evenkeel_common::time::Timestamp;
    use evenkeel_runtime::clock::VirtualClock;
    use evenkeel_runtime::random::SeededEntropy;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A node with a CPU and one guest. The CPU leaps at second 1800.
    struct Simulated;

    impl Source for Simulated {
        fn facts(&mut self) -> NodeFacts {
            NodeFacts { hostname: "simulated".into(), ..NodeFacts::default() }
        }

        fn read(&mut self, at: Timestamp, uptime: Duration, registry: &mut Registry) -> Reading {
            let vmid = Vmid::new(100).unwrap();
            let second = uptime.as_secs();
            let cpu = if second < 1800 { 10.0 } else { 90.0 } + (second * 7 % 5) as f64 * 0.2;
            let mut values = Vec::new();
            for (key, value) in [
                (SeriesKey::node(Metric::CpuUsed), cpu),
                (SeriesKey::guest(vmid, Metric::GuestCpu), 0.5),
                (SeriesKey::guest(vmid, Metric::GuestMem), 1e9),
            ] {
                values.extend(registry.intern(&key).map(|id| (id, value)));
            }
            let guest = GuestFacts {
                vmid,
                kind: GuestKind::Qemu,
                name: None,
                vcpus: None,
                memory_max: None,
                tags: Vec::new(),
                started_at: Timestamp::from_millis(0),
            };
            Reading { tick: Tick { at, uptime, values }, guests: Some(vec![guest]), faults: Vec::new() }
        }
    }

    async fn run_for(state_dir: &Path, clock: &VirtualClock, seconds: u64) {
        let mut config = AgentConfig { state_dir: state_dir.to_owned(), ..AgentConfig::default() };
        config.aggregator.address = "127.0.0.1:1".into();
        config.probe.enabled = false;
        let agent = Agent {
            source: Box::new(Simulated),
            config,
            clock: Arc::new(clock.clone()),
            entropy: Arc::new(SeededEntropy::new(1)),
        };
        let (stop, ticks) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), ticks.clone());
        let task = tokio::spawn(run(agent, stopped, move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        while ticks.load(Ordering::Relaxed) < seconds {
            // Often enough for the agent's tasks to come to rest before time moves on.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            clock.advance(Duration::from_secs(1));
        }
        stop.cancel();
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn without_an_aggregator_everything_is_on_disk_after_an_orderly_end() {
        let folder = tempfile::tempdir().unwrap();
        let clock = VirtualClock::new(Timestamp::from_millis(1_700_000_000_000));
        run_for(folder.path(), &clock, 2000).await;
        run_for(folder.path(), &clock, 10).await;

        let mut spool = Spool::open(&folder.path().join("spool"), 64 << 20, 8 << 20, [9; 16]).unwrap();
        assert!(spool.clean_start());
        let mut seq = 1;
        while let (Some(chunk), losses) = spool.chunk_from(seq) {
            assert!(losses.is_empty());
            assert_eq!((chunk.first_seq, chunk.step_ms % 1000), (seq, 0));
            assert_eq!(chunk.series.len(), 3);
            seq = chunk.last_seq + 1;
        }
        assert_eq!(seq, 2011, "every tick, once, without a hole");

        let events = spool.events_from(1, 1000).into_iter();
        let kinds: Vec<EventKind> = events.map(|event| AgentEvent::try_from(event).unwrap().kind).collect();
        let started = |kind: &EventKind| matches!(kind, EventKind::AgentStarted { clean: true, .. });
        assert!(started(&kinds[0]));
        assert!(matches!(&kinds[1], EventKind::GuestAppeared(facts) if facts.vmid.get() == 100));
        assert_eq!(kinds.iter().filter(|kind| started(kind)).count(), 2);
        let opened: Vec<_> = kinds
            .iter()
            .filter_map(|kind| match kind {
                EventKind::AnomalyOpened(anomaly) => Some((anomaly.number, &anomaly.series)),
                _ => None,
            })
            .collect();
        assert_eq!(opened, [(1, &SeriesKey::node(Metric::CpuUsed))]);
        let closed =
            |kind: &EventKind| matches!(kind, EventKind::AnomalyClosed(anomaly) if anomaly.number == 1);
        assert_eq!(kinds.iter().filter(|kind| closed(kind)).count(), 1, "an end closes what is open");
    }
}
