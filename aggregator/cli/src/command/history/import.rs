//! `history import`: streams a file of any size to the aggregator, and tells what came of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use evenkeel_proto::v1::{ImportHistoryRequest, ImportHistoryResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::Context;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::progress::Progress;
use crate::render::tone::Tone;
use crate::render::{Screen, bytes, count, counted, note};

/// Bytes of a file in one message.
const PIECE: usize = 256 << 10;
/// Messages that wait for the connection.
const WAITING: usize = 2;
/// Faults on the screen; JSON has the first twenty.
const SHOWN: usize = 8;

/// Sends the file and shows the account.
pub async fn run(context: &Context, file: &Path) -> Result<(), CliError> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let Some(source) = open(file, &name)? else {
        note(&format!(
            "evenkeelctl: warning: {name} does not exist; it is taken for an empty history, nothing was imported"
        ));
        let nothing = ImportHistoryResponse { cluster: context.cluster.clone(), ..Default::default() };
        return context.show(&nothing, |screen| page(screen, &name, &nothing));
    };
    let account = send(context, source, &name).await?;
    context.show(&account, |screen| page(screen, &name, &account))?;
    verdict(&name, &account)
}

/// Where a history comes from, and how many bytes it has, where that is known.
type Source = (Box<dyn Read + Send>, Option<u64>);

/// Opens the file; `None` when it does not exist. A pipe is as good as a file.
fn open(file: &Path, name: &str) -> Result<Option<Source>, CliError> {
    if file == Path::new("-") {
        return Ok(Some((Box::new(io::stdin()), None)));
    }
    let failed = |error: io::Error| CliError::Failed(format!("can not read {name}: {error}"));
    let metadata = match std::fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(CliError::Failed(format!("{name} is a directory; name one of its files")));
    }
    if kind.is_char_device() || kind.is_block_device() || kind.is_socket() {
        return Err(CliError::Failed(format!(
            "{name} is a device, not a file; pipe it in, and write - for it"
        )));
    }
    let total = kind.is_file().then_some(metadata.len());
    Ok(Some((Box::new(File::open(file).map_err(failed)?), total)))
}

async fn send(context: &Context, source: Source, name: &str) -> Result<ImportHistoryResponse, CliError> {
    let (pieces, queue) = mpsc::channel(WAITING);
    let cluster = context.cluster.clone();
    let mut reading = tokio::task::spawn_blocking(move || read(source, cluster, pieces));
    let mut history = context.client.history();
    let call =
        context.client.open(ReceiverStream::new(queue), async |_, request| history.import(request).await);
    tokio::pin!(call);
    tokio::select! {
        answer = &mut call => answer,
        ended = &mut reading => match ended {
            Ok(Ok(())) => call.await,
            // The queue lives in the error: it must not look like the end of the file to the aggregator.
            Ok(Err((error, _queue))) => Err(CliError::Failed(format!(
                "can not read {name} to its end: {error}\nwhat came before is kept; import it again, nothing is doubled"
            ))),
            Err(_) => Err(CliError::Failed(format!("reading {name} broke off; try again"))),
        },
    }
}

type Queue = mpsc::Sender<ImportHistoryRequest>;

/// Reads piece by piece into the queue, which makes it wait for the aggregator.
fn read((mut source, total): Source, cluster: String, queue: Queue) -> Result<(), (io::Error, Queue)> {
    let mut progress = Progress::new("imported", total);
    let (mut buffer, mut sent) = (vec![0; PIECE], 0);
    // Of an empty file too the aggregator hears.
    let mut piece = ImportHistoryRequest { cluster, data: Vec::new() };
    loop {
        if queue.blocking_send(std::mem::take(&mut piece)).is_err() {
            return Ok(()); // The call has ended; its answer says why.
        }
        progress.show(sent);
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err((error, queue)),
        };
        piece.data = buffer[..read].to_vec();
        sent += read as u64;
    }
}

fn page(screen: &Screen, name: &str, account: &ImportHistoryResponse) -> String {
    let mut page = Page::new(screen);
    let records = counted(account.records, "record");
    let into =
        if account.cluster.is_empty() { String::new() } else { format!(", cluster {}", account.cluster) };
    page.line(Tone::Strong, &format!("{records} in {name} ({}){into}", bytes(account.bytes)));
    let mut fields = vec![("new", count(account.added)), ("known already", count(account.duplicates))];
    for (label, number) in
        [("older than what is kept", account.too_old), ("older ones removed to make room", account.removed)]
    {
        if number > 0 {
            fields.push((label, count(number)));
        }
    }
    fields.push(("not records", count(account.corrupt)));
    page.fields(&fields);
    if !account.faults.is_empty() {
        page.section("What is not a record");
        for fault in account.faults.iter().take(SHOWN) {
            page.bullet(&format!("line {}: {}", count(fault.line), fault.text));
        }
        let more = account.corrupt.saturating_sub(SHOWN.min(account.faults.len()) as u64);
        if more > 0 {
            page.line(Tone::Normal, &format!("and {} more", count(more)));
        }
    }
    page.finish()
}

/// A file in which nothing is a record, or that is cut off, is not what somebody meant to import.
fn verdict(name: &str, account: &ImportHistoryResponse) -> Result<(), CliError> {
    if account.bytes == 0 {
        return Err(CliError::Failed(format!("{name} is empty; is that the right file?")));
    }
    if account.cut_off {
        return Err(CliError::Failed(format!(
            "{name} ends in the middle, so it may be cut off\nwhat is whole is kept; import it again once it is complete, nothing is doubled"
        )));
    }
    if account.records == 0 && account.corrupt > 0 {
        return Err(CliError::Failed(format!(
            "nothing in {name} is a record of a migration\n`evenkeelctl history import --help` shows what one looks like"
        )));
    }
    Ok(())
}
