//! `export`: everything the aggregator keeps, into a file that is either whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_proto::v1::{ExportChunk, ExportRequest};
use serde::Serialize;
use tonic::Streaming;

use super::Context;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::tone::Tone;
use crate::render::{bytes, counted};

/// Longest wait for the next chunk.
const STALL: Duration = Duration::from_secs(60);
/// Progress is shown every so many bytes.
const PROGRESS_STEP: u64 = 1 << 20;

/// What was written.
#[derive(Debug, Default, Serialize)]
struct Written {
    file: String,
    bytes: u64,
    lines: u64,
}

/// Streams the export to the file, or to standard output.
pub async fn run(context: &Context, file: &Path, force: bool) -> Result<(), CliError> {
    if file == Path::new("-") {
        copy(context, &mut io::stdout().lock(), CliError::from_output).await?;
        return Ok(());
    }
    let failed = |error: io::Error| CliError::Failed(format!("can not write {}: {error}", file.display()));
    let taken = || {
        CliError::Failed(format!("{} exists; take another name, or replace it with --force", file.display()))
    };
    if !force && file.symlink_metadata().is_ok() {
        return Err(taken());
    }
    let mut partial = Partial::beside(file).map_err(failed)?;
    let mut written = copy(context, &mut partial.file, failed).await?;
    partial.file.sync_all().map_err(failed)?;
    if force {
        fs::rename(&partial.path, file).map_err(failed)?;
    } else {
        // A link, unlike a rename, never replaces what appeared meanwhile.
        fs::hard_link(&partial.path, file).map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists { taken() } else { failed(error) }
        })?;
    }
    File::open(folder(file)).and_then(|folder| folder.sync_all()).map_err(failed)?;
    written.file = file.display().to_string();
    context.show(&written, |screen| {
        let mut page = Page::new(screen);
        let size = bytes(written.bytes);
        page.line(
            Tone::Normal,
            &format!("Wrote {size}, {}, to {}.", counted(written.lines, "line"), written.file),
        );
        page.finish()
    })
}

/// Copies all chunks. A stream that ends without data is an error: an export has at least its first line.
async fn copy(
    context: &Context,
    out: &mut impl Write,
    failed: impl Fn(io::Error) -> CliError,
) -> Result<Written, CliError> {
    let mut stream: Streaming<ExportChunk> = context
        .client
        .open(ExportRequest {}, async |mut control, request| control.export(request).await)
        .await?;
    let mut written = Written::default();
    let mut progress = Progress::new();
    let mut last = b'\n';
    loop {
        let chunk = match tokio::time::timeout(STALL, stream.message()).await {
            Ok(Ok(Some(chunk))) => chunk.data,
            Ok(Ok(None)) => break,
            Ok(Err(status)) => return Err(context.client.explain(&status)),
            Err(_) => {
                return Err(CliError::Unreachable(format!(
                    "the export stalled: nothing came for {} s; try again",
                    STALL.as_secs()
                )));
            }
        };
        out.write_all(&chunk).map_err(&failed)?;
        written.bytes += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        written.lines += chunk.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        last = chunk.last().copied().unwrap_or(last);
        progress.show(written.bytes);
    }
    out.flush().map_err(&failed)?;
    if written.bytes == 0 || last != b'\n' {
        return Err(CliError::Failed(
            "the aggregator ended the export in the middle; nothing was kept, try again".to_owned(),
        ));
    }
    Ok(written)
}

/// A line on standard error that says how far it is, where a person can see it.
struct Progress {
    watched: bool,
    next: u64,
}

impl Progress {
    fn new() -> Self {
        Self { watched: io::stderr().is_terminal(), next: PROGRESS_STEP }
    }

    fn show(&mut self, done: u64) {
        if self.watched && done >= self.next {
            self.next = done + PROGRESS_STEP;
            _ = write!(io::stderr().lock(), "\rexported {}   ", bytes(done));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.watched && self.next > PROGRESS_STEP {
            _ = writeln!(io::stderr().lock());
        }
    }
}

/// A file under a working name; its name goes with it, whether the export became whole or not.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    /// Readable to its owner alone: the export names every guest.
    fn beside(file: &Path) -> io::Result<Self> {
        let name = file.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_string_lossy();
        let path = folder(file).join(format!(".{name}.partial-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename it is gone already.
        _ = fs::remove_file(&self.path);
    }
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
