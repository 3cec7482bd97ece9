//! Paths that the documents name must be there, and so must the documents.

use crate::none;
use crate::source::{files, root};

/// What a path of the repository begins with.
const BEGINNINGS: [&str; 8] =
    ["agent/", "aggregator/", "common/", "packaging/", "proto/", "tests/", ".ci/", ".cargo/"];

/// Files at the root that readers look for.
const EXPECTED: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "deny.toml",
    "clippy.toml",
    "rustfmt.toml",
    "rust-toolchain.toml",
];

/// Alternatives in braces written out: `a/{b,c}` is `a/b` and `a/c`.
fn spread(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
    let Some((head, (list, tail))) = parts else { return vec![path.to_owned()] };
    list.split(',').flat_map(|one| spread(&format!("{head}{one}{tail}"))).collect()
}

/// Paths of the repository within backticks; of a command line, those among its words.
fn paths(line: &str) -> Vec<String> {
    let quoted = line.split('`').skip(1).step_by(2).flat_map(str::split_whitespace);
    let ours =
        |word: &&str| BEGINNINGS.iter().any(|start| word.starts_with(start)) || EXPECTED.contains(word);
    // A name in capitals or angle brackets stands for one.
    let exact = |path: &String| !path.contains(['<', '*', '…']) && !path.contains("NAME");
    let clean = |word: &str| word.split(':').next().unwrap_or(word).trim_end_matches([',', '.']).to_owned();
    quoted.filter(ours).flat_map(|word| spread(&clean(word))).filter(exact).collect()
}

#[test]
fn paths_in_documents_exist() {
    let mut wrong = Vec::new();
    for file in files().iter().filter(|file| file.path.ends_with(".md")) {
        for (n, line) in file.text.lines().enumerate() {
            for path in paths(line).into_iter().filter(|path| !root().join(path).exists()) {
                wrong.push(format!("{}:{}: {path} is not there; correct the path", file.path, n + 1));
            }
        }
    }
    none("paths in documents", wrong);
}

#[test]
fn what_a_reader_looks_for_is_there() {
    let missing = EXPECTED.iter().filter(|path| !root().join(path).is_file());
    none("documents", missing.map(|path| format!("{path} is missing")).collect());
}

#[test]
fn paths_are_found() {
    let line = "see `agent/src/{run,watch}.rs`, `/etc/evenkeel`, `tests/run quick`, `common/src/NAME.rs` and agent/x";
    assert_eq!(paths(line), ["agent/src/run.rs", "agent/src/watch.rs", "tests/run"]);
}
