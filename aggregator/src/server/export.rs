//! The export as a stream: written by a blocking task into a bounded channel, so that a slow client slows the writer
//! instead of filling memory.

use std::io::{self, Write};
use std::sync::Arc;

use evenkeel_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::watch::Watch;
use crate::store::Store;

/// Size of a chunk.
const CHUNK: usize = 256 << 10;
/// Chunks under way.
const WAITING: usize = 4;

/// Streams everything the store holds.
pub fn stream(store: Arc<dyn Store>) -> Watch<v1::ExportChunk> {
    let (chunks, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let mut out = Chunks { chunks: chunks.clone(), buffer: Vec::with_capacity(CHUNK) };
        let written = store.export(&mut out).map_err(|error| error.to_string());
        let flushed = written.and_then(|_| out.flush().map_err(|error| error.to_string()));
        if let Err(text) = flushed {
            // The client may be gone; then nobody reads the reason.
            let _ = chunks.blocking_send(Err(Status::internal(text)));
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

struct Chunks {
    chunks: mpsc::Sender<Result<v1::ExportChunk, Status>>,
    buffer: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        let sent = self.chunks.blocking_send(Ok(v1::ExportChunk { data }));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone"))
    }
}
