//! Network use of a guest, from the host's ends of its NICs: `tap<vmid>i<n>` (qemu), `veth<vmid>i<n>` (lxc).
//!
//! The host sees the other end: what it transmits, the guest receives. The firewall's `fwbr`, `fwpr` and
//! `fwln` interfaces carry the same bytes once more and are left out.

use evenkeel_common::id::Vmid;

use super::parse::number;
use super::round::{Counter, Now};

/// Most NICs of a guest that are told apart; Proxmox allows 32.
const MAX_NICS: usize = 64;

/// Counters of one NIC of a guest, from the guest's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GuestNic {
    /// Whose.
    pub(crate) vmid: Vmid,
    /// The `n` of `netN` in its configuration.
    pub(crate) index: u64,
    /// Bytes the guest received.
    pub(crate) received: u64,
    /// Bytes the guest sent.
    pub(crate) sent: u64,
}

/// Guest and number of the NIC, if the name is that of a guest's NIC.
pub(super) fn parse_name(name: &[u8]) -> Option<(Vmid, u64)> {
    let rest = name.strip_prefix(b"tap").or_else(|| name.strip_prefix(b"veth"))?;
    let split = rest.iter().position(|&byte| byte == b'i')?;
    let vmid = u32::try_from(number(&rest[..split])?).ok()?;
    Some((Vmid::new(vmid).ok()?, number(&rest[split + 1..])?))
}

/// The NICs of one guest: `(index, received, sent)`.
#[derive(Debug, Default)]
pub(crate) struct GuestNet {
    nics: Vec<(u64, Counter, Counter)>,
}

impl GuestNet {
    /// Bytes a second received and sent over all NICs. `all`: the NICs of all guests, ascending.
    /// `None` when the guest has none, one is listed twice, or one of them just appeared: a sum of some is
    /// no sum.
    pub(crate) fn rates(&mut self, now: &Now, vmid: Vmid, all: &[GuestNic]) -> Option<(f64, f64)> {
        let from = all.partition_point(|nic| nic.vmid < vmid);
        let own = &all[from..from + all[from..].partition_point(|nic| nic.vmid == vmid)];
        if own.is_empty() || own.len() > MAX_NICS || own.windows(2).any(|pair| pair[0].index == pair[1].index)
        {
            self.nics.clear();
            return None;
        }
        self.nics.retain(|(index, ..)| own.iter().any(|nic| nic.index == *index));
        let mut sum = Some((0.0, 0.0));
        for nic in own {
            let place = self.nics.iter().position(|(index, ..)| *index == nic.index).unwrap_or_else(|| {
                self.nics.push((nic.index, Counter::default(), Counter::default()));
                self.nics.len() - 1
            });
            let (_, received, sent) = &mut self.nics[place];
            let rates = received.rate(now, nic.received).zip(sent.rate(now, nic.sent));
            sum = sum.zip(rates).map(|(sum, rate)| (sum.0 + rate.0, sum.1 + rate.1));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::time::Timestamp;
    use proptest::prelude::*;
    use std::time::Duration;

    fn vmid(n: u32) -> Vmid {
        Vmid::new(n).unwrap()
    }

    #[test]
    fn only_guests_nics_have_guests() {
        assert_eq!(parse_name(b"tap100i0"), Some((vmid(100), 0)));
        assert_eq!(parse_name(b"veth300i12"), Some((vmid(300), 12)));
        for other in [
            "tap0",
            "tap99i0",
            "veth1a2b",
            "tapi0",
            "tap100i",
            "fwpr100p0",
            "fwbr100i0",
            "tap100i-1",
            "tap4294967396i0",
        ] {
            assert_eq!(parse_name(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn nics_are_summed_and_a_new_one_starts_over() {
        let mut net = GuestNet::default();
        let nic = |id, index, received, sent| GuestNic { vmid: vmid(id), index, received, sent };
        let mut round = 0;
        let mut read = |nics: &[GuestNic]| {
            round += 1;
            let elapsed_s = (round > 1).then_some(2.0);
            let now =
                Now { at: Timestamp::default(), uptime: Duration::from_secs(round * 2), round, elapsed_s };
            net.rates(&now, vmid(100), nics)
        };
        let stranger = nic(101, 0, 7, 7);
        assert_eq!(read(&[nic(100, 0, 10, 100), stranger]), None);
        assert_eq!(read(&[nic(100, 0, 30, 300), stranger]), Some((10.0, 100.0)));
        assert_eq!(read(&[nic(100, 0, 50, 500), nic(100, 1, 9000, 9000), stranger]), None);
        assert_eq!(read(&[nic(100, 0, 70, 700), nic(100, 1, 9002, 9004), stranger]), Some((11.0, 102.0)));
        assert_eq!(read(&[nic(100, 0, 90, 900), stranger]), Some((10.0, 100.0)));
        assert_eq!(read(&[nic(100, 0, 90, 900), nic(100, 0, 91, 901)]), None);
        assert_eq!(read(&[stranger]), None);
        assert_eq!(read(&[nic(100, 0, 5, 5)]), None);
        assert_eq!(read(&[nic(100, 0, 4, 9)]), None);
    }

    proptest! {
        #[test]
        fn any_name_is_survived(name: Vec<u8>) {
            let _ = (parse_name(&name), parse_name(&[b"tap1", name.as_slice()].concat()));
        }
    }
}
