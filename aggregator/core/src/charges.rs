//! What single guests add to nodes and take off them, in points, kept for as long as a node stays as it is.
//!
//! The search asks the same of every guest and node again and again, and a planned move changes two nodes only.

use std::cell::Cell;

use crate::score::fleet::Fleet;
use crate::score::strain;

/// By guest and node; what is not known is no number.
pub(crate) struct Charges {
    nodes: Vec<Cell<f64>>,
    with: Vec<Cell<f64>>,
}

impl Charges {
    /// Of a cluster of which nothing is known yet.
    pub(crate) fn of(fleet: &Fleet) -> Self {
        let unknown = |count| vec![Cell::new(f64::NAN); count];
        Self { nodes: unknown(fleet.nodes.len()), with: unknown(fleet.nodes.len() * fleet.guests.len()) }
    }

    /// What its source gains when a guest leaves.
    pub(crate) fn relief(&self, fleet: &Fleet, guest: usize) -> f64 {
        let source = fleet.place[guest];
        let left = || strain(&fleet.nodes[source].without(&fleet.guests[guest]));
        self.now(fleet, source) - self.then(guest, source, left)
    }

    /// What a target gains when a guest comes; as a rule below zero.
    pub(crate) fn charge(&self, fleet: &Fleet, guest: usize, target: usize) -> f64 {
        let joined = || strain(&fleet.nodes[target].with(&fleet.guests[guest]));
        self.now(fleet, target) - self.then(guest, target, joined)
    }

    /// A node has changed.
    pub(crate) fn forget(&self, node: usize) {
        self.nodes[node].set(f64::NAN);
        self.with.iter().skip(node).step_by(self.nodes.len()).for_each(|known| known.set(f64::NAN));
    }

    fn now(&self, fleet: &Fleet, node: usize) -> f64 {
        known(&self.nodes[node], || strain(&fleet.nodes[node]))
    }

    /// A node's strain with a guest that comes, or without one that leaves.
    fn then(&self, guest: usize, node: usize, strain: impl Fn() -> f64) -> f64 {
        known(&self.with[guest * self.nodes.len() + node], strain)
    }
}

fn known(cell: &Cell<f64>, value: impl Fn() -> f64) -> f64 {
    if cell.get().is_nan() {
        cell.set(value());
    }
    cell.get()
}
