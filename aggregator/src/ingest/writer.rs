//! The one writer of what agents send. Jobs of all streams meet here, become one batch and one fsync, and only then
//! are they acknowledged: acknowledged means durable. After a failed write nothing is acknowledged any more, and the
//! process is told to end, since only a restart finds out what the disk holds.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::event::AgentEvent;
use evenkeel_common::guest::GuestProfile;
use evenkeel_common::node::NodeFacts;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::block::SampleBlock;
use super::dictionary::SeriesTable;
use super::histories::Told;
use super::ledger::Ledger;
use super::live::Epoch;
use crate::store::StoreError;
use crate::store::records::NodeKey;

/// Jobs that may wait. Streams wait for a place, and so do their agents: back-pressure, not memory.
const QUEUE: usize = 1_024;
/// Time that streams have, once the aggregator stops, to hand over their last block.
const LAST_CALL: Duration = Duration::from_millis(500);
/// Jobs committed together at most.
const GROUP: usize = 256;

/// Numbers of both lanes: everything up to and including them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursors {
    /// Of the event lane; 0 = none.
    pub event: u64,
    /// Of the sample lane.
    pub sample: u64,
}

/// What a stream wants written.
#[derive(Debug)]
pub enum Work {
    /// Events `first_seq`, `first_seq + 1`, ...
    Events {
        /// Number of the first.
        first_seq: u64,
        /// The events.
        events: Vec<AgentEvent>,
    },
    /// A closed block of samples.
    Block {
        /// The block.
        block: SampleBlock,
        /// The node's series; numbers given since the last block are written with this one.
        table: Arc<SeriesTable>,
    },
    /// Profiles of guests; the latest wins.
    Profiles(Vec<GuestProfile>),
    /// Histories of guests.
    Histories(Vec<Told>),
    /// Facts from a hello.
    Facts(NodeFacts),
    /// The agent does not hold anything up to here any more: continue behind it.
    SkipTo(Cursors),
}

impl Work {
    /// Histories, if there are any.
    pub(super) fn histories(told: Vec<Told>) -> Option<Self> {
        (!told.is_empty()).then_some(Self::Histories(told))
    }
}

/// How a stream learns what became durable. `None` = its work could not be written; the stream must end.
pub type AckSender = watch::Sender<Option<Cursors>>;

/// One piece of work of one stream.
#[derive(Debug)]
pub struct Job {
    /// Whose.
    pub node: NodeKey,
    /// Epoch the numbers belong to.
    pub epoch: Epoch,
    /// What.
    pub work: Work,
    /// Where to acknowledge.
    pub ack: Arc<AckSender>,
}

#[derive(Debug)]
enum Message {
    Job(Job),
    /// Asks how far an epoch is durable, behind everything that was sent before.
    Cursors {
        node: NodeKey,
        epoch: Epoch,
        reply: oneshot::Sender<Cursors>,
    },
}

/// Hands work to the writer.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: mpsc::Sender<Message>,
}

/// The writer is gone: it failed, or the process is ending.
#[derive(Debug, thiserror::Error)]
#[error("the store does not take data any more; the aggregator is stopping")]
pub struct WriterGone;

impl Writer {
    /// Starts the writer. It ends soon after `stop`, when the streams have handed over what they had; when a write
    /// fails it cancels `failed` and ends.
    #[must_use]
    pub fn start(
        ledger: Ledger,
        commit: Duration,
        stop: CancellationToken,
        failed: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, jobs) = mpsc::channel(QUEUE);
        (Self { queue }, tokio::spawn(run(ledger, jobs, commit, stop, failed)))
    }

    /// Queues work, waiting for a place.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn submit(&self, job: Job) -> Result<(), WriterGone> {
        self.queue.send(Message::Job(job)).await.map_err(|_| WriterGone)
    }

    /// How far an epoch of a node is durable, everything submitted before included. A new epoch begins at zero.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn cursors(&self, node: NodeKey, epoch: Epoch) -> Result<Cursors, WriterGone> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Cursors { node, epoch, reply }).await.map_err(|_| WriterGone)?;
        answer.await.map_err(|_| WriterGone)
    }
}

async fn run(
    mut ledger: Ledger,
    mut jobs: mpsc::Receiver<Message>,
    commit: Duration,
    stop: CancellationToken,
    failed: CancellationToken,
) {
    let mut group = Vec::with_capacity(GROUP);
    // Not until all handles are gone: a half-open connection keeps its handle for as long as nobody notices.
    let mut last_call = pin!(async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_CALL).await;
    });
    let mut closing = false;
    loop {
        let first = if closing {
            jobs.try_recv().ok()
        } else {
            tokio::select! {
                first = jobs.recv() => first,
                () = &mut last_call => {
                    closing = true;
                    continue;
                }
            }
        };
        let Some(first) = first else { return };
        group.push(first);
        let deadline = Instant::now() + commit;
        while group.len() < GROUP {
            match timeout_at(deadline, jobs.recv()).await {
                Ok(Some(next)) => group.push(next),
                Ok(None) | Err(_) => break,
            }
        }
        let batch = std::mem::take(&mut group);
        let written = tokio::task::spawn_blocking(move || {
            let outcome = commit_group(&mut ledger, batch);
            (ledger, outcome)
        });
        match written.await {
            Ok((back, Ok(()))) => ledger = back,
            Ok((_, Err(error))) => {
                tracing::error!(%error, "the store failed: nothing is acknowledged any more, stopping");
                failed.cancel();
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the writer broke off: nothing is acknowledged any more, stopping");
                failed.cancel();
                return;
            }
        }
    }
}

/// Writes a group of jobs with one flush, then acknowledges them.
fn commit_group(ledger: &mut Ledger, group: Vec<Message>) -> Result<(), StoreError> {
    let mut acks: Vec<(Arc<AckSender>, Option<Cursors>)> = Vec::new();
    let mut replies = Vec::new();
    for message in group {
        match message {
            Message::Job(Job { node, epoch, work, ack }) => {
                let cursors = ledger.take(&node, epoch, work)?;
                acks.push((ack, cursors));
            }
            Message::Cursors { node, epoch, reply } => {
                let cursors = ledger.begin(&node, epoch)?;
                replies.push((reply, cursors));
            }
        }
    }
    ledger.commit()?;
    for (ack, cursors) in acks {
        ack.send_replace(cursors);
    }
    for (reply, cursors) in replies {
        // The stream may have ended meanwhile; then nobody asks any more.
        let _ = reply.send(cursors);
    }
    Ok(())
}
