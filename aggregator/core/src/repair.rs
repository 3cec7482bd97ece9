//! Rules that the cluster breaks as it stands, and what a move would repair.
//!
//! On a calm cluster that is done only where `enforce_rules` asks for it: elsewhere it waits until guests move anyway,
//! and is told.
//!
//! Only tags: what breaks a rule of HA is put right by the HA manager, and two repairers would chase guests around.
//! Broken is counted in pairs: two members of an anti-affinity group on one node, two of an affinity group on two, a
//! pinned guest elsewhere. So the move that ends most of it is worth most, and the fewest moves are made.

use evenkeel_common::reason::Reason;

use crate::pipeline::Facts;
use crate::score::fleet::Fleet;
use crate::snapshot::Snapshot;

/// Points for each pair that is put right: enough to pay for any move, whatever the load.
const POINTS: f64 = 20.0;

/// What tags say about a guest, on a cluster whose guests are where `fleet` has them.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub snapshot: &'a Snapshot,
    pub facts: &'a Facts,
    pub fleet: &'a Fleet,
}

impl Rules<'_> {
    /// Points that moving a guest, and who moves with it, to a target puts right. What a move would break is the affinity
    /// filter's to forbid.
    pub(crate) fn gain(&self, guest: usize, target: usize) -> f64 {
        self.gain_of(guest, self.wrong(guest), target)
    }

    /// The same where it is known how many pairs are broken now.
    pub(crate) fn gain_of(&self, guest: usize, wrong: u32, target: usize) -> f64 {
        if wrong == 0 {
            return 0.0;
        }
        let unit = self.facts.bundles.unit(&guest);
        let after: u32 = unit.iter().map(|&member| self.broken_beside(member, target, unit)).sum();
        POINTS * f64::from(wrong.saturating_sub(after))
    }

    /// Broken pairs of a guest, and who moves with it, with others.
    pub(crate) fn wrong(&self, guest: usize) -> u32 {
        let unit = self.facts.bundles.unit(&guest);
        unit.iter().map(|&member| self.broken_beside(member, self.fleet.place[member], unit)).sum()
    }

    /// Whether a guest breaks a rule where it is.
    pub(crate) fn breaks(&self, guest: usize) -> bool {
        self.snapshot.guests[guest].running && self.broken(guest, self.fleet.place[guest]) > 0
    }

    /// Whether any guest does that may be moved at all.
    pub(crate) fn any_broken(&self) -> bool {
        self.movable().next().is_some()
    }

    /// Every broken rule once, with the guests that break it.
    pub(crate) fn warnings(&self) -> Vec<Reason> {
        let mut warnings = Vec::new();
        // What is on its way is not broken; where it can not go on, that is told by itself.
        let settled = |guest: &usize| !self.facts.bundles.under_way(*guest);
        for guest in self.movable().filter(settled) {
            for reason in self.told(guest) {
                let Reason::RuleBroken { tag, node, mut peers } = reason else { continue };
                peers.push(self.snapshot.guests[guest].vmid);
                peers.sort_unstable();
                let warning = Reason::RuleBroken { tag, node, peers };
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
        warnings
    }

    fn movable(&self) -> impl Iterator<Item = usize> {
        let guests = 0..self.fleet.place.len();
        guests.filter(|&guest| self.facts.tags[guest].ignore.is_none() && self.breaks(guest))
    }

    /// Points of all that is broken.
    pub(crate) fn points(&self) -> f64 {
        let of = |guest: usize| {
            let at = self.fleet.place[guest];
            let alone = u32::from(self.misplaced(guest, at));
            // A pair has two ends.
            f64::from(alone) + f64::from(self.broken(guest, at) - alone) / 2.0
        };
        let running = (0..self.fleet.place.len()).filter(|&guest| self.snapshot.guests[guest].running);
        POINTS * running.map(of).sum::<f64>()
    }

    /// Every rule that a guest breaks where it is.
    pub(crate) fn told(&self, guest: usize) -> Vec<Reason> {
        let tags = &self.facts.tags[guest];
        let at = self.fleet.place[guest];
        let node = &self.snapshot.nodes[at].id;
        let told = |tag: &str, peers: Vec<usize>| Reason::RuleBroken {
            tag: tag.to_owned(),
            node: node.clone(),
            peers: peers.into_iter().map(|peer| self.snapshot.guests[peer].vmid).collect(),
        };
        let apart = tags.apart.iter().map(|group| (group, self.peers(guest, group, |place| place == at)));
        let together =
            tags.together.iter().map(|group| (group, self.peers(guest, group, |place| place != at)));
        let groups = apart.chain(together).filter(|(_, peers)| !peers.is_empty());
        let mut reasons: Vec<_> = groups.map(|(group, peers)| told(group, peers)).collect();
        if self.misplaced(guest, at) {
            reasons.extend(tags.pin_tags.iter().map(|tag| told(tag, Vec::new())));
        }
        reasons
    }

    /// Pairs that would be broken with the guest on a node.
    fn broken(&self, guest: usize, node: usize) -> u32 {
        self.broken_beside(guest, node, &[])
    }

    /// The same without pairs among these: they go on being as near to each other as they are.
    fn broken_beside(&self, guest: usize, node: usize, unit: &[usize]) -> u32 {
        let near = &self.facts.near[guest];
        let at = |peer: &&usize| self.fleet.place[**peer] == node;
        let others = |peers: &'_ [usize], wanted: &dyn Fn(&&usize) -> bool| {
            peers.iter().filter(|peer| wanted(peer) && !unit.contains(peer)).count()
        };
        let pairs = others(&near.apart, &at) + others(&near.together, &|peer| !at(peer));
        u32::try_from(pairs + usize::from(self.misplaced(guest, node))).unwrap_or(u32::MAX)
    }

    /// A pin that names no node of the cluster can not be kept anywhere, so nothing mends it.
    fn misplaced(&self, guest: usize, node: usize) -> bool {
        let pins = &self.facts.tags[guest].pins;
        !pins.is_empty() && !pins.contains(&self.snapshot.nodes[node].id)
    }

    /// Running members of a group, the guest left out, whose node is as asked.
    fn peers(&self, guest: usize, group: &str, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        let members = self.facts.groups.get(group).into_iter().flatten().copied();
        members
            .filter(|&peer| {
                peer != guest && self.snapshot.guests[peer].running && wanted(self.fleet.place[peer])
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Explained, Memory, Policy, explain, fixture};

    fn run(fleet: &str) -> Explained {
        let policy = Policy { enforce_rules: true, ..Policy::default() };
        explain(&fixture::snapshot(fleet), &policy, &Memory::default())
    }

    /// Accepted moves, and the first line of their evidence.
    fn moves(fleet: &str) -> Vec<String> {
        let decisions = run(fleet).run.decisions;
        let made = decisions.iter().filter(|d| d.action.is_accepted());
        made.map(|d| {
            let r = &d.recommendation;
            format!("{} {}->{}: {}", r.guest, r.source, r.target, r.evidence[0])
        })
        .collect()
    }

    #[test]
    fn two_that_stay_apart_are_parted_on_a_calm_cluster() {
        assert_eq!(
            moves(
                "pve1 | 101 tags=evenkeel-anti-db mem=8 | 102 tags=evenkeel-anti-db mem=4\npve2 | 103\npve3 | 104 tags=evenkeel-anti-db"
            ),
            ["102 pve1->pve2: tag evenkeel-anti-db is not kept on pve1 (guest 101)"]
        );
    }

    #[test]
    fn a_stray_comes_to_its_group_and_not_the_group_to_it() {
        assert_eq!(
            moves("pve1 | 101 tags=affinity_web | 102 tags=affinity_web\npve2 | 103 tags=affinity_web\npve3"),
            ["103 pve2->pve1: tag affinity_web is not kept on pve2 (guest 101, 102)"]
        );
    }

    #[test]
    fn a_pinned_guest_goes_where_it_belongs() {
        assert_eq!(
            moves("pve1 | 101 tags=plb_pin_pve3\npve2 | 102\npve3"),
            ["101 pve1->pve3: tag plb_pin_pve3 is not kept on pve1"]
        );
    }

    #[test]
    fn a_calm_cluster_only_tells_unless_it_is_asked_to_enforce() {
        let fleet = "pve1 | 101 tags=evenkeel-anti-db | 102 tags=evenkeel-anti-db\npve2 | 103";
        let run = explain(&fixture::snapshot(fleet), &Policy::default(), &Memory::default()).run;
        assert_eq!((run.suppressed.map(|r| r.code()), run.decisions.len()), (Some("converged"), 0));
        let told: Vec<_> = run.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["tag evenkeel-anti-db is not kept on pve1 (guest 101, 102)"]);
    }

    #[test]
    fn what_can_not_be_mended_is_left_as_it_is() {
        for fleet in [
            "pve1 | 101 tags=evenkeel-pin-pve9\npve2 | 102",
            "pve1 | 101 tags=evenkeel-anti-a | 102 tags=evenkeel-anti-a\npve2 | 103 tags=evenkeel-anti-a",
            "pve1 | 101 tags=ignore,evenkeel-anti-a | 102 tags=ignore,evenkeel-anti-a\npve2 | 103",
            "pve1 | 101 tags=evenkeel-anti-a | 102 tags=evenkeel-anti-a stopped\npve2 | 103",
        ] {
            assert_eq!(moves(fleet), Vec::<String>::new(), "{fleet}");
        }
    }
}
