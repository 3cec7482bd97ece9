//! The intents of one cluster. Every change is durable before anyone sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_common::id::DecisionId;
use evenkeel_common::time::Timestamp;

use super::intent::{Intent, State};

/// Intents that are over and still held in memory, newest first: breakers look at the last ten of each node.
const MOST_OVER: usize = 500;

/// Where intents are kept.
pub trait IntentLog: Send + Sync + 'static {
    /// Keeps an intent as it is now; durable on return. Blocks.
    ///
    /// # Errors
    /// When that can not be said. Nothing may be started then.
    fn keep(&self, intent: &Intent) -> Result<(), LogError>;
}

/// An intent could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("an intent could not be stored: {0}")]
pub struct LogError(pub String);

/// The intents of one cluster, shared by the cycle, which acts on them, and the server, which shows them and takes
/// operators' words.
pub struct Book {
    /// Records that could not be read, and when that was found.
    unreadable: Option<(u32, Timestamp)>,
    intents: Mutex<BTreeMap<DecisionId, Intent>>,
    rearmed_at: Mutex<Option<Timestamp>>,
    /// One change at a time, from what it was to what is kept.
    editing: tokio::sync::Mutex<()>,
    log: Arc<dyn IntentLog>,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").field("intents", &self.lock().len()).finish_non_exhaustive()
    }
}

impl Book {
    /// What an earlier process left, and when an operator last armed it anew.
    #[must_use]
    pub fn new(log: Arc<dyn IntentLog>, kept: Vec<Intent>, rearmed_at: Option<Timestamp>) -> Self {
        Self::with_damage(log, kept, rearmed_at, None)
    }

    /// The same, where some records could not be read, and when that was found: what these started is not known.
    #[must_use]
    pub fn with_damage(
        log: Arc<dyn IntentLog>,
        kept: Vec<Intent>,
        rearmed_at: Option<Timestamp>,
        unreadable: Option<(u32, Timestamp)>,
    ) -> Self {
        let intents = kept.into_iter().map(|intent| (intent.id.clone(), intent)).collect();
        let book = Self {
            unreadable,
            intents: Mutex::new(intents),
            rearmed_at: Mutex::new(rearmed_at),
            editing: tokio::sync::Mutex::default(),
            log,
        };
        book.forget();
        book
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DecisionId, Intent>> {
        self.intents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Intent> {
        self.lock().values().cloned().collect()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: &DecisionId) -> Option<Intent> {
        self.lock().get(id).cloned()
    }

    /// Those in one of these states, oldest first.
    #[must_use]
    pub fn in_state(&self, states: &[State]) -> Vec<Intent> {
        self.lock().values().filter(|intent| states.contains(&intent.state)).cloned().collect()
    }

    /// Tasks that intents other than this one have.
    #[must_use]
    pub fn claimed_by_others(&self, id: &DecisionId) -> BTreeSet<String> {
        self.lock().values().filter(|intent| intent.id != *id).filter_map(|i| i.upid.clone()).collect()
    }

    /// When an operator last armed it anew.
    #[must_use]
    pub fn rearmed_at(&self) -> Option<Timestamp> {
        *self.rearmed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an operator armed it anew, which has been kept already.
    pub fn rearm(&self, at: Timestamp) {
        *self.rearmed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// How many records could not be read, while nobody has armed anew since.
    #[must_use]
    pub fn unreadable(&self) -> Option<u32> {
        let rearmed = self.rearmed_at();
        self.unreadable.filter(|(_, at)| rearmed.is_none_or(|rearmed| rearmed < *at)).map(|(rows, _)| rows)
    }

    /// Those of which it was unknown what became of them, and nobody has armed anew since.
    #[must_use]
    pub fn unresolved(&self) -> Vec<Intent> {
        let rearmed = self.rearmed_at();
        let counts = |at: Timestamp| rearmed.is_none_or(|rearmed| at > rearmed);
        self.lock().values().filter(|intent| intent.unknown_at.is_some_and(counts)).cloned().collect()
    }

    /// Adds an intent. Durable on return. A migration that is under way keeps its number, should a clock that was set
    /// back give it again; the new one then is not added.
    ///
    /// # Errors
    /// [`LogError`]; it is not added then.
    pub async fn add(&self, intent: Intent) -> Result<(), LogError> {
        let _editing = self.editing.lock().await;
        if self.get(&intent.id).is_some_and(|known| known.state.is_under_way()) {
            tracing::warn!(id = %intent.id, "this number has a migration under way; was the clock set back?");
            return Ok(());
        }
        self.keep(intent).await
    }

    /// Changes an intent, or leaves it when `change` refuses. Durable on return; what it is now is handed out, `None` when
    /// there is none.
    ///
    /// # Errors
    /// Of `change`, and [`LogError`]: the intent then is as it was, for all who look.
    pub async fn change<E: From<LogError>>(
        &self,
        id: &DecisionId,
        change: impl FnOnce(&mut Intent) -> Result<(), E> + Send,
    ) -> Result<Option<Intent>, E> {
        let _editing = self.editing.lock().await;
        let Some(before) = self.get(id) else { return Ok(None) };
        let mut after = before.clone();
        change(&mut after)?;
        if after != before {
            self.keep(after.clone()).await?;
        }
        Ok(Some(after))
    }

    async fn keep(&self, intent: Intent) -> Result<(), LogError> {
        let (log, kept) = (Arc::clone(&self.log), intent.clone());
        let written = tokio::task::spawn_blocking(move || log.keep(&kept)).await;
        written.unwrap_or_else(|_| Err(LogError("the writing broke off".into())))?;
        tracing::info!(
            id = %intent.id,
            guest = %intent.guest,
            state = intent.state.name(),
            detail = intent.log.last().map(|step| step.detail.as_str()),
            "migration"
        );
        self.lock().insert(intent.id.clone(), intent);
        self.forget();
        Ok(())
    }

    fn forget(&self) {
        let mut intents = self.lock();
        let over: Vec<_> = intents.values().filter(|i| i.state.is_over()).map(|i| i.id.clone()).collect();
        for id in over.iter().take(over.len().saturating_sub(MOST_OVER)) {
            intents.remove(id);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::execute::intent::tests::intent;

    /// Keeps nothing, and fails when told to.
    #[derive(Debug, Default)]
    pub(crate) struct Forgetful {
        pub(crate) fails: std::sync::atomic::AtomicBool,
    }

    impl IntentLog for Forgetful {
        fn keep(&self, _: &Intent) -> Result<(), LogError> {
            match self.fails.load(std::sync::atomic::Ordering::Relaxed) {
                true => Err(LogError("disk full".into())),
                false => Ok(()),
            }
        }
    }

    #[tokio::test]
    async fn what_can_not_be_kept_has_not_happened() {
        let log = Arc::new(Forgetful::default());
        let book = Book::new(log.clone(), vec![], None);
        let intent = intent(10);
        book.add(intent.clone()).await.unwrap();
        log.fails.store(true, std::sync::atomic::Ordering::Relaxed);
        let at = Timestamp::from_millis(20_000);
        let approve = |intent: &mut Intent| {
            intent.enter(at, State::Approved, "yes");
            Ok::<_, LogError>(())
        };
        assert!(book.change(&intent.id, approve).await.is_err());
        assert_eq!(book.get(&intent.id).unwrap(), intent);
        assert!(book.add(super::super::intent::tests::intent(11)).await.is_err());
        assert_eq!(book.all().len(), 1);
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_makes_nobody_lose_sight_of_a_migration() {
        let mut called = intent(10);
        for state in [State::Approved, State::Prepared, State::Submitting] {
            called.enter(Timestamp::from_millis(11_000), state, "");
        }
        let book = Book::new(Arc::new(Forgetful::default()), vec![called.clone()], None);
        book.add(intent(10)).await.unwrap();
        assert_eq!(book.all(), [called]);
    }

    #[tokio::test]
    async fn those_that_are_over_are_forgotten_and_those_that_are_not_never() {
        let at = Timestamp::from_millis(20_000_000);
        let book = Book::new(Arc::new(Forgetful::default()), vec![intent(1)], None);
        for run_s in 2..600 {
            let mut over = intent(run_s);
            over.enter(at, State::Aborted, "no");
            book.add(over).await.unwrap();
        }
        assert_eq!(book.all().len(), 501);
        assert_eq!(book.in_state(&[State::Proposed]).len(), 1);
    }

    #[test]
    fn what_is_unknown_stops_until_somebody_arms_anew() {
        let at = |second: i64| Timestamp::from_millis(1000 * second);
        let mut lost = intent(10);
        lost.unknown_at = Some(at(100));
        let book = Book::new(Arc::new(Forgetful::default()), vec![lost], Some(at(50)));
        assert_eq!(book.unresolved().len(), 1);
        book.rearm(at(100));
        assert_eq!(book.unresolved(), []);
        let damaged = Some((2, at(200)));
        let book = Book::with_damage(Arc::new(Forgetful::default()), vec![], Some(at(100)), damaged);
        assert_eq!(book.unreadable(), Some(2));
        book.rearm(at(200));
        assert_eq!(book.unreadable(), None);
    }
}
