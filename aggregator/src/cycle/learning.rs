//! What came of advice: the core says it, here it is kept over restarts and written to the moves it is about.

use std::ops::ControlFlow;

use evenkeel_common::id::ClusterId;
use evenkeel_core::learn::{Verdict, Watched};
use evenkeel_core::{Learner, RunRecord, Snapshot};

use super::moves::Moves;
use crate::store::records::MoveKey;
use crate::store::{Batch, Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// The learner of one cluster.
#[derive(Debug)]
pub struct Learning {
    cluster: ClusterId,
    learner: Learner,
}

impl Learning {
    /// Goes on where the last process left off: with the guests it watched, and with what its last run advised.
    ///
    /// # Errors
    /// Of the store. A damaged row is left out: of that move nothing will be said.
    pub fn load(
        store: &dyn Store,
        cluster: &ClusterId,
        last: Option<&RunRecord>,
    ) -> Result<Self, StoreError> {
        let mut watched: Vec<Watched> = Vec::new();
        let range = KeyRange::under(cluster);
        trees::WATCHED.scan(store, &range, Direction::Forward, OnDamage::Skip, |_, value| {
            watched.extend(serde_json::from_value::<Watched>(value).ok());
            ControlFlow::Continue(())
        })?;
        let mut learning = Self { cluster: cluster.clone(), learner: Learner::resume(watched) };
        last.into_iter().for_each(|record| learning.note(record));
        Ok(learning)
    }

    /// Remembers what a run advises.
    pub fn note(&mut self, record: &RunRecord) {
        self.learner.note(&record.run.decisions);
    }

    /// Looks at a new snapshot. What is now known of moves goes into `moves`, and is handed out; so is what has to be
    /// kept, in as many batches as it takes: many guests may be watched at once, and a batch has its bound.
    ///
    /// # Errors
    /// Only when a record can not be encoded.
    pub fn follow(
        &mut self,
        snapshot: &Snapshot,
        moves: &mut Moves,
    ) -> Result<(Vec<Batch>, Vec<Verdict>), StoreError> {
        let (mut full, mut batch) = (Vec::new(), Batch::new());
        let verdicts = self.learner.follow(snapshot);
        for verdict in &verdicts {
            // A verdict and the end of watching are one batch, or the move could be judged anew after a crash.
            batch.delete(&trees::WATCHED, &self.key(&verdict.of));
            tell(&self.cluster, verdict);
            moves.judge(verdict, &self.cluster, &mut batch)?;
            if batch.is_full() {
                full.push(std::mem::take(&mut batch));
            }
        }
        for watched in self.learner.watched() {
            let value = serde_json::to_value(watched)
                .map_err(|source| StoreError::Encode { tree: trees::WATCHED.id().name, source })?;
            batch.put(&trees::WATCHED, &self.key(watched), &value)?;
            if batch.is_full() {
                full.push(std::mem::take(&mut batch));
            }
        }
        full.extend((!batch.is_empty()).then_some(batch));
        Ok((full, verdicts))
    }

    fn key(&self, watched: &Watched) -> MoveKey {
        MoveKey { cluster: self.cluster.clone(), at: watched.at, vmid: watched.guest }
    }
}

fn tell(cluster: &ClusterId, Verdict { of, helped }: &Verdict) {
    tracing::info!(
        %cluster,
        guest = %of.guest,
        source = %of.source,
        target = %of.target,
        hours = of.outcome.hours,
        spared_core_hours = of.outcome.spared(),
        helped,
        "what came of a move"
    );
}
