//! A history file as it comes in: pieces go through a short queue to one thread that reads records out of them and stores
//! them, so a fast client waits for the disk and nothing piles up. Answered once all of it is durable.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::id::ClusterId;
use evenkeel_common::time::Timestamp;
use evenkeel_core::history::import::{Account, Reader};
use evenkeel_core::history::record::Record;
use evenkeel_proto::v1;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::control::ControlService;
use super::request::{parse, who};
use super::views::history as views;
use crate::history::{History, Taken};
use crate::identity::audit::Outcome;
use crate::store::StoreError;

/// Pieces that wait for the reader.
const WAITING: usize = 4;
/// Longest wait for the next piece. What is piped in may be made while it is sent.
const PIECE: Duration = Duration::from_mins(5);
/// Longest wait for another import, or for who makes room after one.
const TURN: Duration = Duration::from_secs(10);
/// How far ahead of now a record may be: clocks differ.
const AHEAD: Duration = Duration::from_hours(24);

/// Takes in a file.
pub(super) async fn import(
    control: &ControlService,
    request: Request<Streaming<v1::ImportHistoryRequest>>,
) -> Result<Response<v1::ImportHistoryResponse>, Status> {
    let who = who(&request);
    let mut pieces = request.into_inner();
    let missing = || Status::invalid_argument("the request has no first message");
    let first = next(&mut pieces).await?.ok_or_else(missing)?;
    let cluster = target(control, &first.cluster)?;
    let under_way = || Status::failed_precondition("another import is under way; try again when it is done");
    let turn = Arc::clone(&control.history.importing).acquire_owned();
    let turn = tokio::time::timeout(TURN, turn).await.map_err(|_| under_way())?;
    let permit = turn.map_err(|_| under_way())?;
    control.record(who, "/evenkeel.v1.History/Import", format!("{cluster} started"), Outcome::Done).await?;
    let (bytes, queue) = mpsc::channel(WAITING);
    let (now, name) = (control.clock.now(), cluster.clone());
    let work = control.off(move |this| {
        // Held to the end, also when the client has gone.
        let _permit = permit;
        take_in(&this.history, &name, queue, now)
    });
    let pass_on = async {
        let mut piece = Some(first);
        while let Some(v1::ImportHistoryRequest { data, .. }) = piece {
            if bytes.send(data).await.is_err() {
                break; // The reader has failed; its own error says why.
            }
            piece = next(&mut pieces).await?;
        }
        drop(bytes);
        Ok::<(), Status>(())
    };
    let (passed, taken) = tokio::join!(pass_on, work);
    let (account, taken) = taken?;
    passed?;
    Ok(Response::new(views::imported(&cluster, account, taken)))
}

async fn next(
    pieces: &mut Streaming<v1::ImportHistoryRequest>,
) -> Result<Option<v1::ImportHistoryRequest>, Status> {
    let late = |_| {
        let text =
            "the next piece of the file did not come; what came is kept: import it again, nothing is doubled";
        Status::deadline_exceeded(text)
    };
    tokio::time::timeout(PIECE, pieces.message()).await.map_err(late)?
}

/// The cluster that a file is imported for. It need not be known: histories are older than clusters.
fn target(control: &ControlService, asked: &str) -> Result<ClusterId, Status> {
    if !asked.is_empty() {
        return parse(asked);
    }
    match control.cluster_ids("")?.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Status::invalid_argument("no cluster is known yet: name one with --cluster")),
        several => {
            let names: Vec<&str> = several.iter().map(ClusterId::as_str).collect();
            Err(Status::invalid_argument(format!(
                "there are several clusters ({}): name the one the file is about with --cluster",
                names.join(", ")
            )))
        }
    }
}

/// Reads records out of the pieces and stores them.
fn take_in(
    history: &History,
    cluster: &ClusterId,
    mut queue: mpsc::Receiver<Vec<u8>>,
    now: Timestamp,
) -> Result<(Account, Taken), StoreError> {
    let mut reader = Reader::new(now.after(AHEAD));
    let mut intake = history.intake(cluster, now)?;
    let mut failure = None;
    let mut add = |record: Record| {
        if failure.is_none() {
            failure = intake.add(&record).err();
        }
    };
    while let Some(piece) = queue.blocking_recv() {
        reader.push(&piece, &mut add);
    }
    let account = reader.finish(&mut add);
    failure.map_or(Ok(()), Err)?;
    let taken = intake.finish()?;
    for (line, fault) in &account.faults {
        tracing::warn!(%cluster, line, %fault, "not a record of a migration history");
    }
    let Account { bytes, records, corrupt, cut_off, .. } = account;
    let Taken { added, duplicates, too_old, removed } = taken;
    tracing::info!(
        %cluster, bytes, records, added, duplicates, too_old, removed, corrupt, cut_off,
        "a migration history was imported"
    );
    Ok((account, taken))
}
