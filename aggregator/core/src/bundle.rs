//! Groups that belong together leave a node together.
//!
//! A group that stands complete on one node may give away none of its members alone, so the search weighs what moving
//! all of it to one target gains. Two groups that share a guest are one *bundle*; every judgement of a member is then
//! one of the whole bundle: the gain and the price are those of all, memory has to suffice for all, and each filter
//! asks for every member.
//!
//! A node gives one guest away at a time, so a bundle bound by tags moves over several runs and stands split meanwhile.
//! What the next run has to know follows from the migrations alone, so it survives a restart: the members that are
//! left on a node follow the one that evenkeel itself moved away from there last, wherever it has moved it since, for
//! [`FOLLOW`]. A member that somebody else has moved since is followed by nobody, unless he did what was advised.
//!
//! A positive rule of HA moves its guests by itself as soon as one of them is moved (`dependent-ha-resources`): there one
//! decision is enough, and the others come along.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_common::decision::{Action, Decision, Mover, Verdict};
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;

use crate::pipeline::affinity::closed_to_all;
use crate::pipeline::improvement::too_full;
use crate::pipeline::{Advised, Context, Filter, Tags};
use crate::plan::{Planner, not_a_candidate};
use crate::repair::Rules;
use crate::score::fleet::NodeLoad;
use crate::snapshot::{HaRule, Move, PastMove, Snapshot, takes_part};

/// Members of a bundle at most. Each is a migration, and the group stands split until the last one has arrived.
const MAX_MEMBERS: usize = 16;

/// How long the rest of a group follows a member: long enough for the largest bundle over a slow network, short enough
/// that a group which can not follow is soon an ordinary split one.
const FOLLOW: Duration = Duration::from_secs(6 * 3600);

/// Running guests on one node that move as one.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Indices in the order in which they move. First what may move at all, then the largest: who comes last has the
    /// least room, and it should be the one that needs the least.
    pub members: Vec<usize>,
    /// Tags and HA rules that bind them.
    pub groups: Vec<String>,
    /// Who went ahead; `None` while the group is complete.
    pub follows: Option<Follows>,
    /// Members that an HA rule moves along with an earlier one: rule and that one.
    along: BTreeMap<usize, (String, usize)>,
}

impl Bundle {
    /// The rule that moves a member along with an earlier one, and that one.
    pub(crate) fn along(&self, member: usize) -> Option<&(String, usize)> {
        self.along.get(&member)
    }

    /// Members that HA moves along with this one.
    pub(crate) fn carried(&self, lead: usize) -> Vec<usize> {
        self.along.iter().filter(|(_, (_, first))| *first == lead).map(|(&member, _)| member).collect()
    }
}

/// Where the rest of a group follows to.
#[derive(Debug)]
pub(crate) struct Follows {
    /// The member that went ahead last.
    leader: usize,
    /// Its node.
    node: usize,
    /// All members that are there.
    ahead: Vec<usize>,
}

/// All bundles of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Bundles {
    all: Vec<Bundle>,
    /// Bundle of each guest.
    of: Vec<Option<usize>>,
    /// Guests that are where their group is on its way to.
    ahead: BTreeSet<usize>,
    /// Groups that are split and can not gather where they were to.
    pub stuck: Vec<Reason>,
}

/// A group while bundles are made: its names, its running members, and whether tags say so.
struct Group {
    names: Vec<String>,
    members: BTreeSet<usize>,
    tagged: bool,
}

impl Bundles {
    /// Those of a sorted snapshot whose own migrations under way are applied to it.
    pub(crate) fn of(snapshot: &Snapshot, tags: &[Tags], advised: &[Advised]) -> Self {
        let mut bundles = Self { of: vec![None; snapshot.guests.len()], ..Self::default() };
        for group in groups(snapshot, tags) {
            let mut by_node: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for &member in &group.members {
                let node = snapshot.node_index(&snapshot.guests[member].node).unwrap_or_default();
                by_node.entry(node).or_default().push(member);
            }
            if by_node.len() == 1 {
                let members = group.members.iter().copied().collect();
                bundles.add(snapshot, &group, members, None);
                continue;
            }
            // From a node that is not there nobody can follow.
            let there = |node: &&usize| takes_part(&snapshot.nodes[**node]);
            for &node in by_node.keys().filter(|_| group.tagged).filter(there) {
                bundles.follow(snapshot, advised, &group, node, &by_node);
            }
        }
        bundles
    }

    /// The members left on a node, if one went ahead that they may follow.
    fn follow(
        &mut self,
        snapshot: &Snapshot,
        advised: &[Advised],
        group: &Group,
        node: usize,
        by_node: &BTreeMap<usize, Vec<usize>>,
    ) {
        let members = &by_node[&node];
        let from = &snapshot.nodes[node].id;
        let ahead = |(&there, others): (&usize, &Vec<usize>)| {
            let to = &snapshot.nodes[there].id;
            let at = |guest| own_move(snapshot, advised, guest, from, to);
            let went = others.iter().filter_map(|&guest| Some((at(guest)?, guest, there)));
            went.max_by_key(|&(at, guest, _)| (at, Reverse(guest)))
        };
        let last = by_node.iter().filter_map(ahead).max_by_key(|&(at, guest, _)| (at, Reverse(guest)));
        let Some((at, leader, there)) = last else { return };
        // Who came here since was put here on purpose: then the group is not on its way any more.
        let came_since = |&guest: &usize| {
            arrivals(snapshot, snapshot.guests[guest].vmid).next_back().is_some_and(|past| past.at > at)
        };
        if members.iter().any(came_since) {
            return;
        }
        if let Some(why) = closed_to_all(&snapshot.nodes[there]) {
            self.stuck.push(stuck(snapshot, &group.names, members, there, why));
            return;
        }
        let ahead = by_node[&there].clone();
        self.ahead.extend(&ahead);
        self.add(snapshot, group, members.to_vec(), Some(Follows { leader, node: there, ahead }));
    }

    fn add(&mut self, snapshot: &Snapshot, group: &Group, mut members: Vec<usize>, follows: Option<Follows>) {
        let least = if follows.is_some() { 1 } else { 2 };
        if !(least..=MAX_MEMBERS).contains(&members.len()) {
            return;
        }
        members.sort_by_key(|&guest| {
            let state = &snapshot.guests[guest];
            (not_a_candidate(state).is_some(), Reverse(state.memory_max), guest)
        });
        let number = self.all.len();
        members.iter().for_each(|&guest| self.of[guest] = Some(number));
        let along = along(snapshot, &members);
        self.all.push(Bundle { members, groups: group.names.clone(), follows, along });
    }

    /// The bundle that a guest is of.
    pub(crate) fn bundle(&self, guest: usize) -> Option<&Bundle> {
        self.of.get(guest).copied().flatten().map(|number| &self.all[number])
    }

    /// Every guest that moves when this one does, itself included.
    pub(crate) fn unit<'a>(&'a self, guest: &'a usize) -> &'a [usize] {
        self.bundle(*guest).map_or(std::slice::from_ref(guest), |bundle| &bundle.members)
    }

    /// The node that a guest has to follow its group to.
    pub(crate) fn follows(&self, guest: usize) -> Option<usize> {
        self.bundle(guest)?.follows.as_ref().map(|follows| follows.node)
    }

    /// Bundles that are on their way.
    pub(crate) fn following(&self) -> impl Iterator<Item = &Bundle> {
        self.all.iter().filter(|bundle| bundle.follows.is_some())
    }

    /// Whether a guest's group is on its way.
    pub(crate) fn under_way(&self, guest: usize) -> bool {
        self.follows(guest).is_some() || self.ahead.contains(&guest)
    }
}

/// Groups by tag and by HA rule, those that share a guest as one.
fn groups(snapshot: &Snapshot, tags: &[Tags]) -> Vec<Group> {
    let mut by_tag: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (guest, tags) in tags.iter().enumerate().filter(|(guest, _)| snapshot.guests[*guest].running) {
        for tag in &tags.together {
            by_tag.entry(tag).or_default().insert(guest);
        }
    }
    let tagged = by_tag.into_iter().map(|(tag, members)| (tag, members, true));
    let ruled = snapshot.rules.iter().filter_map(|rule| match rule {
        HaRule::ResourceAffinity { rule, guests, together: true } => {
            Some((rule.as_str(), bound(snapshot, guests), false))
        }
        _ => None,
    });
    let mut groups: Vec<Group> = Vec::new();
    for (name, members, tagged) in tagged.chain(ruled).filter(|(_, members, _)| members.len() > 1) {
        let mut group = Group { names: vec![name.to_owned()], members, tagged };
        let mut apart = Vec::new();
        for other in groups {
            if other.members.is_disjoint(&group.members) {
                apart.push(other);
            } else {
                group.names.extend(other.names);
                group.members.extend(other.members);
                group.tagged |= other.tagged;
            }
        }
        group.names.sort();
        apart.push(group);
        groups = apart;
    }
    groups
}

/// Running guests of a rule that HA manages: others it does not bind.
fn bound(snapshot: &Snapshot, guests: &BTreeSet<Vmid>) -> BTreeSet<usize> {
    let index = |vmid: &Vmid| snapshot.guest_index(*vmid);
    let counts = |guest: &usize| {
        let state = &snapshot.guests[*guest];
        state.running && state.ha_state.is_some()
    };
    guests.iter().filter_map(index).filter(counts).collect()
}

/// Members that a positive HA rule moves along with an earlier member.
fn along(snapshot: &Snapshot, members: &[usize]) -> BTreeMap<usize, (String, usize)> {
    let mut along = BTreeMap::new();
    for rule in &snapshot.rules {
        let HaRule::ResourceAffinity { rule, guests, together: true } = rule else { continue };
        let bound = bound(snapshot, guests);
        let mut here = members.iter().filter(|member| bound.contains(member));
        let Some(&first) = here.next() else { continue };
        // Of two rules that overlap, the later one's first may come along with the earlier one's.
        let lead = along.get(&first).map_or(first, |(_, lead): &(String, usize)| *lead);
        for &member in here {
            along.entry(member).or_insert_with(|| (rule.clone(), lead));
        }
    }
    along
}

/// Successful moves of a guest, oldest first.
fn arrivals(snapshot: &Snapshot, guest: Vmid) -> impl DoubleEndedIterator<Item = &PastMove> {
    snapshot.history.iter().filter(move |past| past.guest == guest && past.ok)
}

/// When a guest came to a node, if evenkeel brought it there, or somebody by its advice, and away from another, not long
/// ago.
fn own_move(
    snapshot: &Snapshot,
    advised: &[Advised],
    guest: usize,
    from: &NodeId,
    to: &NodeId,
) -> Option<Timestamp> {
    let vmid = snapshot.guests[guest].vmid;
    let since = snapshot.at.before(FOLLOW);
    let flight = snapshot.in_flight.iter().find(|flight| flight.guest == vmid);
    let flown = flight.and_then(|flight| Some((&flight.from, flight.to.as_ref()?, snapshot.at, flight.by)));
    let past = arrivals(snapshot, vmid).rev().map(|past| (&past.from, &past.to, past.at, past.by));
    let by_advice = |source: &NodeId, target: &NodeId, at: Timestamp| {
        advised
            .iter()
            .any(|old| old.guest == vmid && old.source == *source && old.target == *target && old.at <= at)
    };
    let mut own = flown.into_iter().chain(past).take_while(|&(source, target, at, by)| {
        at > since && (by == Mover::Evenkeel || by_advice(source, target, at))
    });
    let (left, came, at, _) = own.next()?;
    (came == to && (left == from || own.any(|(left, ..)| left == from))).then_some(at)
}

fn vmids(snapshot: &Snapshot, guests: &[usize]) -> Vec<Vmid> {
    let mut vmids: Vec<_> = guests.iter().map(|&guest| snapshot.guests[guest].vmid).collect();
    vmids.sort_unstable();
    vmids
}

fn stuck(snapshot: &Snapshot, groups: &[String], guests: &[usize], target: usize, why: Reason) -> Reason {
    Reason::GroupStuck {
        groups: groups.to_vec(),
        guests: vmids(snapshot, guests),
        target: snapshot.nodes[target].id.clone(),
        why: Box::new(why),
    }
}

impl Bundle {
    /// What speaks for a move of one of its members: that all of them go, and whom HA takes along.
    pub(crate) fn evidence(&self, member: usize, snapshot: &Snapshot) -> Vec<Reason> {
        let (groups, guests) = (self.groups.clone(), vmids(snapshot, &self.members));
        let whole = match &self.follows {
            None => Reason::GroupMoves { groups, guests },
            Some(follows) => Reason::GroupFollows {
                groups,
                leader: snapshot.guests[follows.leader].vmid,
                target: snapshot.nodes[follows.node].id.clone(),
                guests,
            },
        };
        let along = vmids(snapshot, &self.carried(member));
        let along = (!along.is_empty()).then_some(Reason::HaTakesAlong { guests: along });
        std::iter::once(whole).chain(along).collect()
    }

    /// That no node has room for all of it.
    pub(crate) fn no_room(&self, snapshot: &Snapshot, memory: Bytes) -> Reason {
        let (groups, guests) = (self.groups.clone(), vmids(snapshot, &self.members));
        Reason::GroupNoRoom { groups, guests, memory }
    }
}

impl Planner<'_> {
    /// Moves of groups that a person is, or was lately, advised to make.
    pub(crate) fn advised(&self) -> Vec<Advised> {
        let (at, since) = (self.snapshot.at, self.snapshot.at.before(FOLLOW));
        let of_group = |decision: &&Decision| {
            let guest = self.snapshot.guest_index(decision.recommendation.guest);
            guest.is_some_and(|guest| self.facts.bundles.bundle(guest).is_some())
        };
        let left_to_people = self.decisions.iter().filter(|decision| decision.action == Action::Recommended);
        let now = left_to_people.filter(of_group).map(|Decision { recommendation: r, .. }| Advised {
            guest: r.guest,
            source: r.source.clone(),
            target: r.target.clone(),
            at,
        });
        let mut advised: Vec<_> = now.collect();
        let same =
            |a: &Advised, b: &Advised| (a.guest, &a.source, &a.target) == (b.guest, &b.source, &b.target);
        for old in self.memory.advised.iter().filter(|old| old.at > since) {
            if !advised.iter().any(|new| same(new, old)) {
                advised.push(old.clone());
            }
        }
        advised.sort();
        advised
    }
}

/// Source and target when a guest has moved, and whoever moves with it.
pub(crate) fn moved(rules: &Rules<'_>, guest: usize, target: usize) -> (NodeLoad, NodeLoad) {
    let fleet = rules.fleet;
    let begin = (fleet.nodes[fleet.place[guest]], fleet.nodes[target]);
    rules.facts.bundles.unit(&guest).iter().fold(begin, |(source, target), &member| {
        (source.without(&fleet.guests[member]), target.with(&fleet.guests[member]))
    })
}

/// The source of a move with those members still on it that went ahead: what a group on its way is to relieve is the node
/// as it was when it set out.
pub(crate) fn source_then(rules: &Rules<'_>, migration: &Move<'_>) -> NodeLoad {
    let source = rules.fleet.nodes[migration.source_index];
    let bundle = rules.facts.bundles.bundle(migration.guest_index);
    let ahead = bundle.and_then(|bundle| bundle.follows.as_ref()).map_or(&[][..], |follows| &follows.ahead);
    ahead.iter().fold(source, |source, &member| source.with(&rules.fleet.guests[member]))
}

/// Groups on their way that this run has found no way on for, each with the reason. Limits and gates are none: they pass.
pub(crate) fn stuck_now(planner: &Planner<'_>) -> Vec<Reason> {
    let (facts, fleet) = (&planner.facts, &planner.fleet);
    let reason = |bundle: &Bundle| {
        let target = bundle.follows.as_ref()?.node;
        let lead = bundle.members[0];
        if fleet.place[lead] == target {
            return None; // It goes on in this run, or as soon as a limit lets it.
        }
        let why = not_a_candidate(&planner.snapshot.guests[lead])
            .or_else(|| planner.held.get(&lead).map(|held| held.reason.clone()))
            .or_else(|| too_full(&planner.rules(), lead, target))
            .or_else(|| planner.best[lead].map(|best| planner.too_small(lead, best)))?;
        Some(stuck(&planner.snapshot, &bundle.groups, &bundle.members, target, why))
    };
    facts.bundles.following().filter_map(reason).collect()
}

/// What a filter answers to a move: of a bundle, the first objection to any of its members.
pub(crate) fn judge(filter: &dyn Filter, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
    let own = filter.judge(migration, context);
    let Some(bundle) = context.facts.bundles.bundle(migration.guest_index) else { return own };
    if own.objection().is_some() {
        return own;
    }
    let peers = bundle.members.iter().filter(|&&member| member != migration.guest_index);
    let objection = peers.filter_map(|&member| {
        let (source, target) = (migration.source_index, migration.target_index);
        let verdict = filter.judge(&context.snapshot.move_at(member, source, target), context);
        let held = |why: Reason| Reason::GroupHeld {
            groups: bundle.groups.clone(),
            guest: context.snapshot.guests[member].vmid,
            why: Box::new(why),
        };
        match verdict {
            Verdict::Filtered(why) => Some(Verdict::Filtered(held(why))),
            Verdict::Deferred(why) => Some(Verdict::Deferred(held(why))),
            Verdict::Pass(_) | Verdict::NotEnabled | Verdict::NotAsked => None,
        }
    });
    objection.into_iter().next().unwrap_or(own)
}
