//! Parameters are enforced as Proxmox enforces them: an unknown or ill-typed one is a 400 that names it.

use serde_json::{Map, Value};

use super::cluster::PveVersion;

/// What a parameter may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Boolean,
    /// A whole number, and the least it may be.
    Integer(Option<i64>),
    /// A number that need not be whole, from 0 on.
    Number,
    OneOf(&'static [&'static str]),
}

/// A parameter of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
    /// Whether 8 does not know it.
    pub(super) since_9: bool,
}

/// An optional parameter.
pub(super) const fn optional(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, required: false, since_9: false }
}

/// A parameter that must be there.
pub(super) const fn required(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, required: true, since_9: false }
}

/// An optional parameter that 8 refuses as unknown.
pub(super) const fn since_9(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, required: false, since_9: true }
}

impl Kind {
    /// What is wrong with a value.
    fn problem(self, value: &str) -> Option<String> {
        let ill_typed = |kind: &str| format!("type check ('{kind}') failed - got '{value}'");
        let too_small = |least: i64| format!("value must have a minimum value of {least}");
        match self {
            Self::Text => None,
            Self::Boolean => (!matches!(value, "0" | "1")).then(|| ill_typed("boolean")),
            Self::Integer(least) => match value.parse::<i64>() {
                Err(_) => Some(ill_typed("integer")),
                Ok(number) => least.filter(|least| number < *least).map(too_small),
            },
            Self::Number => match value.parse::<f64>() {
                Ok(number) if number.is_finite() => (number < 0.0).then(|| too_small(0)),
                Ok(_) | Err(_) => Some(ill_typed("number")),
            },
            Self::OneOf(words) => (!words.contains(&value)).then(|| {
                format!("value '{value}' does not have a value in the enumeration '{}'", words.join(", "))
            }),
        }
    }
}

/// The `errors` of a 400: empty when all is well.
pub(super) fn check(given: &[(String, String)], known: &[Param], version: PveVersion) -> Map<String, Value> {
    let known = || known.iter().filter(|param| !param.since_9 || version == PveVersion::V9);
    let mut errors = Map::new();
    for (name, value) in given {
        let problem = match known().find(|param| param.name == name) {
            None => Some(
                "property is not defined in schema and the schema does not allow additional properties"
                    .to_owned(),
            ),
            Some(param) => param.kind.problem(value),
        };
        errors.extend(problem.map(|problem| (name.clone(), problem.into())));
    }
    for param in known().filter(|param| param.required) {
        if !given.iter().any(|(name, _)| name == param.name) {
            errors.insert(param.name.to_owned(), "property is missing and it is not optional".into());
        }
    }
    errors
}
