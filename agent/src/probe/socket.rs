//! The socket of the mesh.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use evenkeel_runtime::clock::{self, Clock};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::mesh::Mesh;
use super::packet::LENGTH;
use super::peer::Bucket;

/// Packets looked at in a second. A flood beyond it is left to the kernel, which drops it: the host's CPU is not ours.
const LOOKS_PER_SECOND: f64 = 1000.0;
const LOOKS_AT_ONCE: f64 = 200.0;
/// How long the socket is left alone in a flood.
const REST: Duration = Duration::from_millis(50);

/// Listens on `listen`. `[::]` takes IPv4 as well, and becomes 0.0.0.0 where there is no IPv6.
///
/// # Errors
/// Of the system, as when the port is taken.
pub async fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    match UdpSocket::bind(listen).await {
        Err(error) if listen.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) => {
            let taken = error.kind() == io::ErrorKind::AddrInUse;
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port()));
            if taken { Err(error) } else { UdpSocket::bind(v4).await }
        }
        bound => bound,
    }
}

/// Asks and answers until `stop`. Nothing that happens to a packet ends it.
pub async fn run(
    socket: UdpSocket,
    mesh: Mesh,
    clock: &dyn Clock,
    interval: Duration,
    stop: CancellationToken,
) {
    let v6 = socket.local_addr().is_ok_and(|address| address.is_ipv6());
    let interval = interval.max(Duration::from_millis(1));
    let mut ask = clock.sleep_until(between_ticks(clock.uptime(), interval));
    let mut looks = Bucket::new(LOOKS_PER_SECOND, LOOKS_AT_ONCE, clock.uptime());
    // One byte more than a packet has, so that a longer one is not taken for its beginning.
    let mut buffer = [0; LENGTH + 1];
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = &mut ask => {
                let now = clock.uptime();
                for (address, question) in mesh.questions(now) {
                    // What can not be sent is lost, and is told as that.
                    let _ = socket.try_send_to(&question, towards(address, v6));
                }
                ask = clock.sleep_until(between_ticks(clock.uptime(), interval));
            }
            received = socket.recv_from(&mut buffer) => {
                let now = clock.uptime();
                // An error here is an ICMP answer to something sent: that peer's loss tells of it.
                if let Ok((length, from)) = received
                    && let Some(answer) = mesh.take(plain(from), &buffer[..length], now)
                {
                    let _ = socket.try_send_to(&answer, from);
                }
                if !looks.take(now) {
                    clock::sleep(clock, REST).await;
                }
            }
        }
    }
}

/// The next moment half an interval away from its whole multiples, at which the agent ticks.
fn between_ticks(now: Duration, interval: Duration) -> Duration {
    let half = interval / 2;
    let whole = now.saturating_sub(half).as_nanos() / interval.as_nanos();
    let next = u32::try_from(whole.saturating_add(1)).ok().and_then(|steps| interval.checked_mul(steps));
    next.map_or(now.saturating_add(interval), |next| next.saturating_add(half))
}

/// An IPv4 address as the aggregator writes it, though the socket may speak IPv6.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn towards(address: SocketAddr, v6: bool) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if v6 => SocketAddr::from((ip.to_ipv6_mapped(), address.port())),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_lie_between_ticks() {
        let ms = Duration::from_millis;
        let second = ms(1000);
        for (now, next) in [(0, 1500), (499, 1500), (500, 1500), (1400, 1500), (1500, 2500), (1501, 2500)] {
            assert_eq!(between_ticks(ms(now), second), ms(next), "{now}");
        }
    }

    #[test]
    fn addresses_are_told_and_used_in_the_form_that_fits() {
        let v4: SocketAddr = "192.0.2.1:7444".parse().unwrap();
        assert_eq!(plain(towards(v4, true)), v4);
        assert!(towards(v4, true).is_ipv6() && towards(v4, false).is_ipv4());
        let v6: SocketAddr = "[2001:db8::1]:7444".parse().unwrap();
        assert_eq!((plain(v6), towards(v6, true)), (v6, v6));
    }
}
