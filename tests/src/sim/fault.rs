//! Faults on demand.

use std::str::FromStr;
use std::time::Duration;

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::{Timestamp, Window};

/// Something that goes wrong in a simulated cluster during a window of time.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The node's agent says nothing.
    Silent {
        /// Which node.
        node: NodeId,
        /// When.
        during: Window,
    },
    /// A guest wants all its vCPUs.
    Burst {
        /// Which guest.
        guest: Vmid,
        /// When.
        during: Window,
    },
    /// Something on the node itself, outside the guests, uses this share of its CPUs.
    HostLoad {
        /// Which node.
        node: NodeId,
        /// 0 to 1.
        share: f64,
        /// When.
        during: Window,
    },
    /// The way from and to the node is slow and loses probes.
    Link {
        /// Which node.
        node: NodeId,
        /// Milliseconds that a round trip takes longer.
        extra_ms: f64,
        /// Percent of probes without an answer.
        loss_percent: f64,
        /// When.
        during: Window,
    },
    /// A guest runs on, but its figures stop.
    Mute {
        /// Which guest.
        guest: Vmid,
        /// When.
        during: Window,
    },
    /// Something on the node itself takes memory and gives none back until it is restarted.
    Leak {
        /// Which node.
        node: NodeId,
        /// How fast.
        gib_per_hour: f64,
        /// When; at its end all of it is given back.
        during: Window,
    },
    /// The node backs up its guests at the same time every day: disks are read, much is sent, CPUs wait a little.
    Backup {
        /// Which node.
        node: NodeId,
        /// The first one; the others follow a day apart, each up to two minutes late.
        first: Window,
    },
    /// The Proxmox API fails every request.
    Api {
        /// How.
        answer: Answer,
        /// When.
        during: Window,
    },
}

/// A fault as a person orders it: what, and when after the start of the lab.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    what: What,
    after: Duration,
    lasts: Duration,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Silent(NodeId),
    Burst(Vmid),
    Mute(Vmid),
    HostLoad(NodeId),
    Link(NodeId, f64, f64),
    Leak(NodeId, f64),
    Backup(NodeId),
    Api(Answer),
}

/// How the Proxmox API fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 401: the token is gone.
    Unauthorized,
    /// 500.
    Internal,
    /// 200 with empty lists: the privileges are gone.
    Empty,
}

/// What an order may look like.
pub const ORDERS: &str = "silent:NODE, burst:VMID, mute:VMID, load:NODE, link:NODE:MS:LOSS, leak:NODE:GIB_PER_HOUR, backup:NODE (every \
                          day from then on), api:401, api:500 or api:empty, each followed by \
                          @START+LENGTH in seconds after the start, as in silent:pve5@120+60";

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no fault; expected {ORDERS}");
        let (what, when) = text.split_once('@').ok_or_else(bad)?;
        let (after, lasts) = when.split_once('+').ok_or_else(bad)?;
        let seconds = |digits: &str| digits.parse().map(Duration::from_secs).map_err(|_| bad());
        let node = |name: &str| name.parse().map_err(|_| bad());
        let within =
            |text: &str, most: f64| text.parse().ok().filter(|n| (0.0..=most).contains(n)).ok_or_else(bad);
        let what = match what.split_once(':').ok_or_else(bad)? {
            ("silent", name) => What::Silent(node(name)?),
            ("load", name) => What::HostLoad(node(name)?),
            ("mute", vmid) => What::Mute(vmid.parse().map_err(|_| bad())?),
            ("burst", vmid) => What::Burst(vmid.parse().map_err(|_| bad())?),
            ("link", how) => {
                let [name, ms, loss] = how.split(':').collect::<Vec<_>>()[..] else { return Err(bad()) };
                What::Link(node(name)?, within(ms, 60_000.0)?, within(loss, 100.0)?)
            }
            ("leak", how) => {
                let (name, speed) = how.split_once(':').ok_or_else(bad)?;
                What::Leak(node(name)?, within(speed, 1024.0)?)
            }
            ("backup", name) => What::Backup(node(name)?),
            ("api", "401") => What::Api(Answer::Unauthorized),
            ("api", "500") => What::Api(Answer::Internal),
            ("api", "empty") => What::Api(Answer::Empty),
            _ => return Err(bad()),
        };
        Ok(Self { what, after: seconds(after)?, lasts: seconds(lasts)? })
    }
}

impl Order {
    /// The fault in a lab that started then.
    #[must_use]
    pub fn placed(&self, start: Timestamp) -> Fault {
        let from = start.after(self.after);
        let during = Window { from, to: from.after(self.lasts) };
        match &self.what {
            What::Silent(node) => Fault::Silent { node: node.clone(), during },
            What::Burst(guest) => Fault::Burst { guest: *guest, during },
            What::Mute(guest) => Fault::Mute { guest: *guest, during },
            What::HostLoad(node) => Fault::HostLoad { node: node.clone(), share: 0.6, during },
            What::Link(node, extra_ms, loss_percent) => {
                Fault::Link { node: node.clone(), extra_ms: *extra_ms, loss_percent: *loss_percent, during }
            }
            What::Leak(node, speed) => Fault::Leak { node: node.clone(), gib_per_hour: *speed, during },
            What::Backup(node) => Fault::Backup { node: node.clone(), first: during },
            What::Api(answer) => Fault::Api { answer: *answer, during },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_and_bad_ones_are_explained() {
        let order: Order = "silent:pve5@120+60".parse().unwrap();
        let during = Window { from: Timestamp::from_millis(121_000), to: Timestamp::from_millis(181_000) };
        let node = NodeId::new("pve5").unwrap();
        assert_eq!(order.placed(Timestamp::from_millis(1_000)), Fault::Silent { node, during });
        let link: Order = "link:pve2:20:5@0+10".parse().unwrap();
        assert!(matches!(
            link.placed(Timestamp::from_millis(0)),
            Fault::Link { extra_ms: 20.0, loss_percent: 5.0, .. }
        ));
        let leak: Order = "leak:pve2:6.5@0+10".parse().unwrap();
        assert!(matches!(leak.placed(Timestamp::from_millis(0)), Fault::Leak { gib_per_hour: 6.5, .. }));
        for bad in [
            "leak:pve2@1+1",
            "leak:pve2:-1@1+1",
            "link:pve2@1+1",
            "link:pve2:1:101@1+1",
            "link:pve2:NaN:1@1+1",
            "",
            "silent:pve5",
            "silent:pve5@120",
            "api:404@1+1",
            "burst:7@1+1",
            "load:pve1@a+1",
        ] {
            assert!(bad.parse::<Order>().unwrap_err().contains("silent:pve5@120+60"), "{bad}");
        }
    }
}
