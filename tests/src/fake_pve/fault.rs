//! What can be made to go wrong with an answer, on demand.

/// A way to fail. The first that matches a request is used.
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
}

/// A fault and where it strikes.
#[derive(Clone, Debug)]
pub(super) struct Armed {
    pub(super) prefix: String,
    pub(super) fault: Fault,
    /// How many more times; `None` = until healed.
    pub(super) left: Option<u32>,
}
