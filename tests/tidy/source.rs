//! The repository as the rules see it: files with their lines, test code told apart from the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Not part of the repository: build output, a developer's data, git itself.
const SKIPPED: [&str; 3] = ["target", "data", ".git"];

/// A text file of the repository.
pub struct File {
    /// From the root of the repository, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Whether all of it is test, bench, example or fixture code.
    pub is_test: bool,
}

/// The root of the repository: where cargo runs the test, which may be another place than where it was built.
pub fn root() -> PathBuf {
    let tests = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&tests).parent().unwrap().to_owned()
}

/// Every text file, read once, in the order of paths. What is not UTF-8 is no text.
pub fn files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut files = Vec::new();
        walk(&root(), "", &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let test_modules: Vec<_> = files.iter().flat_map(test_modules).collect();
        for file in &mut files {
            let stem = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
            file.is_test |= test_modules.iter().any(|module| {
                stem.strip_prefix(module.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
        }
        files
    })
}

/// The Rust files.
pub fn rust() -> impl Iterator<Item = &'static File> {
    files().iter().filter(|file| file.path.ends_with(".rs"))
}

/// The Rust files that go into a package.
pub fn production() -> impl Iterator<Item = &'static File> {
    rust().filter(|file| !file.is_test)
}

fn walk(dir: &Path, prefix: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !(prefix.is_empty() && SKIPPED.contains(&name.as_str())) {
            walk(&entry.path(), &format!("{path}/"), files);
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            let is_test = path.starts_with("tests/")
                || ["tests", "benches", "examples", "fixtures"]
                    .iter()
                    .any(|dir| path.contains(&format!("/{dir}/")));
            files.push(File { path, text, is_test });
        }
    }
}

/// Paths, without `.rs`, of the modules that a file declares for tests only.
fn test_modules(file: &File) -> Vec<String> {
    let Some(stem) = file.path.strip_suffix(".rs") else { return Vec::new() };
    let (dir, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    let home = if ["mod", "lib", "main"].contains(&name) { dir } else { stem };
    let lines: Vec<_> = file.text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        if !line.starts_with("#[cfg(") || !line.contains("test") {
            continue;
        }
        let mut path = None;
        for next in lines.iter().skip(n + 1) {
            if let Some(named) = next.strip_prefix("#[path = \"") {
                // An attribute's path starts where the file is.
                path = named.strip_suffix(".rs\"]").map(|named| format!("{dir}/{named}"));
            } else if let Some(module) = next.trim_start_matches("pub ").strip_prefix("mod ") {
                if let Some(module) = module.strip_suffix(';') {
                    found.push(path.unwrap_or_else(|| format!("{home}/{module}")));
                }
                break;
            } else if !next.starts_with("#[") {
                break;
            }
        }
    }
    found
}

impl File {
    /// The crate's folder: the longest one with a manifest.
    pub fn crate_dir(&self) -> &str {
        let mut dirs: Vec<_> = CRATES.iter().map(|(_, dir)| *dir).collect();
        dirs.sort_by_key(|dir| std::cmp::Reverse(dir.len()));
        dirs.into_iter().find(|dir| self.path.starts_with(&format!("{dir}/"))).unwrap_or("")
    }

    /// The module of the crate's top level that holds the file; empty for `lib.rs` and `main.rs`.
    pub fn module(&self) -> &str {
        let inside = self.path[self.crate_dir().len()..].trim_start_matches('/');
        let Some(inside) = inside.strip_prefix("src/") else { return "" };
        match inside.split_once('/') {
            Some((folder, _)) => folder,
            None => inside.trim_end_matches(".rs").trim_start_matches("lib").trim_start_matches("main"),
        }
    }

    /// Lines with their numbers, from 1, that are neither comments nor inside an inline test module.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut in_tests = false;
        let mut before = "";
        self.text.lines().enumerate().filter_map(move |(n, line)| {
            let opens = before.starts_with("#[cfg(test)]") && line.starts_with("mod ") && line.ends_with('{');
            let inside = in_tests || opens;
            in_tests = inside && line != "}"; // rustfmt puts the end of a module at the start of its line.
            before = line;
            (!inside && !line.trim_start().starts_with("//")).then_some((n + 1, line))
        })
    }
}

/// Our crates: name and folder.
pub const CRATES: [(&str, &str); 9] = [
    ("evenkeel-common", "common"),
    ("evenkeel-detect", "common/detect"),
    ("evenkeel-runtime", "common/runtime"),
    ("evenkeel-proto", "proto"),
    ("evenkeel-agent", "agent"),
    ("evenkeel-core", "aggregator/core"),
    ("evenkeel-aggregator", "aggregator"),
    ("evenkeel-cli", "aggregator/cli"),
    ("evenkeel-tests", "tests"),
];

#[test]
fn test_code_is_told_apart() {
    let is_test = |path: &str| files().iter().find(|file| file.path == path).unwrap().is_test;
    for path in ["aggregator/src/identity/ca_tests.rs", "aggregator/core/src/golden.rs", "tests/tidy/main.rs"]
    {
        assert!(is_test(path), "{path}");
    }
    for path in ["aggregator/src/identity/ca.rs", "aggregator/core/src/lib.rs", "common/src/units.rs"] {
        assert!(!is_test(path), "{path}");
    }
    let line = |n| File { path: "a.rs".into(), text: n, is_test: false };
    let file = line("//! a\nfn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n".to_owned());
    let code: Vec<_> = file.code().map(|(n, _)| n).collect();
    assert_eq!(code, [2, 3, 7]);
}
