//! The rules of this repository as tests: borders, sizes, words, documents that must agree with the code. Each failure
//! names file, line and remedy. The rules are tables; to change a rule is to change a line there, with its reason.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod borders;
mod documents;
mod generated;
mod source;
mod status;
mod text;
mod units;

/// Fails with one line per violation.
#[track_caller]
fn none(rule: &str, violations: Vec<String>) {
    let list = violations.join("\n  ");
    assert!(violations.is_empty(), "{rule}: {} violations\n  {list}", violations.len());
}
