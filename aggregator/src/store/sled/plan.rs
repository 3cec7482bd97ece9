//! From a batch to what sled is to do: bounds checked, values packed, large ones written ahead in chunks.

use std::collections::BTreeMap;

use super::chunks::{self, Head};
use super::engine::Engine;
use crate::store::envelope::{self, Body, Packed};
use crate::store::error::StoreError;
use crate::store::tree::{Batch, TreeId};
use crate::store::{Codec, INLINE_MAX, MAX_BATCH, MAX_KEY, ROW_OVERHEAD};

/// A batch in the form it is stored: by full key, the row's payload or nothing.
pub(super) type Layout = BTreeMap<Vec<u8>, (TreeId, Option<Packed>)>;

/// A key with the first byte of its tree.
pub(super) fn full_key(tree: TreeId, key: &[u8]) -> Vec<u8> {
    [&[tree.prefix], key].concat()
}

/// Checks the bounds and packs the values; of two changes to one key the later stays.
pub(super) fn lay_out(batch: Batch) -> Result<Layout, StoreError> {
    let mut layout = Layout::new();
    for change in batch.into_changes() {
        let tree = change.tree.name;
        if change.key.len() > MAX_KEY {
            return Err(StoreError::KeyTooLong { tree, bytes: change.key.len(), limit: MAX_KEY });
        }
        let value = match change.value {
            Some(value) if value.len() > envelope::MAX_VALUE => {
                let limit = envelope::MAX_VALUE;
                return Err(StoreError::ValueTooLarge { tree, bytes: value.len(), limit });
            }
            Some(value) => Some(envelope::pack(change.tree.codec, &value)),
            None => None,
        };
        layout.insert(full_key(change.tree, &change.key), (change.tree, value));
    }
    let size = |(key, (_, value)): (&Vec<u8>, &(TreeId, Option<Packed>))| {
        let value = value.as_ref().map_or(0, |packed| packed.bytes.len());
        key.len() + ROW_OVERHEAD + if value > INLINE_MAX { 0 } else { value }
    };
    // A batch is held in memory whole and must fit well into one log segment of 512 KiB.
    let bytes = layout.iter().map(size).sum();
    if bytes > MAX_BATCH {
        return Err(StoreError::BatchTooLarge { bytes, rows: layout.len(), limit: MAX_BATCH });
    }
    Ok(layout)
}

/// What a batch will do, with its chunks already written.
#[derive(Default)]
pub(super) struct Plan {
    /// Changes to rows of trees.
    pub(super) rows: Vec<PlannedRow>,
    /// Changes to orphan rows; the rows above join them.
    pub(super) batch: ::sled::Batch,
    /// Chunks to sweep afterwards.
    pub(super) replaced: Vec<u64>,
}

/// One row of a tree.
pub(super) struct PlannedRow {
    /// First byte of the tree, and key.
    pub(super) key: Vec<u8>,
    /// Row before.
    pub(super) old: Option<::sled::IVec>,
    /// Row after.
    pub(super) new: Option<Vec<u8>>,
}

/// Finds out what a batch replaces, and writes the chunks of its large values.
pub(super) fn prepare(
    engine: &Engine,
    layout: Layout,
    next_generation: &mut u64,
) -> Result<Plan, StoreError> {
    let mut plan = Plan::default();
    for (key, (tree, value)) in layout {
        let old = engine.read(|db| db.get(&key))?;
        if let Some(generation) = old.as_ref().and_then(|row| generation_of(&key, row)) {
            plan.replaced.push(generation);
            plan.batch.insert(chunks::orphan_key(generation), &[]);
        }
        let bare = key.get(1..).unwrap_or_default();
        let new = match value {
            None => None,
            Some(packed) if packed.bytes.len() <= INLINE_MAX => {
                Some(envelope::seal(tree.prefix, bare, &packed))
            }
            Some(packed) => {
                let generation = *next_generation;
                *next_generation += 1;
                let head = chunks::write(engine, generation, &packed)?;
                plan.batch.remove(chunks::orphan_key(generation));
                Some(envelope::seal_head(tree.prefix, bare, &head.to_bytes()))
            }
        };
        plan.rows.push(PlannedRow { key, old, new });
    }
    Ok(plan)
}

/// The chunks that a row refers to, if it is a head row.
fn generation_of(full_key: &[u8], row: &[u8]) -> Option<u64> {
    let (&prefix, key) = full_key.split_first()?;
    // Whatever the codec: only heads matter here, and a damaged row is overwritten like any other.
    match envelope::open(prefix, Codec::Raw, key, row) {
        Ok(Body::Head(head)) => Head::from_bytes(&head).map(|head| head.generation),
        _ => None,
    }
}
