//! Time as a value that is passed in, so that the lab runs in virtual time and tests never wait.
//!
//! Two kinds of time, never mixed: `now` is the wall clock, for what people read and what is stored; `uptime`
//! never jumps, and orders events, ages data and paces loops.

use std::collections::BTreeMap;
use std::fs;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use evenkeel_common::time::Timestamp;
use futures_util::future::{self, BoxFuture};

/// Where time comes from. Passed around as `Arc<dyn Clock>`.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. May jump.
    fn now(&self) -> Timestamp;

    /// Time since the machine booted (since the start, for a virtual clock). Never goes back.
    fn uptime(&self) -> Duration;

    /// Ends when [`Self::uptime`] has reached `uptime`; at once when it already has.
    fn sleep_until(&self, uptime: Duration) -> BoxFuture<'static, ()>;
}

/// Ends after `span`.
pub fn sleep(clock: &dyn Clock, span: Duration) -> BoxFuture<'static, ()> {
    clock.sleep_until(clock.uptime().saturating_add(span))
}

/// The machine's own clock. Needs a tokio runtime with its timer enabled to sleep.
///
/// The standard library offers no CLOCK_BOOTTIME, so uptime is `/proc/uptime`, read once, plus the monotonic time
/// since. The two part only while a machine is suspended, which a hypervisor is not. Where `/proc/uptime` can not
/// be read, uptime counts from the creation of this clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    created: Instant,
    uptime_at_creation: Duration,
}

impl SystemClock {
    /// Reads `/proc/uptime` once.
    #[must_use]
    #[allow(clippy::disallowed_methods)] // The one place that asks the machine for the time.
    pub fn new() -> Self {
        let uptime = fs::read_to_string("/proc/uptime").ok();
        let uptime_at_creation = uptime.as_deref().and_then(parse_uptime).unwrap_or_default();
        Self { created: Instant::now(), uptime_at_creation }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

/// The first number of `/proc/uptime`: seconds since boot with hundredths.
fn parse_uptime(text: &str) -> Option<Duration> {
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // The one place that asks the machine for the time.
    fn now(&self) -> Timestamp {
        let epoch = Timestamp::from_millis(0);
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => epoch.after(since),
            Err(earlier) => epoch.before(earlier.duration()),
        }
    }

    fn uptime(&self) -> Duration {
        self.uptime_at_creation.saturating_add(self.created.elapsed())
    }

    fn sleep_until(&self, uptime: Duration) -> BoxFuture<'static, ()> {
        let deadline = self.created.checked_add(uptime.saturating_sub(self.uptime_at_creation));
        Box::pin(async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => future::pending().await, // Past what the machine can count: never.
            }
        })
    }
}

/// A clock that stands still until it is told to advance. Clones share the time. Works on any executor.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    start: Timestamp,
    shared: Arc<Mutex<VirtualTime>>,
}

#[derive(Debug, Default)]
struct VirtualTime {
    uptime: Duration,
    /// By deadline, then by order of registration.
    sleepers: BTreeMap<(Duration, u64), Waker>,
    registered: u64,
}

impl VirtualClock {
    /// Wall clock at `start`, uptime at zero.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self { start, shared: Arc::default() }
    }

    /// Moves time on and wakes the sleepers that are due, earliest deadline first. All of them see the new time; a
    /// driver that wants each to see its own goes from [`Self::next_deadline`] to the next.
    pub fn advance(&self, span: Duration) {
        let due = {
            let mut time = lock(&self.shared);
            time.uptime = time.uptime.saturating_add(span);
            let first_later = (time.uptime.saturating_add(Duration::from_nanos(1)), 0);
            let later = time.sleepers.split_off(&first_later);
            std::mem::replace(&mut time.sleepers, later)
        };
        // Outside the lock: a waker may run the sleeper's executor at once, and that may ask for the time.
        due.into_values().for_each(Waker::wake);
    }

    /// The uptime that the earliest sleeper waits for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        lock(&self.shared).sleepers.keys().next().map(|(deadline, _)| *deadline)
    }
}

fn lock(shared: &Mutex<VirtualTime>) -> MutexGuard<'_, VirtualTime> {
    // No code under the lock can leave the state half changed, so a panic elsewhere does not spoil it.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.start.after(self.uptime())
    }

    fn uptime(&self) -> Duration {
        lock(&self.shared).uptime
    }

    fn sleep_until(&self, uptime: Duration) -> BoxFuture<'static, ()> {
        Box::pin(VirtualSleep { shared: self.shared.clone(), deadline: uptime, number: None })
    }
}

struct VirtualSleep {
    shared: Arc<Mutex<VirtualTime>>,
    deadline: Duration,
    number: Option<u64>,
}

impl Future for VirtualSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = self.shared.clone();
        let mut time = lock(&shared);
        if time.uptime >= self.deadline {
            return Poll::Ready(());
        }
        let number = self.number.unwrap_or_else(|| {
            time.registered += 1;
            time.registered
        });
        self.number = Some(number);
        time.sleepers.insert((self.deadline, number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for VirtualSleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            lock(&self.shared).sleepers.remove(&(self.deadline, number));
        }
    }
}

/// Fires on whole multiples of a period of uptime. Steps that passed while the caller was busy are left out, never
/// made up for: a late loop must not run twice in a row on the same data.
pub struct Ticker {
    clock: Arc<dyn Clock>,
    period: Duration,
    due: Duration,
}

impl Ticker {
    /// The first tick is the next whole step after now. A period below a millisecond counts as a millisecond.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, period: Duration) -> Self {
        let period = period.max(Duration::from_millis(1));
        let due = next_step(clock.uptime(), period);
        Self { clock, period, due }
    }

    /// Waits for the next step and returns the uptime it was due at. Cancelling it loses no step.
    pub async fn tick(&mut self) -> Duration {
        self.clock.sleep_until(self.due).await;
        let fired = self.due;
        // A sleeper may wake a hair early; the step just fired must not fire again.
        self.due = next_step(self.clock.uptime().max(fired), self.period);
        fired
    }
}

/// The first multiple of `period` after `uptime`.
fn next_step(uptime: Duration, period: Duration) -> Duration {
    let period_ns = period.as_nanos();
    let steps = uptime.as_nanos() / period_ns + 1;
    let ns = steps.saturating_mul(period_ns);
    u64::try_from(ns).map_or(Duration::MAX, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    const fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// Records the order in which sleepers are woken.
    struct Note(u32, Arc<Mutex<Vec<u32>>>);
    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    fn poll(sleep: &mut BoxFuture<'static, ()>, waker: &Waker) -> Poll<()> {
        sleep.as_mut().poll(&mut Context::from_waker(waker))
    }

    #[test]
    fn virtual_sleepers_wake_by_deadline_and_not_before() {
        let clock = VirtualClock::new(Timestamp::from_millis(5000));
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut sleeps: Vec<_> = [30, 10, 20, 10]
            .into_iter()
            .zip(0..)
            .map(|(s, n)| (clock.sleep_until(secs(s)), Waker::from(Arc::new(Note(n, woken.clone())))))
            .collect();
        for (sleep, waker) in &mut sleeps {
            assert!(poll(sleep, waker).is_pending());
        }
        assert_eq!(clock.next_deadline(), Some(secs(10)));
        clock.advance(secs(10) - Duration::from_nanos(1));
        assert!(woken.lock().unwrap().is_empty());
        clock.advance(Duration::from_nanos(1));
        assert_eq!(*woken.lock().unwrap(), [1, 3], "both at their deadline, first come first");
        clock.advance(secs(3600));
        assert_eq!(*woken.lock().unwrap(), [1, 3, 2, 0]);
        assert!(sleeps.iter_mut().all(|(sleep, waker)| poll(sleep, waker).is_ready()));
        assert_eq!(clock.next_deadline(), None);
        assert_eq!(clock.now(), Timestamp::from_millis(5000 + 3_610_000));
    }

    #[test]
    fn virtual_sleepers_that_come_late_or_leave_early_do_not_linger() {
        let clock = VirtualClock::new(Timestamp::default());
        clock.advance(secs(10));
        assert!(poll(&mut clock.sleep_until(secs(10)), Waker::noop()).is_ready());
        assert!(poll(&mut sleep(&clock, Duration::ZERO), Waker::noop()).is_ready());
        let mut dropped = clock.sleep_until(secs(11));
        assert!(poll(&mut dropped, Waker::noop()).is_pending());
        assert!(poll(&mut dropped, Waker::noop()).is_pending(), "polling again registers no second sleeper");
        drop(dropped);
        assert_eq!(clock.next_deadline(), None);
    }

    #[test]
    fn virtual_time_is_shared_between_threads() {
        let clock = VirtualClock::new(Timestamp::default());
        let ended = Arc::new(AtomicU32::new(0));
        std::thread::scope(|scope| {
            for n in 1..=4 {
                let (clock, ended) = (clock.clone(), ended.clone());
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(clock.sleep_until(secs(n)));
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
            while ended.load(Ordering::SeqCst) < 4 {
                match clock.next_deadline() {
                    Some(deadline) => clock.advance(deadline.saturating_sub(clock.uptime())),
                    None => std::thread::yield_now(),
                }
            }
        });
        assert_eq!(clock.uptime(), secs(4));
    }

    #[test]
    fn ticks_fall_on_whole_steps_and_missed_ones_are_left_out() {
        let clock = VirtualClock::new(Timestamp::default());
        clock.advance(Duration::from_millis(2500));
        let mut ticker = Ticker::new(Arc::new(clock.clone()), secs(1));
        let mut next = |advance: Duration| {
            let mut tick = Box::pin(ticker.tick());
            let mut context = Context::from_waker(Waker::noop());
            assert!(tick.as_mut().poll(&mut context).is_pending());
            clock.advance(advance);
            tick.as_mut().poll(&mut context)
        };
        assert_eq!(next(Duration::from_millis(400)), Poll::Pending);
        assert_eq!(next(Duration::from_millis(100)), Poll::Ready(secs(3)), "a cancelled tick is not lost");
        assert_eq!(next(Duration::from_millis(5200)), Poll::Ready(secs(4)));
        assert_eq!(next(Duration::from_millis(800)), Poll::Ready(secs(9)), "5 to 8 are left out");
    }

    #[test]
    fn system_uptime_agrees_with_the_kernel() {
        let kernel = || parse_uptime(&fs::read_to_string("/proc/uptime").unwrap()).unwrap();
        let clock = SystemClock::new();
        let (before, ours, after) = (kernel(), clock.uptime(), kernel());
        // The kernel's text is cut to hundredths.
        let slack = Duration::from_millis(20);
        assert!(before <= ours + slack && ours <= after + slack, "{before:?} {ours:?} {after:?}");
        assert!(clock.now() > Timestamp::from_millis(1_700_000_000_000));
    }

    #[test]
    fn system_sleep_ends_for_the_past_and_never_for_the_end_of_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let clock = SystemClock::new();
        runtime.block_on(async {
            clock.sleep_until(Duration::ZERO).await;
            sleep(&clock, Duration::from_millis(2)).await;
            let forever = clock.sleep_until(Duration::MAX);
            tokio::select! {
                () = forever => panic!("the end of time came"),
                () = sleep(&clock, Duration::from_millis(2)) => {}
            }
        });
    }
}
