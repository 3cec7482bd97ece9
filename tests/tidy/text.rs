//! What every file must have, and what none may: headers, sizes, words.

use std::fs;

use crate::none;
use crate::source::{File, files, production, root, rust};

/// The folders of the architecture. Files and dot-folders at the root are none.
const FOLDERS: [&str; 6] = ["agent", "aggregator", "common", "packaging", "proto", "tests"];

/// Lines of a source file: beyond it, it is two files.
const MAX_FILE: usize = 500;
/// Lines of a function, with signature and braces.
const MAX_FUNCTION: usize = 70;

/// Words that say a piece is not finished, or was not meant to stay; and the remedy. Split, so that the list does not
/// find itself.
const UNFINISHED: [(&str, &str); 7] = [
    (concat!("tod", "o!("), "finish it, or answer with a typed \"not enabled\""),
    (concat!("unimple", "mented!("), "finish it, or answer with a typed \"not enabled\""),
    (concat!("db", "g!("), "use tracing"),
    (concat!("FIX", "ME"), "fix it, or say what holds and why"),
    (concat!("XX", "X"), "fix it, or say what holds and why"),
    (concat!("HA", "CK"), "say what holds and why"),
    (concat!("TO", "DO"), "do it, or put it into packaging/doc/status.md"),
];

/// What belongs to one machine only; and the remedy.
const MACHINE: [(&str, &str); 4] = [
    (concat!("/wo", "rk/"), "use a path within the repository"),
    (concat!("/ro", "ot/"), "use a temporary directory"),
    (concat!("/bash", "_jobs"), "use a temporary directory"),
    (concat!("../", "shared"), "material beside the repository is for tests, which skip without it"),
];

#[test]
fn every_module_says_why_it_exists() {
    let missing = rust().filter(|file| !file.text.starts_with("//!"));
    let line =
        |file: &File| format!("{}:1: begin with a line `//! ...` that says why this file exists", file.path);
    none("module documentation", missing.map(line).collect());
}

#[test]
fn files_are_rooms_one_can_see_through() {
    let large = production().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > MAX_FILE)
            .then(|| format!("{}: {lines} lines of at most {MAX_FILE}; split it by topic", file.path))
    });
    none("file sizes", large.collect());
}

#[test]
fn functions_fit_a_screen() {
    let mut wrong = Vec::new();
    for file in production() {
        for (n, length) in functions(&file.text).into_iter().filter(|(_, length)| *length > MAX_FUNCTION) {
            let name = file.text.lines().nth(n - 1).unwrap_or_default().trim();
            wrong.push(format!("{}:{n}: {length} lines of at most {MAX_FUNCTION}: {name}", file.path));
        }
    }
    none("function sizes", wrong);
}

/// Line and length of every function. Relies on rustfmt: a function ends with `}` indented as its `fn`.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words = code.split_whitespace().take_while(|word| *word != "fn" && !word.starts_with("//"));
        let prefix: Vec<_> = words.collect();
        let known =
            |word: &&str| ["const", "async", "unsafe", "extern"].contains(word) || word.starts_with("pub");
        let is_fn = code.split_whitespace().any(|word| word == "fn") && prefix.iter().all(known);
        if !is_fn || line.ends_with(['}', ';']) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        if let Some(length) = lines.iter().skip(n).position(|line| *line == end) {
            found.push((n + 1, length + 1));
        }
    }
    found
}

#[test]
fn functions_are_measured() {
    let text = "pub async fn a(\n    b: u8,\n) {\n    if b {\n    }\n}\n\nimpl A {\n    fn c() {\n    }\n    fn d() {}\n}\n";
    assert_eq!(functions(text), [(1, 6), (9, 2)]);
}

#[test]
fn nothing_unfinished_is_left() {
    let mut wrong = Vec::new();
    for file in production() {
        // Comments count: that is where such words stand.
        for (n, line) in file.text.lines().enumerate() {
            for (word, remedy) in UNFINISHED.iter().filter(|(word, _)| has_word(line, word)) {
                wrong.push(format!("{}:{}: {word}: {remedy}", file.path, n + 1));
            }
        }
    }
    none("unfinished", wrong);
}

/// Whether `word` stands there by itself: a serial number that holds three X is none of ours.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        edge(line[..at].chars().next_back())
            && (word.ends_with('(') || edge(line[at + word.len()..].chars().next()))
    })
}

#[test]
fn no_path_of_one_machine() {
    let mut wrong = Vec::new();
    for file in files() {
        for (n, line) in file.text.lines().enumerate() {
            for (path, remedy) in MACHINE.iter().filter(|(path, _)| line.contains(path)) {
                // Tests may measure against material beside the repository, where it is there.
                if !(file.is_test && path.ends_with("shared")) {
                    wrong.push(format!("{}:{}: {path}: {remedy}", file.path, n + 1));
                }
            }
        }
    }
    none("machine paths", wrong);
}

#[test]
fn the_top_level_is_the_architecture() {
    let mut folders: Vec<String> = Vec::new();
    for entry in fs::read_dir(root()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir()
            && !name.starts_with('.')
            && !["target", "data"].contains(&name.as_str())
        {
            folders.push(name);
        }
    }
    folders.sort();
    assert_eq!(folders, FOLDERS, "top-level folders are fixed; put it into one of the six (ARCHITECTURE.md)");
}
