//! Following a stream for as long as the person likes: no repeats, no holes, and a word when the connection is lost.
//!
//! A stream only tells what happens while it is open. So after every reconnect the stream is opened first, then
//! the list is asked for what happened meanwhile, and what was already shown is left out by its key.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use serde::Serialize;
use tonic::Streaming;

use crate::client::Client;
use crate::command::{Context, millis};
use crate::error::CliError;
use crate::render::{note, plain, print};

/// First and longest wait between two attempts to reconnect.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How many shown entries are remembered.
const REMEMBERED: usize = 10_000;
/// On a reconnect, look back this much further than the newest entry: entries need not come in order of their times.
const OVERLAP_MS: i64 = 60_000;

/// Something that can be followed.
pub trait Watched: Serialize + Sized {
    /// What to ask for.
    type Question: Clone;

    /// The question, limited to what happened since a time.
    fn since(question: &Self::Question, since_ms: Option<i64>) -> Self::Question;
    /// Opens the stream.
    async fn open(client: &Client, question: Self::Question) -> Result<Streaming<Self>, CliError>;
    /// Lists what is already there; also whether there is more.
    async fn list(client: &Client, question: Self::Question) -> Result<(Vec<Self>, bool), CliError>;
    /// Tells one entry from another; changes when an entry changes in a way worth a new line.
    fn key(&self) -> String;
    /// When it happened.
    fn at_ms(&self) -> i64;
    /// The line for people.
    fn line(&self, context: &Context) -> String;
}

/// Prints entries as they come, until the person or the aggregator's refusal ends it.
///
/// # Errors
/// What waiting can not mend: not allowed, usage, output closed. A lost connection is told on standard error, and tried again.
pub async fn follow<W: Watched>(
    mut context: Context,
    question: W::Question,
    since: Option<Duration>,
) -> Result<(), CliError> {
    let now_ms = context.client.status().await?.now_ms;
    let mut follower = Follower {
        question,
        newest_ms: now_ms,
        catch_up: since.map(|span| now_ms.saturating_sub(millis(span))),
        seen: Seen::default(),
        wait: WAITS.0,
    };
    loop {
        let lost = match follower.session::<W>(&context).await {
            Ok(()) => "the aggregator ended the stream".to_owned(),
            Err(CliError::Unreachable(why)) => why,
            Err(error) => return Err(error),
        };
        follower.catch_up = Some(follower.newest_ms.saturating_sub(OVERLAP_MS));
        let mut why = lost;
        loop {
            let wait = follower.wait;
            note(&format!(
                "evenkeelctl: {why}\nevenkeelctl: trying again in {} s (Ctrl-C ends)",
                wait.as_secs()
            ));
            tokio::time::sleep(wait).await;
            follower.wait = (wait * 2).min(WAITS.1);
            match Client::connect(context.client.target().clone()).await {
                Ok(client) => {
                    context.client = client;
                    break;
                }
                Err(CliError::Unreachable(again)) => why = again,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Where a follower stands between two connections.
struct Follower<Q> {
    question: Q,
    newest_ms: i64,
    catch_up: Option<i64>,
    seen: Seen,
    wait: Duration,
}

impl<Q: Clone> Follower<Q> {
    async fn session<W: Watched<Question = Q>>(&mut self, context: &Context) -> Result<(), CliError> {
        let question = W::since(&self.question, self.catch_up);
        let mut stream = W::open(&context.client, question.clone()).await?;
        if self.wait > WAITS.0 {
            note("evenkeelctl: connected again");
        }
        self.wait = WAITS.0;
        if self.catch_up.is_some() {
            let (mut past, more) = W::list(&context.client, question).await?;
            if more {
                note("evenkeelctl: too many past entries, only the newest follow");
            }
            past.sort_by_key(W::at_ms);
            for entry in past {
                self.show(context, &entry)?;
            }
        }
        loop {
            match stream.message().await {
                Ok(Some(entry)) => self.show(context, &entry)?,
                Ok(None) => return Ok(()),
                Err(status) => return Err(lost(context.client.explain(&status))),
            }
        }
    }

    fn show<W: Watched>(&mut self, context: &Context, entry: &W) -> Result<(), CliError> {
        self.newest_ms = self.newest_ms.max(entry.at_ms());
        if !self.seen.add(entry.key()) {
            return Ok(());
        }
        let line = if context.json {
            serde_json::to_string(entry)
                .map_err(|error| CliError::Failed(format!("can not write JSON: {error}")))?
        } else {
            entry.line(context)
        };
        print(&format!("{line}\n"))
    }
}

/// A stream that breaks inside the aggregator is worth another attempt, unlike a question that fails.
fn lost(error: CliError) -> CliError {
    match error {
        CliError::Failed(why) => CliError::Unreachable(plain(&why)),
        other => other,
    }
}

/// The keys of the last entries shown.
#[derive(Default)]
struct Seen {
    keys: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Whether the key is new.
    fn add(&mut self, key: String) -> bool {
        if !self.keys.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_what_was_shown_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..3 * REMEMBERED {
            assert!(seen.add(number.to_string()));
        }
        assert!(!seen.add((3 * REMEMBERED - 1).to_string()));
        assert_eq!((seen.keys.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
    }
}
