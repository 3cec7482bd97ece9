//! Everything out as text and in again, whatever the backend.
//!
//! An export is newline-delimited JSON. First line: `{"evenkeel_export":1,"schema":1,"evenkeel":"0.1.0"}`. Then a line
//! for each row: `{"tree":"nodes","key":"6c6162…","value":{…}}`, keys as hexadecimal digits, values as JSON, or as
//! `"raw"` in hexadecimal digits where a tree holds bytes. Last line: `{"rows":N}`, without which it is not whole.

use std::io::{BufRead, Read, Write};
use std::ops::ControlFlow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::error::StoreError;
use super::key::{KeyRange, from_hex, to_hex};
use super::tree::{Batch, Codec, TreeId};
use super::trees::{self, META};
use super::{Direction, SCHEMA, Store, envelope};

/// Version of the export's own form.
const FORMAT: u32 = 1;
/// Longest line read: the largest value in hexadecimal digits, and what stands around it.
const MAX_LINE: u64 = 2 * envelope::MAX_VALUE as u64 + 4096;

#[derive(Serialize, Deserialize)]
struct Header {
    evenkeel_export: u32,
    schema: u32,
    evenkeel: String,
}

#[derive(Serialize, Deserialize)]
struct Trailer {
    rows: u64,
}

#[derive(Serialize, Deserialize)]
struct Row<'a> {
    tree: &'a str,
    key: &'a str,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw: Option<&'a str>,
}

/// So that the value `null` is not taken for no value.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Writes every row of every tree but [`META`], which a new store writes for itself. Returns the number of rows.
///
/// # Errors
/// [`StoreError::Export`] when `out` fails, or the first damaged value.
pub fn export(store: &(impl Store + ?Sized), out: &mut dyn Write) -> Result<u64, StoreError> {
    let evenkeel = env!("CARGO_PKG_VERSION").to_string();
    write_line(out, &Header { evenkeel_export: FORMAT, schema: SCHEMA, evenkeel })?;
    let mut rows = 0;
    for tree in trees::ALL.into_iter().filter(|tree| *tree != META.id()) {
        let mut outcome = Ok(());
        store.scan(tree, &KeyRange::all(), Direction::Forward, &mut |key, value| {
            outcome = value.and_then(|value| write_row(out, tree, key, &value));
            rows += 1;
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outcome?;
    }
    write_line(out, &Trailer { rows })?;
    out.flush().map_err(|source| StoreError::Export { source })?;
    Ok(rows)
}

fn write_row(out: &mut dyn Write, tree: TreeId, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let key = to_hex(key);
    let encode = |source| StoreError::Encode { tree: tree.name, source };
    match tree.codec {
        // The text itself, not a parsed copy: no number changes on the way.
        Codec::Json => {
            let value = serde_json::from_slice::<&RawValue>(value).map_err(encode)?;
            write_line(out, &Row { tree: tree.name, key: &key, value: Some(value), raw: None })
        }
        Codec::Raw => {
            write_line(out, &Row { tree: tree.name, key: &key, value: None, raw: Some(&to_hex(value)) })
        }
    }
}

fn write_line(out: &mut dyn Write, line: &impl Serialize) -> Result<(), StoreError> {
    let mut bytes = serde_json::to_vec(line).map_err(|error| StoreError::Export { source: error.into() })?;
    bytes.push(b'\n');
    out.write_all(&bytes).map_err(|source| StoreError::Export { source })
}

/// Reads an export into an empty store and flushes it. Returns the number of rows.
///
/// # Errors
/// [`StoreError::Import`] naming the line; what came before it is in the store then, so start over in a new directory.
pub fn import(store: &(impl Store + ?Sized), from: &mut dyn BufRead) -> Result<u64, StoreError> {
    let mut lines = Lines { from, number: 0, text: String::new() };
    lines.advance()?;
    let header: Header = lines.parse_as("the first line of an evenkeel export")?;
    if header.evenkeel_export != FORMAT || header.schema > SCHEMA {
        return Err(lines.bad(format!(
            "form {} and schema {} (evenkeel {}), this program knows form {FORMAT} and schema {SCHEMA}: \
             import it with that version or a later one",
            header.evenkeel_export, header.schema, header.evenkeel
        )));
    }
    if holds_data(store)? {
        return Err(lines.bad("the store already holds data".into()));
    }
    let (mut batch, mut rows) = (Batch::new(), 0);
    loop {
        lines.advance()?;
        if lines.text.starts_with("{\"rows\":") {
            let trailer: Trailer = lines.parse_as("the last line of an evenkeel export")?;
            if trailer.rows != rows {
                return Err(lines.bad(format!("it ends with {} rows, {rows} were read", trailer.rows)));
            }
            store.apply(batch)?;
            store.flush()?;
            return Ok(rows);
        }
        let (tree, key, value) = parse_row(&lines.text).map_err(|problem| lines.bad(problem))?;
        batch.push(tree, key, Some(value));
        rows += 1;
        if batch.is_full() {
            store.apply(std::mem::take(&mut batch))?;
        }
    }
}

fn parse_row(line: &str) -> Result<(TreeId, Vec<u8>, Vec<u8>), String> {
    let row: Row<'_> = serde_json::from_str(line).map_err(|error| format!("not a row: {error}"))?;
    let tree = trees::ALL.into_iter().find(|tree| tree.name == row.tree && *tree != META.id());
    let tree = tree.ok_or_else(|| format!("this program knows no tree {:?}", row.tree))?;
    let key = from_hex(row.key).ok_or("the key is not in hexadecimal digits")?;
    let value = match (tree.codec, row.value, row.raw) {
        (Codec::Json, Some(value), None) => value.get().as_bytes().to_vec(),
        (Codec::Raw, None, Some(raw)) => from_hex(raw).ok_or("the value is not in hexadecimal digits")?,
        (Codec::Json, ..) => return Err(format!("rows of {} have a `value`", tree.name)),
        (Codec::Raw, ..) => return Err(format!("rows of {} have `raw`", tree.name)),
    };
    Ok((tree, key, value))
}

fn holds_data(store: &(impl Store + ?Sized)) -> Result<bool, StoreError> {
    let mut found = false;
    for tree in trees::ALL.into_iter().filter(|tree| *tree != META.id()) {
        store.scan_keys(tree, &KeyRange::all(), Direction::Forward, &mut |_| {
            found = true;
            ControlFlow::Break(())
        })?;
    }
    Ok(found)
}

struct Lines<'a> {
    from: &'a mut dyn BufRead,
    number: u64,
    text: String,
}

impl Lines<'_> {
    fn bad(&self, problem: String) -> StoreError {
        StoreError::Import { line: self.number, problem }
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        self.number += 1;
        self.text.clear();
        let read = (&mut *self.from).take(MAX_LINE).read_line(&mut self.text);
        read.map_err(|error| self.bad(format!("can not be read: {error}")))?;
        if self.text.ends_with('\n') { Ok(()) } else { Err(self.bad("the export is cut off here".into())) }
    }

    fn parse_as<T: DeserializeOwned>(&self, what: &str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text).map_err(|error| self.bad(format!("not {what}: {error}")))
    }
}
