//! Something for each host, of a bounded number of hosts: a file with a new name on every line must not fill memory.

use std::collections::BTreeMap;

/// Most hosts told apart in one look. A record of a further one is left out, and counted.
pub const MOST_HOSTS: usize = 10_000;

/// Something for each host.
#[derive(Clone, Debug, Default)]
pub struct Hosts<T> {
    by_name: BTreeMap<String, T>,
    /// Records of hosts beyond [`MOST_HOSTS`].
    pub left_out: u64,
}

impl<T: Default> Hosts<T> {
    /// What there is for a host, new where it is new; `None` beyond the bound.
    pub fn of(&mut self, host: &str) -> Option<&mut T> {
        if !self.by_name.contains_key(host) {
            if self.by_name.len() >= MOST_HOSTS {
                self.left_out += 1;
                return None;
            }
            self.by_name.insert(host.to_owned(), T::default());
        }
        self.by_name.get_mut(host)
    }

    /// Number of hosts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.by_name.iter().map(|(name, value)| (name.as_str(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_beyond_the_bound_are_counted() {
        let mut hosts = Hosts::<u64>::default();
        for n in 0..MOST_HOSTS + 5 {
            hosts.of(&format!("h{n}")).into_iter().for_each(|count| *count += 1);
        }
        *hosts.of("h0").unwrap() += 1;
        assert_eq!((hosts.len(), hosts.left_out), (MOST_HOSTS, 5));
        assert_eq!(hosts.iter().map(|(_, count)| count).sum::<u64>(), MOST_HOSTS as u64 + 1);
    }
}
