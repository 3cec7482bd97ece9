//! What can be made to go wrong with an answer, on demand.

use http::Method;

use super::cluster::FakeCluster;

/// A way to fail. The first that matches a request is used.
///
/// A POST that is struck has not been processed, whatever the answer looks like, unless the fault says `After`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 401, as for a token that has been deleted.
    Unauthorized,
    /// 403 with this text.
    Forbidden(String),
    /// 500 with this text.
    Internal(String),
    /// 595: the node that the path names does not answer the one that was asked.
    NodeUnreachable,
    /// No answer at all, while the connection stays.
    Hang,
    /// The connection ends instead of an answer.
    Reset,
    /// The answer starts in time and then comes a byte now and then, for ever.
    SlowBody,
    /// The connection ends in the middle of the answer.
    TruncatedBody,
    /// 200 with an empty list (or object).
    EmptyList,
    /// 200 with the first half of the list, rounded down.
    HalfList,
    /// 200 with an answer that goes on and on.
    Oversized,
    /// 200 with something that is not JSON.
    InvalidJson,
    /// Processed; then the connection ends instead of the answer.
    ResetAfter,
    /// Processed; then no answer at all, while the connection stays.
    HangAfter,
    /// Processed; then 500 with this text instead of the answer.
    InternalAfter(String),
}

impl Fault {
    /// Whether the request has its effect all the same.
    pub(super) fn strikes_after(&self) -> bool {
        matches!(self, Self::ResetAfter | Self::HangAfter | Self::InternalAfter(_))
    }
}

/// A fault and where it strikes.
#[derive(Clone, Debug)]
pub(super) struct Armed {
    /// `None`: any.
    method: Option<Method>,
    prefix: String,
    fault: Fault,
    /// How many more times; `None` = until healed.
    left: Option<u32>,
}

impl FakeCluster {
    /// Makes every request whose path (below `/api2/json`) starts with `prefix` fail, until [`Self::heal`].
    pub fn fail(&mut self, prefix: &str, fault: Fault) {
        self.arm(None, prefix, fault, None);
    }

    /// The same for the next `times` requests only.
    pub fn fail_times(&mut self, prefix: &str, fault: Fault, times: u32) {
        self.arm(None, prefix, fault, Some(times));
    }

    /// As [`Self::fail`], for POSTs only: preconditions are asked for at the very path that starts a migration.
    pub fn fail_posts(&mut self, prefix: &str, fault: Fault) {
        self.arm(Some(Method::POST), prefix, fault, None);
    }

    /// The same for the next `times` POSTs only.
    pub fn fail_posts_times(&mut self, prefix: &str, fault: Fault, times: u32) {
        self.arm(Some(Method::POST), prefix, fault, Some(times));
    }

    fn arm(&mut self, method: Option<Method>, prefix: &str, fault: Fault, left: Option<u32>) {
        self.faults.push(Armed { method, prefix: prefix.to_owned(), fault, left });
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.faults.clear();
    }

    /// Takes the fault for a request to `path`, if one is armed.
    pub(super) fn strike(&mut self, method: &Method, path: &str) -> Option<Fault> {
        let armed = self.faults.iter_mut().find(|armed| {
            armed.left != Some(0)
                && armed.method.as_ref().is_none_or(|only| only == method)
                && path.starts_with(&armed.prefix)
        })?;
        armed.left = armed.left.map(|left| left - 1);
        Some(armed.fault.clone())
    }
}
