//! `export`: everything the aggregator keeps, into a file that is either whole or not there.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use evenkeel_proto::v1::{ExportChunk, ExportRequest};
use serde::Serialize;
use tonic::Streaming;

use super::Context;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::progress::Progress;
use crate::render::tone::Tone;
use crate::render::{bytes, counted};
use crate::whole_file::{self, WholeFile};

/// Longest wait for the next chunk.
const STALL: Duration = Duration::from_secs(60);

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
    let mut whole = WholeFile::begin(file, force)?;
    let mut written = copy(context, &mut whole.file, |error| whole_file::failed(file, &error)).await?;
    whole.keep()?;
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
    let mut progress = Progress::new("exported", None);
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
