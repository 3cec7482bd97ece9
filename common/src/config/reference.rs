//! The manual from the schema: the reference as Markdown and the example as TOML, the same on every run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::join;
use super::schema::{self, Kind, Root};

/// Width of comments in the example.
const WIDTH: usize = 100;

/// One section of the file.
struct Section {
    /// As in the header line: `[collect]`, `[[cluster]]`; empty at the top level.
    header: String,
    description: String,
    /// Whether the file may do without: an example must not switch it on.
    commented: bool,
    options: Vec<ConfigOption>,
}

struct ConfigOption {
    name: String,
    accepts: String,
    /// As TOML; `None` when it is unset.
    default: Option<String>,
    required: bool,
    /// Whether it may have no value at all.
    optional: bool,
    description: String,
    words: Vec<(String, String)>,
}

struct Walk<'a> {
    root: &'a Root,
    sections: Vec<Section>,
}

/// How a section is reached.
struct Place<'a> {
    path: String,
    header: String,
    commented: bool,
    /// The values of the section in the configuration's `Default`, where it is part of it.
    defaults: Option<&'a Value>,
    description: String,
}

impl Walk<'_> {
    fn section(&mut self, node: &Value, place: Place<'_>) {
        let Kind::Table(properties) = self.root.kind(node) else { return };
        let required: Vec<_> = schema::required(self.root.resolve(node)).collect();
        let mut section = Section {
            header: place.header,
            description: place.description,
            commented: place.commented,
            options: Vec::new(),
        };
        let mut deeper = Vec::new();
        // Sorted here, because whether schemars keeps the order of declaration is a feature of some other crate.
        for (name, option) in properties.iter().collect::<BTreeMap<_, _>>() {
            let path = join(&place.path, name);
            let description = self.description(option);
            let default = place.defaults.and_then(|all| all.get(name)).or_else(|| option.get("default"));
            let below = |node, header, commented, defaults| {
                (
                    node,
                    Place {
                        path: path.clone(),
                        header,
                        commented,
                        defaults,
                        description: description.clone(),
                    },
                )
            };
            let is_table = |node| matches!(self.root.kind(node), Kind::Table(_));
            match self.root.kind(option) {
                Kind::Table(_) => {
                    let commented = place.commented || default.is_none_or(Value::is_null);
                    deeper.push(below(option, format!("[{path}]"), commented, default));
                }
                Kind::Array(items) if is_table(items) => {
                    deeper.push(below(items, format!("[[{path}]]"), true, None));
                }
                Kind::Map(values) if is_table(values) => {
                    deeper.push(below(values, format!("[{path}.NAME]"), true, None));
                }
                kind => section.options.push(ConfigOption {
                    name: name.clone(),
                    accepts: self.accepts(option),
                    default: default.and_then(toml_literal),
                    required: required.contains(&name.as_str()),
                    optional: self.root.optional(option),
                    description,
                    words: match kind {
                        Kind::Choice(words) => {
                            words.iter().map(|(w, d)| ((*w).to_owned(), flat(d))).collect()
                        }
                        _ => Vec::new(),
                    },
                }),
            }
        }
        self.sections.push(section);
        for (node, place) in deeper {
            self.section(node, place);
        }
    }

    fn description(&self, node: &Value) -> String {
        let own = |node: &Value| node.get("description").and_then(Value::as_str).map(flat);
        own(node).or_else(|| own(self.root.resolve(node))).unwrap_or_default()
    }

    fn accepts(&self, node: &Value) -> String {
        match self.root.kind(node) {
            Kind::Array(items) => format!("list of: {}", self.accepts(items)),
            Kind::Map(values) => format!("section of: {}", self.accepts(values)),
            kind => kind.to_string(),
        }
    }
}

fn sections<T: JsonSchema + Default + Serialize>() -> Vec<Section> {
    let root = Root::of::<T>();
    // A default that can not be written as JSON (NaN) shows as unset, which `assert_documented` then reports.
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    let mut walk = Walk { root: &root, sections: Vec::new() };
    let description = walk.description(root.node());
    let (path, header, commented) = (String::new(), String::new(), false);
    let top = Place { path, header, commented, defaults: Some(&defaults), description };
    walk.section(root.node(), top);
    walk.sections
}

/// The reference of all options as Markdown: a table per section.
#[must_use]
pub fn render_reference<T: JsonSchema + Default + Serialize>(title: &str) -> String {
    let mut text = format!("# {title}\n");
    for section in sections::<T>() {
        if !section.header.is_empty() {
            let _ = write!(text, "\n## `{}`\n", section.header); // Writing to a String can not fail.
        }
        if !section.description.is_empty() {
            let _ = write!(text, "\n{}\n", section.description);
        }
        if section.options.is_empty() {
            continue;
        }
        text.push_str("\n| option | type | default | description |\n|---|---|---|---|\n");
        for option in section.options {
            let default = match (option.default, option.required) {
                (Some(default), _) => format!("`{default}`"),
                (None, true) => "required".into(),
                (None, false) => "unset".into(),
            };
            let words = option.words.iter().filter(|(_, meaning)| !meaning.is_empty());
            let words: String = words.map(|(word, meaning)| format!(" `{word}`: {meaning}")).collect();
            let cells = [option.accepts, default, option.description + &words].map(|c| c.replace('|', "\\|"));
            let _ = writeln!(text, "| `{}` | {} |", option.name, cells.join(" | "));
        }
    }
    text
}

/// An example file: every option with its description, set to its default and commented out. A line that starts with
/// `#` and no space is an option; taking the `#` away sets it. It reads as the default configuration.
#[must_use]
pub fn render_example<T: JsonSchema + Default + Serialize>() -> String {
    let mut text = String::new();
    for section in sections::<T>() {
        if !text.is_empty() {
            text.push('\n');
        }
        comment(&mut text, &section.description);
        if !section.header.is_empty() {
            let mark = if section.commented { "#" } else { "" };
            let _ = writeln!(text, "{mark}{}", section.header);
        }
        for option in section.options {
            text.push('\n');
            comment(&mut text, &option.description);
            for (word, meaning) in option.words.iter().filter(|(_, meaning)| !meaning.is_empty()) {
                comment(&mut text, &format!("\"{word}\": {meaning}"));
            }
            let accepts = option.accepts;
            let _ = match (option.default, option.required) {
                (Some(default), _) => writeln!(text, "# Accepts {accepts}.\n#{} = {default}", option.name),
                (None, true) => writeln!(text, "# Accepts {accepts}. Required.\n#{} =", option.name),
                (None, false) => writeln!(text, "# Accepts {accepts}. Unset by default.\n#{} =", option.name),
            };
        }
    }
    text
}

/// For tests of config structs: every option has a description, and a default unless it is required or may be unset.
///
/// # Panics
/// Naming the options that fall short.
pub fn assert_documented<T: JsonSchema + Default + Serialize>() {
    let mut faults = Vec::new();
    for section in sections::<T>() {
        if section.description.is_empty() {
            faults.push(format!("section {} has no description", section.header));
        }
        for option in section.options {
            let place = format!("option {} of section {:?}", option.name, section.header);
            if option.description.is_empty() {
                faults.push(format!("{place} has no description"));
            }
            if option.default.is_none() && !option.required && !option.optional {
                faults.push(format!("{place} has no default"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Comment lines of at most [`WIDTH`] characters.
fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    if line != "#" {
        text.push_str(&line);
        text.push('\n');
    }
}

/// A doc comment in one line.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A default value as one would write it in the file; `None` for no value.
fn toml_literal(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(toml::Value::String(text.clone()).to_string()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(toml_literal).collect();
            items.map(|items| format!("[{}]", items.join(", ")))
        }
        Value::Object(map) => {
            let pairs = map.iter().collect::<BTreeMap<_, _>>().into_iter();
            let pair = |(key, value): (&String, &Value)| {
                Some(format!("{} = {}", toml::Value::String(key.clone()), toml_literal(value)?))
            };
            let pairs: Vec<_> = pairs.filter_map(pair).collect();
            Some(if pairs.is_empty() { "{}".into() } else { format!("{{ {} }}", pairs.join(", ")) })
        }
    }
}
