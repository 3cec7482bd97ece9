//! What every request has: who asks, and names and numbers that have to be such.

use evenkeel_common::id::{InvalidId, Vmid};
use tonic::{Request, Status};

use crate::identity::tokens::Principal;

/// Who calls. The gate lets nobody without a token come here.
pub(super) fn who<T>(request: &Request<T>) -> Option<Principal> {
    request.extensions().get::<Principal>().cloned()
}

pub(super) fn name_of(who: Option<&Principal>) -> String {
    who.map_or_else(|| "unknown".into(), |p| format!("{} ({})", p.label, p.id))
}

pub(super) fn vmid(number: u32) -> Result<Option<Vmid>, Status> {
    let named = (number != 0).then(|| Vmid::new(number)).transpose();
    named.map_err(|error| Status::invalid_argument(error.to_string()))
}

pub(super) fn optional<T: std::str::FromStr<Err = InvalidId>>(text: &str) -> Result<Option<T>, Status> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

pub(super) fn parse<T: std::str::FromStr<Err = InvalidId>>(text: &str) -> Result<T, Status> {
    text.parse().map_err(|error: InvalidId| Status::invalid_argument(error.to_string()))
}
