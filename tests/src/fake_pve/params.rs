//! Parameters are enforced as Proxmox enforces them: an unknown or ill-typed one is a 400 that names it.

use serde_json::{Map, Value};

/// What a parameter may be.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Boolean,
    OneOf(&'static [&'static str]),
}

/// A parameter of a call.
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
}

/// An optional parameter.
pub(super) const fn optional(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, required: false }
}

/// A parameter that must be there.
pub(super) const fn required(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, required: true }
}

/// The `errors` of a 400: empty when all is well.
pub(super) fn check(given: &[(String, String)], known: &[Param]) -> Map<String, Value> {
    let mut errors = Map::new();
    for (name, value) in given {
        let problem = match known.iter().find(|param| param.name == name) {
            None => Some(
                "property is not defined in schema and the schema does not allow additional properties"
                    .to_owned(),
            ),
            Some(Param { kind: Kind::Text, .. }) => None,
            Some(Param { kind: Kind::Boolean, .. }) => (!matches!(value.as_str(), "0" | "1"))
                .then(|| format!("type check ('boolean') failed - got '{value}'")),
            Some(Param { kind: Kind::OneOf(words), .. }) => (!words.contains(&value.as_str())).then(|| {
                format!("value '{value}' does not have a value in the enumeration '{}'", words.join(", "))
            }),
        };
        errors.extend(problem.map(|problem| (name.clone(), problem.into())));
    }
    for param in known.iter().filter(|param| param.required) {
        if !given.iter().any(|(name, _)| name == param.name) {
            errors.insert(param.name.to_owned(), "property is missing and it is not optional".into());
        }
    }
    errors
}
