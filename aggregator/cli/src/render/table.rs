//! Calm tables without borders that give up their least important columns before they give up being readable.

use comfy_table::presets::NOTHING;
use comfy_table::{
    Attribute, Cell as ComfyCell, CellAlignment, ColumnConstraint, ContentArrangement, Table as Comfy,
};

use super::Screen;
use super::page::wrap;
use super::tone::{Tone, of_word};

/// Space between two columns.
const GAP: u16 = 2;
/// A column that may not wrap still does when it is wider than this.
const LONGEST_UNBROKEN: u16 = 30;
/// A column of sentences is not made narrower than this to save another column.
const LEAST_PROSE: u16 = 20;
/// A remark gets a line of its own rather than less room than this.
const LEAST_REMARK: u16 = 40;
/// Indentation of such a line.
const REMARK_INDENT: &str = "    ";
/// Where space is limited, names are cut to between so many characters and so many.
const NAME_LENGTHS: (u16, u16) = (16, 28);

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    kind: Kind,
    hidden: bool,
    rank: u8,
}

/// What a column does when space is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Name,
    Prose,
    Remark,
}

impl Column {
    const fn new(title: &'static str, kind: Kind) -> Self {
        Self { title, kind, hidden: false, rank: 0 }
    }

    /// Words.
    #[must_use]
    pub const fn text(title: &'static str) -> Self {
        Self::new(title, Kind::Text)
    }

    /// Numbers: right aligned.
    #[must_use]
    pub const fn number(title: &'static str) -> Self {
        Self::new(title, Kind::Number)
    }

    /// Names as people choose them: cut when space is short. Something beside must tell which one is meant.
    #[must_use]
    pub const fn name(title: &'static str) -> Self {
        Self::new(title, Kind::Name)
    }

    /// Sentences: these wrap when space is short.
    #[must_use]
    pub const fn prose(title: &'static str) -> Self {
        Self::new(title, Kind::Prose)
    }

    /// Sentences that get lines of their own below the row when space is short. One such column, the last.
    #[must_use]
    pub const fn remark(title: &'static str) -> Self {
        Self::new(title, Kind::Remark)
    }

    /// May be left out when space is short; the highest goes first, 0 stays.
    #[must_use]
    pub const fn rank(mut self, rank: u8) -> Self {
        self.rank = rank;
        self
    }

    const fn wraps(self) -> bool {
        matches!(self.kind, Kind::Prose | Kind::Remark)
    }

    /// Is left out unless it tells something.
    #[must_use]
    pub const fn only_if(mut self, tells: bool) -> Self {
        self.hidden = !tells;
        self
    }
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A text with a tone.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    /// A word of the aggregator in its own tone; `-` when empty.
    pub fn word(word: &str) -> Self {
        Self::toned(if word.is_empty() { super::NO_DATA } else { word }, of_word(word))
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Normal)
    }
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    headings: bool,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new(), headings: true }
    }

    /// The same without headings.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.headings = false;
        self
    }

    /// Adds a row with a cell for each column.
    pub fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Lays the table out within `width` columns (`None` = as wide as it gets). Every cell is made harmless here.
    #[must_use]
    pub fn lines(&self, screen: &Screen, width: Option<usize>) -> Vec<String> {
        let mut shown: Vec<usize> =
            (0..self.columns.len()).filter(|index| !self.columns[*index].hidden).collect();
        let Some(limit) = width else {
            return trimmed(&self.lay_out(screen, &shown, None));
        };
        let width = u16::try_from(limit).unwrap_or(u16::MAX);
        let mut natural = vec![0; self.columns.len()];
        for (index, columns) in shown
            .iter()
            .zip(self.lay_out(screen, &shown, Some((width, NAME_LENGTHS.1))).column_max_content_widths())
        {
            natural[*index] = columns;
        }
        let remark = shown.last().copied().filter(|index| self.columns[*index].kind == Kind::Remark);
        let below = remark.filter(|_| self.needed(&shown, &natural) > u32::from(width));
        if below.is_some() {
            shown.pop();
        }
        self.leave_out(&mut shown, &natural, width);
        let spare = u32::from(width).saturating_sub(self.needed(&shown, &natural));
        let name =
            NAME_LENGTHS.0.saturating_add(u16::try_from(spare).unwrap_or(u16::MAX)).min(NAME_LENGTHS.1);
        let mut table = self.lay_out(screen, &shown, Some((width, name)));
        for (index, column) in shown.iter().zip(table.column_iter_mut()) {
            if !self.columns[*index].wraps() && natural[*index] <= LONGEST_UNBROKEN {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        match below {
            Some(remark) => self.with_remarks(screen, &mut table, remark, limit),
            None => trimmed(&table),
        }
    }

    /// Room these columns need, gaps included and prose at its least.
    fn needed(&self, shown: &[usize], natural: &[u16]) -> u32 {
        let least = |index: usize| match self.columns[index].kind {
            Kind::Name => natural[index].min(NAME_LENGTHS.0),
            Kind::Prose => natural[index].min(LEAST_PROSE),
            Kind::Remark => natural[index].min(LEAST_REMARK),
            _ => natural[index],
        };
        let gaps = u32::from(GAP) * u32::try_from(shown.len().saturating_sub(1)).unwrap_or(0);
        shown.iter().map(|index| u32::from(least(*index))).sum::<u32>() + gaps
    }

    /// Leaves out columns, the highest rank first, until the rest fits or has no rank.
    fn leave_out(&self, shown: &mut Vec<usize>, natural: &[u16], width: u16) {
        while self.needed(shown, natural) > u32::from(width) {
            let ranked = shown.iter().enumerate().filter(|(_, index)| self.columns[**index].rank > 0);
            let Some((place, _)) = ranked.max_by_key(|(place, index)| (self.columns[**index].rank, *place))
            else {
                return;
            };
            shown.remove(place);
        }
    }

    /// The rows, each followed by its remark. Rows are laid out one by one, so that it is known where each ends.
    fn with_remarks(&self, screen: &Screen, table: &mut Comfy, remark: usize, width: usize) -> Vec<String> {
        let mut remarks =
            self.rows.iter().map(|row| row.get(remark).map(|cell| cell.text.as_str()).unwrap_or_default());
        let mut lines = Vec::new();
        for line in trimmed(table).into_iter().enumerate() {
            let (number, line) = line;
            lines.push(line);
            if self.headings && number == 0 {
                continue;
            }
            let text = screen.plain(remarks.next().unwrap_or_default());
            for part in wrap(&text, width.saturating_sub(REMARK_INDENT.len())) {
                if !part.is_empty() {
                    lines.push(format!("{REMARK_INDENT}{part}"));
                }
            }
        }
        lines
    }

    /// `limits`: columns of the screen, and of a name.
    fn lay_out(&self, screen: &Screen, shown: &[usize], limits: Option<(u16, u16)>) -> Comfy {
        let mut table = Comfy::new();
        table.load_style(NOTHING).force_no_tty();
        if let Some((width, _)) = limits {
            table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
        }
        if screen.colour {
            table.enforce_styling().style_text_only();
        }
        if self.headings {
            table.set_header(shown.iter().map(|index| {
                let heading = ComfyCell::new(self.columns[*index].title);
                if screen.colour { heading.add_attribute(Attribute::Bold) } else { heading }
            }));
        }
        for row in &self.rows {
            table.add_row(shown.iter().filter_map(|index| {
                let name = limits.filter(|_| self.columns[*index].kind == Kind::Name).map(|(_, name)| name);
                row.get(*index).map(|cell| styled(screen, cell, name))
            }));
        }
        let last = shown.len().saturating_sub(1);
        for (place, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if place == last { 0 } else { GAP }));
            if shown.get(place).is_some_and(|index| self.columns[*index].kind == Kind::Number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

fn trimmed(table: &Comfy) -> Vec<String> {
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn styled(screen: &Screen, cell: &Cell, longest: Option<u16>) -> ComfyCell {
    let mut text = screen.plain(&cell.text);
    if let Some(longest) = longest.map(usize::from)
        && text.chars().count() > longest
    {
        text = text.chars().take(longest.saturating_sub(3)).chain("...".chars()).collect();
    }
    let styled = ComfyCell::new_owned(text);
    match cell.tone.colour() {
        _ if !screen.colour => styled,
        Some(colour) => styled.fg(colour),
        None if cell.tone == Tone::Strong => styled.add_attribute(Attribute::Bold),
        None => styled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    fn screen(colour: bool) -> Screen {
        Screen { width: None, colour, unicode: true, zone: TimeZone::UTC }
    }

    fn sample() -> Table {
        let mut table = Table::new([
            Column::text("NODE"),
            Column::number("CPU %").rank(1),
            Column::number("GUESTS").rank(2),
            Column::prose("REASON"),
        ]);
        table.row([
            "pve1".into(),
            "7.5".into(),
            "12".into(),
            Cell::toned("one two three four five six seven", Tone::Red),
        ]);
        table
    }

    #[test]
    fn columns_go_by_rank_and_prose_wraps_within_the_width() {
        for (width, titles) in
            [(60, "NODE  CPU %  GUESTS  REASON"), (40, "NODE  CPU %  REASON"), (30, "NODE  REASON")]
        {
            let lines = sample().lines(&screen(false), Some(width));
            assert_eq!(lines[0], titles, "at {width}");
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:#?}");
        }
        assert_eq!(
            sample().lines(&screen(false), None)[1],
            "pve1    7.5      12  one two three four five six seven"
        );
    }

    #[test]
    fn colours_only_where_welcome() {
        assert!(sample().lines(&screen(true), None).concat().contains('\u{1b}'));
        assert!(!sample().lines(&screen(false), None).concat().contains('\u{1b}'));
    }
}
