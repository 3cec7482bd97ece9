//! What a colour means: one palette for tables and text, and the words that carry one.

use comfy_table::Color;

/// The sense of a colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// None.
    #[default]
    Normal,
    /// Stands out without a colour.
    Strong,
    /// Does not matter much.
    Faint,
    /// As it should be.
    Green,
    /// Needs someone.
    Red,
    /// Needs a look.
    Amber,
    /// Under way.
    Blue,
    /// Being watched.
    Cyan,
    /// Waits for a person.
    Magenta,
}

impl Tone {
    /// The colour in a table cell.
    #[must_use]
    pub fn colour(self) -> Option<Color> {
        match self {
            Self::Normal | Self::Strong => None,
            Self::Faint => Some(Color::DarkGrey),
            Self::Green => Some(Color::DarkGreen),
            Self::Red => Some(Color::DarkRed),
            Self::Amber => Some(Color::DarkYellow),
            Self::Blue => Some(Color::DarkBlue),
            Self::Cyan => Some(Color::DarkCyan),
            Self::Magenta => Some(Color::DarkMagenta),
        }
    }

    /// The number of the terminal's "select graphic rendition" command; `None` for plain text.
    #[must_use]
    pub fn code(self) -> Option<u8> {
        match self {
            Self::Normal => None,
            Self::Strong => Some(1),
            Self::Faint => Some(90),
            Self::Green => Some(32),
            Self::Red => Some(31),
            Self::Amber => Some(33),
            Self::Blue => Some(34),
            Self::Cyan => Some(36),
            Self::Magenta => Some(35),
        }
    }

    /// The text in this tone, where colours are welcome.
    #[must_use]
    pub fn paint(self, text: &str, colour: bool) -> String {
        match self.code() {
            Some(code) if colour => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            _ => text.to_owned(),
        }
    }
}

/// What can become of a recommendation, with its colour; the order is that of summaries.
pub const ACTIONS: [(&str, Tone); 9] = [
    ("executed", Tone::Green),
    ("pending", Tone::Blue),
    ("failed", Tone::Red),
    ("awaiting_approval", Tone::Magenta),
    ("recommended", Tone::Strong),
    ("filtered", Tone::Red),
    ("deferred", Tone::Amber),
    ("observing", Tone::Cyan),
    ("skipped", Tone::Faint),
];

/// The tone of a word the aggregator uses: actions, verdicts, states and severities. Unknown words have none.
#[must_use]
pub fn of_word(word: &str) -> Tone {
    if let Some((_, tone)) = ACTIONS.iter().find(|(action, _)| *action == word) {
        return *tone;
    }
    match word {
        "pass" | "healthy" | "normal" | "active" | "good" | "online" | "running" | "ok" | "agreed"
        | "done" => Tone::Green,
        "critical" | "high" | "damaged" | "bad" | "silent" | "offline" | "unreachable" | "disputed" => {
            Tone::Red
        }
        "warning" | "elevated" | "degraded" | "stale" | "maintenance" | "paused" | "agent_only"
        | "pve_only" | "open" => Tone::Amber,
        "approved" | "prepared" | "submitting" | "submitted" | "verifying" => Tone::Blue,
        "proposed" => Tone::Magenta,
        "aborted" | "not_enabled" | "not_asked" | "stopped" | "never_seen" | "closed" | "none"
        | "unknown" => Tone::Faint,
        _ => Tone::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::decision::Action;

    #[test]
    fn every_action_has_its_colour() {
        let mut known: Vec<&str> = Action::ALL.iter().map(|action| action.name()).collect();
        let mut shown = ACTIONS.map(|(name, _)| name);
        known.sort_unstable();
        shown.sort_unstable();
        assert_eq!(known, shown);
        let painted = |action: &str| of_word(action).paint(action, true);
        assert_eq!(painted("executed"), "\u{1b}[32mexecuted\u{1b}[0m");
        assert_eq!(painted("awaiting_approval"), "\u{1b}[35mawaiting_approval\u{1b}[0m");
        assert_eq!(of_word("executed").paint("executed", false), "executed");
    }
}
