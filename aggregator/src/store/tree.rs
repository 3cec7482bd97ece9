//! Trees with types: what a key and a value are is said once, in `trees.rs`, and the compiler holds everyone to it.

use std::marker::PhantomData;
use std::ops::ControlFlow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StoreError;
use super::key::{Key, KeyRange, to_hex};
use super::{Direction, OnDamage, Store};

/// How values of a tree become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// JSON, for records that gain fields over the versions.
    Json,
    /// The bytes as they are, for sample blocks, which have a codec of their own.
    Raw,
}

/// A tree as a backend sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeId {
    /// Name in messages and exports.
    pub name: &'static str,
    /// First byte of its keys; unique, never used again for another tree. 0xF0 and above belong to the backends.
    pub prefix: u8,
    /// How its values are coded.
    pub codec: Codec,
}

/// Values of a tree as [`Codec::Json`].
#[derive(Clone, Copy, Debug)]
pub struct Json;
/// Values of a tree as [`Codec::Raw`].
#[derive(Clone, Copy, Debug)]
pub struct Raw;

/// How a marker ([`Json`], [`Raw`]) codes values of type `V`.
pub trait Coding<V> {
    /// The codec it stands for.
    const CODEC: Codec;
    /// The bytes of a value.
    ///
    /// # Errors
    /// When it has no JSON form (a map whose keys are no text).
    fn encode(value: &V) -> Result<Vec<u8>, serde_json::Error>;
    /// The value of bytes.
    ///
    /// # Errors
    /// What does not fit, in words.
    fn decode(bytes: Vec<u8>) -> Result<V, String>;
}

impl<V: Serialize + DeserializeOwned> Coding<V> for Json {
    const CODEC: Codec = Codec::Json;
    fn encode(value: &V) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(value)
    }
    fn decode(bytes: Vec<u8>) -> Result<V, String> {
        serde_json::from_slice(&bytes).map_err(|error| format!("not the expected record: {error}"))
    }
}

impl Coding<Vec<u8>> for Raw {
    const CODEC: Codec = Codec::Raw;
    fn encode(value: &Vec<u8>) -> Result<Vec<u8>, serde_json::Error> {
        Ok(value.clone())
    }
    fn decode(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        Ok(bytes)
    }
}

/// A tree with its types: keys `K`, values `V`, coded as `C`.
#[derive(Debug)]
pub struct Tree<K, V, C = Json> {
    id: TreeId,
    types: PhantomData<fn(K, C) -> V>,
}

impl<K: Key, V, C: Coding<V>> Tree<K, V, C> {
    /// Declares a tree; only `trees.rs` does.
    #[must_use]
    pub const fn new(prefix: u8, name: &'static str) -> Self {
        Self { id: TreeId { name, prefix, codec: C::CODEC }, types: PhantomData }
    }

    /// The tree as a backend sees it.
    #[must_use]
    pub const fn id(&self) -> TreeId {
        self.id
    }

    /// The value of `key`, `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when it is not what was written; otherwise as [`Store::get`].
    pub fn get(&self, store: &(impl Store + ?Sized), key: &K) -> Result<Option<V>, StoreError> {
        let bytes = key.to_bytes();
        store.get(self.id, &bytes)?.map(|value| self.decode_value(&bytes, value)).transpose()
    }

    /// Walks `range` and hands each pair to `visit` until that breaks. Returns the number of damaged values that
    /// were skipped: always 0 with [`OnDamage::Fail`].
    ///
    /// Not a snapshot: rows written meanwhile may or may not be seen.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] at the first damaged row with [`OnDamage::Fail`]; otherwise as [`Store::scan`].
    pub fn scan(
        &self,
        store: &(impl Store + ?Sized),
        range: &KeyRange,
        direction: Direction,
        on_damage: OnDamage,
        mut visit: impl FnMut(K, V) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        let (mut skipped, mut failure) = (0, None);
        store.scan(self.id, range, direction, &mut |key, value| match value
            .and_then(|bytes| Ok((self.decode_key(key)?, self.decode_value(key, bytes)?)))
        {
            Ok((key, value)) => visit(key, value),
            Err(error) if on_damage == OnDamage::Skip && error.is_damaged_value() => {
                skipped += 1;
                ControlFlow::Continue(())
            }
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failure.map_or(Ok(skipped), Err)
    }

    /// At most `limit` pairs of `range`, in scan order.
    ///
    /// # Errors
    /// As [`Tree::scan`] with [`OnDamage::Fail`].
    pub fn page(
        &self,
        store: &(impl Store + ?Sized),
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(K, V)>, StoreError> {
        let mut rows = Vec::new();
        if limit > 0 {
            self.scan(store, range, direction, OnDamage::Fail, |key, value| {
                rows.push((key, value));
                if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(rows)
    }

    fn decode_key(&self, key: &[u8]) -> Result<K, StoreError> {
        K::from_bytes(key).ok_or_else(|| damaged(self.id, key, "not a key of this tree".into()))
    }

    fn decode_value(&self, key: &[u8], value: Vec<u8>) -> Result<V, StoreError> {
        C::decode(value).map_err(|problem| damaged(self.id, key, problem))
    }
}

/// The error for a row that is not what was written.
pub(crate) fn damaged(tree: TreeId, key: &[u8], problem: String) -> StoreError {
    StoreError::Damaged { tree: tree.name, key: to_hex(key), problem }
}

/// One change of a batch; no value = delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) tree: TreeId,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// Changes to any trees that become visible and durable together or not at all. Of two changes to one key the
/// later holds.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
    weight: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// [`StoreError::Encode`] when the record has no JSON form.
    pub fn put<K: Key, V, C: Coding<V>>(
        &mut self,
        tree: &Tree<K, V, C>,
        key: &K,
        value: &V,
    ) -> Result<(), StoreError> {
        let value = C::encode(value).map_err(|source| StoreError::Encode { tree: tree.id.name, source })?;
        self.push(tree.id, key.to_bytes(), Some(value));
        Ok(())
    }

    /// Removes a key; nothing happens when it is not there.
    pub fn delete<K: Key, V, C: Coding<V>>(&mut self, tree: &Tree<K, V, C>, key: &K) {
        self.push(tree.id, key.to_bytes(), None);
    }

    /// Adds a change by its bytes.
    pub(crate) fn push(&mut self, tree: TreeId, key: Vec<u8>, value: Option<Vec<u8>>) {
        let value_weight = value.as_ref().map_or(0, |value| value.len().min(super::INLINE_MAX));
        self.weight += key.len() + value_weight + super::ROW_OVERHEAD;
        self.changes.push(Change { tree, key, value });
    }

    /// Whether it is time to apply it and start another: three quarters of the largest size are reached. A group
    /// commit that asks after each record of at most [`super::INLINE_MAX`] bytes or larger never meets the limit.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.weight >= super::MAX_BATCH / 4 * 3
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds the changes of `other` behind these.
    pub fn append(&mut self, mut other: Self) {
        self.weight += other.weight;
        self.changes.append(&mut other.changes);
    }

    pub(crate) fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}
