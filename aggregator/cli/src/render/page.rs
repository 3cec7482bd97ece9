//! Running text: headings, labelled values, lists and tables, wrapped to the screen.
//!
//! Everything put on a page is made harmless ([`super::plain`]); commands need not think of it.

use super::Screen;
use super::table::Table;
use super::tone::Tone;

/// A text under construction.
pub struct Page<'a> {
    screen: &'a Screen,
    text: String,
}

impl<'a> Page<'a> {
    /// An empty page for this screen.
    #[must_use]
    pub fn new(screen: &'a Screen) -> Self {
        Self { screen, text: String::new() }
    }

    /// A paragraph in a tone.
    pub fn line(&mut self, tone: Tone, text: &str) {
        self.wrapped(tone, "", text);
    }

    /// An empty line, and a title that stands out.
    pub fn section(&mut self, title: &str) {
        self.gap();
        self.wrapped(Tone::Strong, "", title);
    }

    /// An empty line, unless there is one or the page is empty.
    pub fn gap(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// A list entry.
    pub fn bullet(&mut self, text: &str) {
        self.wrapped(Tone::Normal, "  - ", text);
    }

    /// A line of pieces, each in its tone, as wide as they are: whoever makes it knows the screen.
    pub fn pieces(&mut self, pieces: &[(Tone, &str)]) {
        let mut line = String::new();
        for (tone, text) in pieces {
            line.push_str(&tone.paint(&self.screen.plain(text), self.screen.colour));
        }
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// Labels with their values below each other.
    pub fn fields(&mut self, fields: &[(&str, String)]) {
        let longest = fields.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, value) in fields {
            self.wrapped(Tone::Normal, &format!("  {label:longest$}  "), value);
        }
    }

    /// A table that may use the whole width of the screen.
    pub fn table(&mut self, table: &Table) {
        self.place(table, self.screen.width, "");
    }

    /// A table as part of the text: indented, and as wide as the text.
    pub fn inset(&mut self, table: &Table) {
        self.place(table, Some(self.screen.text_width().saturating_sub(2)), "  ");
    }

    /// The finished text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn place(&mut self, table: &Table, width: Option<usize>, indent: &str) {
        for line in table.lines(self.screen, width) {
            self.text.push_str(indent);
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }

    /// Wraps between words; following lines are indented by the width of `lead`.
    fn wrapped(&mut self, tone: Tone, lead: &str, text: &str) {
        let indent = " ".repeat(lead.chars().count());
        let room = self.screen.text_width().saturating_sub(indent.len()).max(20);
        let mut lead = lead;
        for line in wrap(&self.screen.plain(text), room) {
            self.text.push_str(lead);
            self.text.push_str(&tone.paint(&line, self.screen.colour));
            self.text.push('\n');
            lead = &indent;
        }
    }
}

/// Lines of at most `room` characters, broken between words where possible.
#[must_use]
pub fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + rest.len() > room {
            lines.push(String::new());
            used = 0;
        }
        // A word longer than a line, like a digest, is cut.
        while !rest.is_empty() {
            let head: String = rest.drain(..rest.len().min(room)).collect();
            if let Some(line) = lines.last_mut() {
                if used > 0 {
                    line.push(' ');
                    used += 1;
                }
                used += head.chars().count();
                line.push_str(&head);
            }
            if !rest.is_empty() {
                lines.push(String::new());
                used = 0;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_wraps_between_words_and_cuts_only_what_is_longer_than_a_line() {
        let text = "the quick brown fox jumps over abcdefghijklmnopqrstuvwxyz and on";
        let lines = wrap(text, 12);
        assert!(lines.iter().all(|line| line.chars().count() <= 12), "{lines:?}");
        assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        assert_eq!(lines[0], "the quick");
        assert_eq!(wrap("", 12), [""]);
    }
}
