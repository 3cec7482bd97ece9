//! Ends a daemon in order, and in time.

use std::io;
use std::process;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Clock};

/// Exit code after a second signal: ended without order.
const FORCED: i32 = 1;

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once: whoever sends it twice will not
/// wait. Needs a tokio runtime, which must keep running for the signals to be seen.
///
/// # Errors
/// When the signal handlers can not be installed.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let name = next(&mut signals).await;
        tracing::info!(signal = name, "Stopping; a second signal ends at once.");
        cancelled.cancel();
        let name = next(&mut signals).await;
        tracing::warn!(signal = name, "Ended without order.");
        process::exit(FORCED);
    });
    Ok(token)
}

async fn next((terminate, interrupt): &mut (Signal, Signal)) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// What had to end did not in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} did not end within {} s and is left behind", limit.as_secs())]
pub struct Overdue {
    /// What, as it reads in the message: "the gRPC server".
    pub what: &'static str,
    /// How long it had.
    pub limit: Duration,
}

/// Waits for `work` to end, but not longer than `limit`; then drops it. Servers can hang on one connection that never
/// closes, and a stop that hangs is ended by systemd with SIGKILL, before the rest could end in order.
///
/// # Errors
/// [`Overdue`].
pub async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = T>,
) -> Result<T, Overdue> {
    tokio::select! {
        biased; // Work that has ended is not overdue.
        done = work => Ok(done),
        () = clock::sleep(clock, limit) => Err(Overdue { what, limit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::VirtualClock;
    use evenkeel_common::time::Timestamp;
    use std::future::{pending, ready};
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    use std::task::{Context, Poll, Waker};

    #[test]
    fn what_hangs_is_left_behind() {
        let clock = VirtualClock::new(Timestamp::default());
        let limit = Duration::from_secs(5);
        let mut context = Context::from_waker(Waker::noop());
        let mut quick = Box::pin(within(&clock, Duration::ZERO, "it", ready(7)));
        assert_eq!(quick.as_mut().poll(&mut context), Poll::Ready(Ok(7)));
        let mut stuck = Box::pin(within(&clock, limit, "the server", pending::<()>()));
        assert!(stuck.as_mut().poll(&mut context).is_pending());
        clock.advance(limit);
        let overdue = Overdue { what: "the server", limit };
        assert_eq!(stuck.as_mut().poll(&mut context), Poll::Ready(Err(overdue)));
        assert_eq!(overdue.to_string(), "the server did not end within 5 s and is left behind");
    }

    /// Run by the test below in a process of its own, which it sends signals.
    #[test]
    #[allow(clippy::print_stderr)] // How the parent is told.
    fn as_a_daemon() {
        if std::env::var_os("EVENKEEL_TEST_DAEMON").is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let token = on_signal().unwrap();
            eprintln!("waiting");
            token.cancelled().await;
            eprintln!("stopping");
            pending::<()>().await;
        });
    }

    #[test]
    fn the_first_signal_asks_and_the_second_ends() {
        for (first, second) in [("-TERM", "-INT"), ("-INT", "-TERM")] {
            let mut daemon = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "shutdown::tests::as_a_daemon", "--nocapture"])
                .env("EVENKEEL_TEST_DAEMON", "1")
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
            let mut wait_for = |line: &str| assert!(lines.any(|got| got.unwrap() == line), "no {line:?}");
            let pid = daemon.id().to_string();
            let send = |signal| {
                assert!(Command::new("kill").args([signal, pid.as_str()]).status().unwrap().success())
            };
            wait_for("waiting");
            send(first);
            wait_for("stopping");
            send(second);
            assert_eq!(daemon.wait().unwrap().code(), Some(FORCED));
        }
    }
}
