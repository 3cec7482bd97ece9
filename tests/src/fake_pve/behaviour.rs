//! How a played migration goes, where a test wants it to go otherwise than well.

use std::time::Duration;

use evenkeel_common::id::NodeId;

/// What becomes of a migration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Course {
    /// It ends `OK` and the guest is on the target.
    #[default]
    Succeeds,
    /// Halfway its task ends with this text, and the guest stays where it was.
    FailsHalfway(String),
    /// Its task never ends, and the guest stays locked where it was. `FakeCluster::end_task` ends it.
    Hangs,
    /// Its task ends as `migration problems`, and yet the guest is on the target.
    ProblemsButMoves,
    /// Halfway the guest is deleted, and the task fails.
    VanishesMidway,
    /// HA forgets the request although its task said `OK`. Without HA this is [`Self::Succeeds`].
    HaDrops,
    /// Halfway the guest is deleted and a stranger takes its number on the source: other name, other UUID and MAC
    /// address.
    Reused,
    /// It ends `OK`, and the guest is on this node instead of the target.
    LandsElsewhere(NodeId),
}

/// How a guest's migrations go. Without one, they succeed in the time that their memory takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// What becomes of them.
    pub course: Course,
    /// Whether the guest keeps its lock `migrate` when it has come to that, wherever it is then.
    pub stays_locked: bool,
    /// How long after the task's start it comes to that, if not in the usual time.
    pub after: Option<Duration>,
}

impl From<Course> for Behaviour {
    fn from(course: Course) -> Self {
        Self { course, stays_locked: false, after: None }
    }
}

impl Behaviour {
    /// The same, but the guest keeps its lock.
    #[must_use]
    pub fn locked(mut self) -> Self {
        self.stays_locked = true;
        self
    }

    /// The same, but it comes to that this long after the task's start.
    #[must_use]
    pub fn after(mut self, span: Duration) -> Self {
        self.after = Some(span);
        self
    }
}
