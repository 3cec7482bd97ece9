//! Whether the cluster can lose a node: would the guests that run on it find memory on the rest.
//!
//! CPU stretches, memory does not. The reserve is for such a day, so it may be used up. Guests are placed the largest
//! first, each on the fullest node that still has room, so that the large gaps stay. What is placed that way fits for
//! certain; what is not might fit in some other order.

use super::fleet::Fleet;

/// Guests of a node that would find no memory if it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stranded {
    pub guests: u32,
    /// What they need, in bytes.
    pub memory: f64,
}

/// A cluster with these guests on a target, wherever they are now.
#[derive(Clone, Copy)]
pub(crate) struct Supposed<'a> {
    fleet: &'a Fleet,
    unit: &'a [usize],
    target: usize,
}

impl<'a> Supposed<'a> {
    /// The cluster as it is.
    pub(crate) const fn as_is(fleet: &'a Fleet) -> Self {
        Self { fleet, unit: &[], target: 0 }
    }

    pub(crate) const fn moved(fleet: &'a Fleet, unit: &'a [usize], target: usize) -> Self {
        Self { fleet, unit, target }
    }

    /// What each node's failure would strand, by index.
    pub(crate) fn stranded(&self) -> Vec<Stranded> {
        let nodes = &self.fleet.nodes;
        let mut free: Vec<f64> = nodes.iter().map(|node| node.memory - node.memory_used).collect();
        for &guest in self.unit {
            let memory = self.fleet.guests[guest].memory;
            free[self.fleet.place[guest]] += memory;
            free[self.target] -= memory;
        }
        let mut needs = vec![Needs::default(); nodes.len()];
        for (guest, predicted) in self.fleet.guests.iter().enumerate() {
            needs[self.place(guest)].add(predicted.memory);
        }
        (0..nodes.len()).map(|failed| self.without(failed, &free, needs[failed])).collect()
    }

    fn place(&self, guest: usize) -> usize {
        if self.unit.contains(&guest) { self.target } else { self.fleet.place[guest] }
    }

    fn without(&self, failed: usize, free: &[f64], needs: Needs) -> Stranded {
        let nodes = self.fleet.nodes.iter().enumerate();
        let refuges = nodes.filter(|&(node, load)| node != failed && load.takes && free[node] > 0.0);
        let mut refuges: Vec<f64> = refuges.map(|(node, _)| free[node]).collect();
        #[allow(clippy::cast_precision_loss)] // Far below 2^53.
        let count = refuges.len() as f64;
        // As long as none of them has room for the largest guest, less than that is free on each: so this is enough.
        if refuges.iter().sum::<f64>() >= needs.sum + count * needs.largest {
            return Stranded::default();
        }
        let here = (0..self.fleet.guests.len()).filter(|&guest| self.place(guest) == failed);
        let mut memory: Vec<f64> = here.map(|guest| self.fleet.guests[guest].memory).collect();
        memory.sort_by(|a, b| b.total_cmp(a));
        let mut stranded = Stranded::default();
        for need in memory.into_iter().filter(|&need| need > 0.0) {
            let room = refuges.iter_mut().filter(|free| **free >= need);
            match room.min_by(|a, b| a.total_cmp(b)) {
                Some(free) => *free -= need,
                None => stranded.add(need),
            }
        }
        stranded
    }
}

impl Stranded {
    fn add(&mut self, memory: f64) {
        self.guests += 1;
        self.memory += memory;
    }
}

/// Memory that the guests of a node need, in bytes.
#[derive(Clone, Copy, Default)]
struct Needs {
    sum: f64,
    largest: f64,
}

impl Needs {
    fn add(&mut self, memory: f64) {
        self.sum += memory;
        self.largest = self.largest.max(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::policy::Policy;

    const GIB: f64 = 1_073_741_824.0;

    /// Guests and GiB that the failure of each node would strand, with a guest elsewhere if so asked.
    fn stranded(fleet: &str, moved: Option<(usize, usize)>) -> Vec<(u32, f64)> {
        let fleet = Fleet::of(&fixture::snapshot(fleet).sorted(), &Policy::default());
        let unit: Vec<usize> = moved.iter().map(|&(guest, _)| guest).collect();
        let supposed = Supposed::moved(&fleet, &unit, moved.map_or(0, |(_, target)| target));
        supposed.stranded().iter().map(|s| (s.guests, (s.memory / GIB).round())).collect()
    }

    #[test]
    fn what_fits_is_covered_and_what_does_not_is_counted() {
        let roomy = "pve1 ram=64 | 101 mem=20 | 102 mem=8\npve2 ram=64 | 103 mem=8\npve3 ram=64";
        assert_eq!(stranded(roomy, None), [(0, 0.0); 3]);
        let tight =
            "pve1 ram=64 | 101 mem=40 | 102 mem=8\npve2 ram=64 | 103 mem=30\npve3 ram=64 | 104 mem=30";
        assert_eq!(stranded(tight, None), [(1, 40.0), (0, 0.0), (0, 0.0)], "no gap of 40 GiB is left");
    }

    #[test]
    fn the_largest_go_first_and_into_the_smallest_gap_that_holds_them() {
        // Gaps of 20 and 30 GiB for 30, 12 and 8: only in this order all of them fit.
        let fleet = "pve1 ram=64 | 101 mem=8 | 102 mem=12 | 103 mem=30\npve2 ram=64 | 104 mem=42\npve3 ram=64 | 105 mem=32";
        assert_eq!(stranded(fleet, None)[0], (0, 0.0));
    }

    #[test]
    fn a_move_is_supposed_without_being_made() {
        let fleet = "pve1 ram=64 | 101 mem=30\npve2 ram=64 | 102 mem=30\npve3 ram=64";
        assert_eq!(stranded(fleet, None), [(0, 0.0); 3]);
        // Both on one node: should it fail, one of them still finds pve1 and the other pve3.
        assert_eq!(stranded(fleet, Some((0, 1))), [(0, 0.0); 3]);
        let two = "pve1 ram=64 | 101 mem=30 | 103 mem=20\npve2 ram=64 | 102 mem=10";
        assert_eq!(stranded(two, None), [(0, 0.0), (0, 0.0)]);
        assert_eq!(
            stranded("pve1 ram=64 | 101 mem=40\npve2 ram=64 | 102 mem=40", None),
            [(1, 40.0), (1, 40.0)]
        );
    }

    #[test]
    fn no_refuge_is_one_that_takes_no_guests_and_who_does_not_run_needs_none() {
        assert_eq!(stranded("pve1 | 101 mem=8\npve2 maintenance", None)[0], (1, 8.0));
        assert_eq!(stranded("pve1 | 101 mem=8 stopped\npve2 maintenance", None)[0], (0, 0.0));
    }
}
