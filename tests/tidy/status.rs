//! `packaging/doc/status.md` says for every row of the specification which command and test show it, or that it is open.
//! Commands must be verbs that exist, tests functions that exist.

use std::collections::BTreeSet;
use std::fs;

use crate::none;
use crate::source::{root, rust};

const PAGE: &str = "packaging/doc/status.md";

/// Rows of the specification: section and number of its rows.
const ROWS: [(char, u32); 8] =
    [('A', 9), ('B', 7), ('C', 5), ('D', 7), ('E', 12), ('F', 5), ('G', 6), ('H', 3)];

/// State of a row, as the page writes it.
const STATES: [&str; 3] = ["done", "partly", "open"];

/// Where the verbs of each of our commands are declared: command, file, the enum.
const VERBS: [(&str, &str, &str); 4] = [
    ("evenkeelctl", "aggregator/cli/src/args.rs", "pub enum Command {"),
    ("evenkeel-agent", "agent/src/main.rs", "enum Command {"),
    ("evenkeel-aggregator", "aggregator/src/main.rs", "enum Command {"),
    ("evenkeel-aggregator", "aggregator/src/admin.rs", "pub enum AdminCommand {"),
];

/// Words of `tests/run`, from its own `--help`, and those that need no check.
const OTHERS: [&str; 2] = ["cargo up", "tests/run"];

/// The verbs of a command: variants of its enum as clap spells them.
fn verbs(command: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, path, start) in VERBS.iter().filter(|(of, ..)| *of == command) {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let body = text.split_once(&format!("\n{start}\n")).expect(path).1;
        let variants =
            body.lines().take_while(|line| *line != "}").filter_map(|line| line.strip_prefix("    "));
        for variant in variants.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase())) {
            let name: String = variant.chars().take_while(char::is_ascii_alphanumeric).collect();
            found.insert(kebab(&name));
        }
    }
    found
}

fn kebab(name: &str) -> String {
    let mut text = String::new();
    for (n, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && n > 0 {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// Names of all test functions.
fn tests() -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for file in rust() {
        let mut marked = false;
        for line in file.text.lines().map(str::trim_start) {
            // proptest and tokio put their own attributes; between attribute and function may stand others.
            marked |= line.starts_with("#[") && line.contains("test");
            if let Some((_, rest)) = line.split_once("fn ")
                && marked
            {
                found.insert(rest.split(['(', '<']).next().unwrap_or_default());
                marked = false;
            }
        }
    }
    found
}

/// The cells of the page's rows.
fn rows() -> Vec<(usize, Vec<String>)> {
    let text = fs::read_to_string(root().join(PAGE)).expect(PAGE);
    let row = |(n, line): (usize, &str)| {
        let cells: Vec<_> =
            line.strip_prefix("| ")?.trim_end_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
        let id = cells.first()?;
        let is_row = id.len() <= 3 && id.starts_with(|c: char| c.is_ascii_uppercase()) && id.len() > 1;
        (is_row && id[1..].chars().all(|c| c.is_ascii_digit())).then_some((n + 1, cells))
    };
    text.lines().enumerate().filter_map(row).collect()
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn check_command(text: &str) -> Option<String> {
    if OTHERS.iter().any(|other| text == *other || text.starts_with(&format!("{other} "))) {
        return None;
    }
    let mut words = text.split_whitespace().filter(|word| !word.starts_with('-'));
    let (command, verb) = (words.next()?, words.next().unwrap_or_default());
    if !VERBS.iter().any(|(known, ..)| *known == command) {
        return Some(format!("{text:?} is no command of ours"));
    }
    (!verbs(command).contains(verb)).then(|| format!("{command} has no verb {verb:?}"))
}

#[test]
fn every_row_is_told_truthfully() {
    let tests = tests();
    let mut wrong = Vec::new();
    let mut ids = Vec::new();
    for (n, cells) in rows() {
        let at = format!("{PAGE}:{n}");
        let [id, state, commands, shown, _] = cells.as_slice() else {
            wrong.push(format!("{at}: expected the cells row, state, command, test, note"));
            continue;
        };
        ids.push(id.clone());
        if !STATES.contains(&state.as_str()) {
            wrong.push(format!("{at}: {id} is {state:?}; expected one of {STATES:?}"));
        }
        if state == "done" && (quoted(commands).next().is_none() || quoted(shown).next().is_none()) {
            wrong.push(format!("{at}: {id} is done only with a command and a test"));
        }
        wrong.extend(quoted(commands).filter_map(check_command).map(|fault| format!("{at}: {fault}")));
        let unknown = quoted(shown).filter(|name| !tests.contains(name));
        wrong.extend(unknown.map(|name| format!("{at}: there is no test function {name}")));
    }
    let expected: Vec<_> =
        ROWS.iter().flat_map(|(section, count)| (1..=*count).map(move |n| format!("{section}{n}"))).collect();
    let missing = expected.iter().filter(|id| !ids.contains(id));
    wrong.extend(missing.map(|id| format!("{PAGE}: row {id} of the specification is missing")));
    if wrong.is_empty() && ids != expected {
        wrong.push(format!("{PAGE}: rows are not in order, or twice"));
    }
    none("status", wrong);
}

#[test]
fn verbs_are_found() {
    assert!(verbs("evenkeelctl").is_superset(&["status", "explain", "config"].map(String::from).into()));
    assert!(verbs("evenkeel-aggregator").is_superset(&["run", "issue-cert"].map(String::from).into()));
    assert!(
        check_command("evenkeelctl fly").is_some()
            && check_command("evenkeelctl --output json nodes").is_some()
    );
    assert_eq!(check_command("evenkeelctl nodes --output json"), None);
    assert!(tests().contains("verbs_are_found"));
}
