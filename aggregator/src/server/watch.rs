//! Endless answers: what happens, as it happens, until the client leaves or the aggregator stops.

use std::pin::Pin;

use tokio::sync::{broadcast, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Answers of one watching client.
pub type Watch<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers that may wait for a slow client before it is cut off.
const WAITING: usize = 256;

/// Follows `news`, translating each into any number of answers. A client that falls behind is told so and ends: it
/// must not believe it has seen everything.
pub fn follow<N, T, F>(
    mut news: broadcast::Receiver<N>,
    stop: CancellationToken,
    mut translate: F,
) -> Watch<T>
where
    N: Clone + Send + 'static,
    T: Send + 'static,
    F: FnMut(N) -> Vec<T> + Send + 'static,
{
    let (answers, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                () = answers.closed() => return,
                next = news.recv() => next,
            };
            match next {
                Ok(item) => {
                    for answer in translate(item) {
                        if answers.send(Ok(answer)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let text = format!(
                        "{missed} messages were missed because this client was too slow: watch again"
                    );
                    // The client may be gone already.
                    let _ = answers.send(Err(Status::data_loss(text))).await;
                    return;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}
