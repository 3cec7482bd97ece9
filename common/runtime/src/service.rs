//! What systemd is told: ready, stopping, and that the daemon is still alive. Without systemd nothing happens.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Clock};

/// Tells systemd that the service is up, once it can do its work.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// Tells systemd that the service ends in order.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// Sets the line that `systemctl status` shows.
pub fn status(line: &str) {
    tell(NotifyState::Status(&line.replace(char::is_control, " ")));
}

fn tell(state: NotifyState<'_>) {
    // Without NOTIFY_SOCKET this does nothing. With one that fails, systemd draws its own conclusion; we say why.
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "Could not notify systemd.");
    }
}

/// Keeps systemd's watchdog content while `alive` says so: asked at half the interval that the unit's `WatchdogSec`
/// sets. Ends with `stop`, and at once when the unit sets none. `alive` must be cheap, and must look at what the
/// daemon has *done* lately, not only at whether its tasks exist.
///
/// Once `alive` says no, systemd restarts the service unless it recovers in time. The clock must be the machine's,
/// because systemd's is.
pub async fn watchdog(
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    alive: impl Fn() -> bool + Send + 'static,
) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    keep_alive(&*clock, interval, stop, alive, || tell(NotifyState::Watchdog)).await;
}

async fn keep_alive(
    clock: &dyn Clock,
    interval: Duration,
    stop: CancellationToken,
    alive: impl Fn() -> bool,
    ping: impl Fn(),
) {
    loop {
        if alive() {
            ping();
        } else {
            tracing::error!("The watchdog found no life; systemd will restart the service.");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = clock::sleep(clock, interval / 2) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::VirtualClock;
    use evenkeel_common::time::Timestamp;
    use std::cell::Cell;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;
    use std::task::{Context, Waker};

    #[test]
    fn the_watchdog_is_fed_at_half_its_interval_and_only_by_the_living() {
        let clock = VirtualClock::new(Timestamp::default());
        let (alive, pings, stop) = (Cell::new(true), Cell::new(0), CancellationToken::new());
        let fed = || pings.set(pings.get() + 1);
        let mut task =
            Box::pin(keep_alive(&clock, Duration::from_secs(10), stop.clone(), || alive.get(), fed));
        let mut poll = || task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!poll());
        for (second, expected) in [(4, 1), (5, 2), (9, 2), (10, 3)] {
            clock.advance(Duration::from_secs(second) - clock.uptime());
            assert!(!poll());
            assert_eq!(pings.get(), expected, "after {second} s");
        }
        alive.set(false);
        clock.advance(Duration::from_secs(60));
        assert!(!poll());
        assert_eq!(pings.get(), 3);
        stop.cancel();
        assert!(poll());
    }

    /// Run by the test below in a process of its own, which has the environment of a service.
    #[test]
    fn as_a_service() {
        ready();
        status("a\nb");
        stopping();
    }

    #[test]
    fn systemd_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "service::tests::as_a_service"])
            .env("NOTIFY_SOCKET", &path)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        let told = || {
            let mut buffer = [0; 100];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap().trim().to_owned()
        };
        assert_eq!([told(), told(), told()], ["READY=1", "STATUS=a b", "STOPPING=1"]);
    }
}
