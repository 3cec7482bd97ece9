//! The last so many values, oldest overwritten first.

use serde::{Deserialize, Serialize};

/// A bounded window of values in no particular order. Four bytes a value; never panics, whatever was restored
/// into it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ring {
    values: Vec<f32>,
    next: u16,
}

impl Ring {
    /// Adds a value; holds at most `limit`, growing in small blocks so that a young series is a small one.
    pub(crate) fn push(&mut self, value: f32, limit: u16) {
        const BLOCK: usize = 12;
        let limit = usize::from(limit.max(1));
        if self.values.len() < limit {
            if self.values.len() == self.values.capacity() {
                self.values.reserve_exact(BLOCK.min(limit - self.values.len()));
            }
            self.values.push(value);
        } else {
            let at = usize::from(self.next) % self.values.len();
            self.values[at] = value;
            self.next = ((at + 1) % self.values.len()) as u16;
        }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn clear(&mut self) {
        self.values.clear();
        self.next = 0;
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.values.capacity() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest() {
        let mut ring = Ring::default();
        for i in 0..25_u8 {
            ring.push(f32::from(i), 10);
        }
        let mut values = ring.values().to_vec();
        values.sort_by(f32::total_cmp);
        assert_eq!(values, (15..25_u8).map(f32::from).collect::<Vec<_>>());
        assert_eq!(ring.heap_bytes(), 40);
    }

    #[test]
    fn survives_a_damaged_state() {
        let mut ring = Ring { values: vec![1.0, 2.0], next: 60_000 };
        ring.push(3.0, 0);
        ring.push(4.0, 2);
        assert_eq!(ring.len(), 2);
    }
}
