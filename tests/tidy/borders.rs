//! Who may import whom: between crates by their manifests, between modules by what they name. See ARCHITECTURE.md.

use std::fs;

use crate::none;
use crate::source::{CRATES, File, production, root};

/// Which of our crates each may depend on, outside tests. "*" is all of them.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("common", &[]),
    ("common/detect", &["evenkeel-common"]),
    ("common/runtime", &["evenkeel-common"]),
    ("proto", &["evenkeel-common"]),
    ("aggregator/core", &["evenkeel-common", "evenkeel-detect"]),
    ("agent", &["evenkeel-common", "evenkeel-detect", "evenkeel-runtime", "evenkeel-proto"]),
    (
        "aggregator",
        &["evenkeel-common", "evenkeel-detect", "evenkeel-runtime", "evenkeel-proto", "evenkeel-core"],
    ),
    ("aggregator/cli", &["evenkeel-common", "evenkeel-detect", "evenkeel-runtime", "evenkeel-proto"]),
    ("tests", &["*"]),
];

/// Crates of others that would let the outside world in where everything must be an argument.
const IMPURE: [&str; 16] = [
    "tokio",
    "tokio-util",
    "tokio-stream",
    "futures-util",
    "tonic",
    "tonic-prost",
    "prost",
    "sled",
    "reqwest",
    "hyper",
    "axum",
    "rustls",
    "rand",
    "ring",
    "jiff",
    "rustix",
];
/// Parts of the standard library that do the same.
const OUTSIDE: [&str; 10] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::stdin",
    "Instant::now",
    "SystemTime",
    "Timestamp::now",
    "HashMap", // Its order differs from run to run.
];
/// Where all that must stay out.
const PURE: [&str; 3] = ["common", "common/detect", "aggregator/core"];

/// Modules of a crate that must not name certain others of it: crate, module, the others, why.
const APART: [(&str, &str, &[&str], &str); 16] = [
    (
        "agent",
        "collect",
        &["watch", "uplink", "spool", "run"],
        "a collector reads and parses, it judges and sends nothing",
    ),
    ("agent", "watch", &["uplink", "spool", "run"], "detection does not know whether someone listens"),
    ("agent", "spool", &["collect", "watch", "uplink", "run"], "the spool keeps what it is given"),
    ("agent", "uplink", &["collect", "watch", "run"], "the uplink sends what the lanes hold"),
    (
        "aggregator",
        "store",
        &["pve", "notify", "execute", "ingest", "cycle", "server", "identity", "app", "config"],
        "declare the need as a trait where it arises",
    ),
    (
        "aggregator",
        "pve",
        &["store", "notify", "execute", "ingest", "cycle", "server", "identity", "app", "config"],
        "declare the need as a trait where it arises",
    ),
    (
        "aggregator",
        "notify",
        &["store", "pve", "execute", "ingest", "cycle", "server", "identity", "app", "config"],
        "declare the need as a trait where it arises",
    ),
    (
        "aggregator",
        "execute",
        &["store", "pve", "notify", "ingest", "server", "identity", "app", "config"],
        "declare the need as a trait where it arises",
    ),
    (
        "aggregator",
        "identity",
        &["store", "pve", "ingest", "cycle", "server", "app"],
        "who someone is does not depend on what he asks",
    ),
    (
        "aggregator",
        "ingest",
        &["pve", "cycle", "server", "app", "config"],
        "ingest takes in, the cycle decides",
    ),
    (
        "aggregator",
        "cycle",
        &["server", "app", "config", "identity"],
        "the cycle is asked by the server, not the reverse",
    ),
    (
        "aggregator",
        "fleet",
        &["server", "app", "config", "identity", "notify", "execute"],
        "detection does not know who asks, and moves nothing",
    ),
    (
        "aggregator",
        "history",
        &["pve", "cycle", "ingest", "fleet", "server", "app", "identity", "notify", "execute"],
        "the history keeps what it is given, and moves nothing",
    ),
    ("aggregator", "server", &["app", "config"], "only app.rs wires parts together"),
    (
        "aggregator",
        "config",
        &["server", "app", "cycle", "identity"],
        "the configuration holds sections, no parts",
    ),
    (
        "aggregator",
        "admin",
        &["server", "app", "cycle", "ingest", "pve", "store"],
        "admin works on files of a stopped or running aggregator",
    ),
];

/// Where wire types may be named: crate and module. Everywhere else they have been turned into our own.
/// `app` names the generated servers, to wire them.
const WIRE: [(&str, &str); 7] = [
    ("agent", "spool"),
    ("agent", "uplink"),
    ("aggregator", "app"),
    ("aggregator", "ingest"),
    ("aggregator", "server"),
    ("aggregator/cli", "*"),
    ("tests", "*"),
];

/// What may be named in a few places only: words, files, why.
const ONLY_IN: [(&str, &[&str], &str); 7] = [
    ("SystemTime::now", &["common/runtime/src/clock.rs"], "time is an argument: take a Clock"),
    ("std::time::Instant", &["common/runtime/src/clock.rs"], "time is an argument: take a Clock"),
    (
        "process::exit",
        &["common/runtime/src/shutdown.rs"],
        "return an ExitCode from main: destructors must run",
    ),
    ("Command::new(", &[], "our daemons and evenkeelctl start no other process"),
    (
        "env::var",
        &[
            "common/runtime/src/log.rs",
            "aggregator/cli/src/config.rs",
            "aggregator/cli/src/render.rs",
            "proto/build.rs",
        ],
        "settings come from the configuration file",
    ),
    ("sled::", &["aggregator/src/store/"], "the store is reached through its trait"),
    ("SystemRandom", &["common/runtime/src/random.rs"], "randomness is an argument: take an Entropy"),
];

/// Names in the `[dependencies]` and `[build-dependencies]` of a crate.
fn dependencies(dir: &str) -> Vec<String> {
    let path = root().join(dir).join("Cargo.toml");
    let manifest: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
    let tables =
        ["dependencies", "build-dependencies"].into_iter().filter_map(|name| manifest.get(name)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

/// The modules of its own crate that a line names: `crate::a`, `crate::{a, b::c}`.
fn own_modules(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    // `$crate` of a macro is a use as well.
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0_i32;
            let mut start = true;
            for (n, c) in list.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if depth == 0 && start && !c.is_whitespace() => {
                        found.push(word(&list[n..]));
                        start = false;
                    }
                    _ => {}
                }
                if depth < 0 {
                    break;
                }
            }
        } else {
            found.push(word(rest));
        }
    }
    found
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn at(file: &File, n: usize) -> String {
    format!("{}:{n}", file.path)
}

#[test]
fn crates_depend_only_on_those_below_them() {
    let mut wrong = Vec::new();
    for (dir, allowed) in MAY_USE {
        for name in dependencies(dir) {
            let ours = CRATES.iter().any(|(known, _)| *known == name);
            if ours && !allowed.contains(&name.as_str()) && allowed != ["*"] {
                wrong.push(format!(
                    "{dir}/Cargo.toml: {dir} must not depend on {name}; move what it needs down"
                ));
            }
            if PURE.contains(&dir) && IMPURE.contains(&name.as_str()) {
                wrong.push(format!(
                    "{dir}/Cargo.toml: {dir} is pure and must not depend on {name}; take a value"
                ));
            }
        }
    }
    none("crate borders", wrong);
}

#[test]
fn pure_crates_reach_for_nothing_outside() {
    let mut wrong = Vec::new();
    for file in production().filter(|file| PURE.contains(&file.crate_dir())) {
        for (n, line) in file.code() {
            if let Some(outside) = OUTSIDE.iter().find(|outside| line.contains(**outside)) {
                let at = at(file, n);
                wrong.push(format!(
                    "{at}: {outside} in a pure crate; take it as an argument (BTreeMap for HashMap)"
                ));
            }
        }
    }
    none("purity", wrong);
}

#[test]
fn modules_keep_to_their_side() {
    let mut wrong = Vec::new();
    for file in production() {
        let (dir, module) = (file.crate_dir(), file.module());
        let rules = APART.iter().filter(|(of, inside, ..)| (*of, *inside) == (dir, module));
        for (_, _, others, why) in rules {
            for (n, line) in file.code() {
                for other in own_modules(line).into_iter().filter(|other| others.contains(other)) {
                    wrong.push(format!("{}: {module} must not use {other}: {why}", at(file, n)));
                }
            }
        }
    }
    none("module borders", wrong);
}

#[test]
fn wire_types_stop_at_the_edge() {
    let mut wrong = Vec::new();
    for file in production().filter(|file| file.crate_dir() != "proto") {
        let (dir, module) = (file.crate_dir(), file.module());
        let allowed = WIRE.iter().any(|(of, inside)| *of == dir && (*inside == "*" || *inside == module));
        if allowed {
            continue;
        }
        for (n, _) in file.code().filter(|(_, line)| line.contains("evenkeel_proto")) {
            wrong.push(format!("{}: a wire type; convert it in ingest, server or uplink", at(file, n)));
        }
    }
    none("wire types", wrong);
}

#[test]
fn the_outside_world_comes_in_at_named_places() {
    let mut wrong = Vec::new();
    for file in production() {
        for (words, places, why) in ONLY_IN {
            if places.iter().any(|place| file.path.starts_with(place)) {
                continue;
            }
            for (n, _) in file.code().filter(|(_, line)| line.contains(words)) {
                wrong.push(format!("{}: {words}: {why}", at(file, n)));
            }
        }
    }
    none("named places", wrong);
}

/// A table that names what is not there holds nothing.
#[test]
fn the_tables_name_what_exists() {
    let planned = ["notify"];
    let mut wrong = Vec::new();
    for (dir, module) in
        APART.iter().map(|row| (row.0, row.1)).chain(WIRE).filter(|(_, module)| *module != "*")
    {
        let exists = production().any(|file| (file.crate_dir(), file.module()) == (dir, module));
        if exists == planned.contains(&module) {
            wrong.push(format!("{dir}::{module}: strike it from the table, or from the planned ones"));
        }
    }
    for place in
        ONLY_IN.iter().flat_map(|(_, places, _)| *places).filter(|place| !root().join(place).exists())
    {
        wrong.push(format!("{place}: not there"));
    }
    none("tables", wrong);
}

#[test]
fn names_of_modules_are_found() {
    assert_eq!(own_modules("use crate::store::{Batch, Store};"), ["store"]);
    assert_eq!(own_modules("use crate::{store::{a, b}, pve, cycle::Cycle};"), ["store", "pve", "cycle"]);
    assert_eq!(own_modules("    let a = crate::pve::x(crate::run::y);"), ["pve", "run"]);
}
