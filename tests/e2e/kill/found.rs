//! What is in the store after a kill, compared with what was acknowledged.

use super::*;

/// What a look into the store found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) wrong: Vec<String>,
}

impl Found {
    /// Compares what is stored with what was acknowledged.
    pub(super) fn look(store: &SledStore, agents: &[Arc<Agent>]) -> Self {
        let mut found = Self::default();
        let events = found.events(store, agents);
        for agent in agents {
            let cursor = trees::CURSORS.get(store, &agent.key).unwrap().unwrap_or_default();
            let stored = events.get(&agent.key.node).cloned().unwrap_or_default();
            let acked = agent.state().acked;
            found.lost += (1..=acked.event).filter(|seq| !stored.contains_key(seq)).count() as u64;
            found.duplicated += stored.values().map(|times| times - 1).sum::<u64>();
            found.lost += acked.sample.saturating_sub(found.blocks(store, agent));
            let whole = cursor.event == stored.len() as u64 && cursor.event >= acked.event;
            if !whole || cursor.sample < acked.sample || stored.keys().any(|&seq| seq > cursor.event) {
                let (key, events) = (&agent.key.node, stored.len());
                found.wrong.push(format!("{key}: {cursor:?}, acknowledged {acked:?}, {events} events"));
            }
        }
        let gaps = trees::GAPS.scan(store, &KeyRange::all(), Direction::Forward, OnDamage::Fail, |_, gap| {
            found.wrong.push(format!("{gap:?}"));
            ControlFlow::Continue(())
        });
        gaps.unwrap();
        let scrubbed = store.scrub(usize::MAX).unwrap();
        assert!(scrubbed.finished);
        found.wrong.extend(scrubbed.damaged.iter().map(ToString::to_string));
        found
    }

    /// How often each event is there.
    fn events(&mut self, store: &SledStore, agents: &[Arc<Agent>]) -> BTreeMap<NodeId, BTreeMap<u64, u64>> {
        let mut stored: BTreeMap<NodeId, BTreeMap<u64, u64>> = BTreeMap::new();
        let mut visit = |key: EventKey, record: EventRecord| {
            let agent = agents.iter().find(|agent| agent.key.node == key.node).unwrap();
            let node = key.node.clone();
            let expected =
                EventRecord { node, epoch: agent.epoch(), seq: key.seq, event: event(agent.number, key.seq) };
            if record != expected || key.at != expected.event.at || key.cluster != agent.key.cluster {
                self.wrong.push(format!("{key:?}: {record:?}"));
            }
            *stored.entry(key.node).or_default().entry(key.seq).or_default() += 1;
            ControlFlow::Continue(())
        };
        trees::EVENTS.scan(store, &KeyRange::all(), Direction::Forward, OnDamage::Fail, &mut visit).unwrap();
        stored
    }

    /// Up to which tick the blocks of a node tell everything.
    fn blocks(&mut self, store: &SledStore, agent: &Agent) -> u64 {
        let (range, keys) = (KeyRange::under(&agent.key), keys());
        let mut names = BTreeMap::new();
        let series = trees::SERIES.scan(store, &range, Direction::Forward, OnDamage::Fail, |number, key| {
            names.insert(number.series, keys.iter().position(|known| *known == key).unwrap());
            ControlFlow::Continue(())
        });
        series.unwrap();
        let mut next = 1_u64;
        let blocks = trees::BLOCKS.scan(store, &range, Direction::Forward, OnDamage::Fail, |key, bytes| {
            let block = SampleBlock::from_bytes(&bytes).unwrap();
            self.duplicated += next.saturating_sub(block.first_seq);
            if block.first_seq > next || block.epoch != agent.epoch() || key.start != tick_at(block.first_seq)
            {
                self.wrong.push(format!("{key:?}: ticks from {}, expected {next}", block.first_seq));
                return ControlFlow::Break(());
            }
            if !tells(&block, agent.number, &names) {
                self.wrong.push(format!("{key:?}: not what was sent"));
            }
            next = block.last_seq + 1;
            ControlFlow::Continue(())
        });
        blocks.unwrap();
        next - 1
    }
}

/// Whether a block has every tick of its numbers, with its time and all values, and no others.
fn tells(block: &SampleBlock, node: u64, names: &BTreeMap<u32, usize>) -> bool {
    let (series, times, matrix) = block.matrix().unwrap();
    let seqs: Vec<u64> = (block.first_seq..=block.last_seq).collect();
    let rows: BTreeMap<usize, usize> = (0..series.len()).map(|row| (names[&series[row]], row)).collect();
    let right = |series: usize, tick: usize, seq: u64| {
        rows.get(&series).and_then(|&row| matrix.get(row, tick)) == value(node, seq, series)
    };
    let told = |(tick, &seq): (usize, &u64)| (0..keys().len()).all(|series| right(series, tick, seq));
    times == seqs.iter().map(|&seq| tick_at(seq)).collect::<Vec<_>>()
        && rows.len() == series.len()
        && seqs.iter().enumerate().all(told)
}
