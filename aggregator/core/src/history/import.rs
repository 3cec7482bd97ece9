//! Reads history files of any size, a piece at a time, in memory that does not grow: a JSON array of records, a single
//! record, or records one after the other (newline-delimited or not). The reader is given bytes and asks for nothing, so
//! files, sockets and tests look the same to it, and where the pieces are cut makes no difference.
//!
//! What is no record is counted and told with its line, and reading goes on behind it. Where the braces match, that is
//! where they close. Where they do not, it is where a record could begin and a JSON reader would have to give up: so a
//! line that was cut off or garbled costs itself alone, and what is valid JSON is never torn apart.

use std::mem;

use evenkeel_common::time::Timestamp;

use super::fault::{DEEPEST, Fault, LONGEST_RECORD};
use super::record::Record;

/// Faults that are told with their line; the rest is only counted.
pub const TOLD: usize = 20;

/// What came of reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Bytes read.
    pub bytes: u64,
    /// Records found.
    pub records: u64,
    /// Pieces that are no record.
    pub corrupt: u64,
    /// The first [`TOLD`] of them: the line each begins on, from 1, and why.
    pub faults: Vec<(u64, Fault)>,
    /// Whether the input ends where it can not: within a record, or before the array is closed.
    pub cut_off: bool,
}

/// Where the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between two values.
    Between,
    /// Within a record, which is collected.
    Record,
    /// Within a value that was told to be wrong and whose end is known by its brackets.
    Passing,
    /// Within a value without brackets.
    Scalar,
    /// Behind something broken: waits for where a record can begin.
    Lost(Waiting),
}

/// What was seen last while waiting for a record to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Anything.
    Anything,
    /// The start of a line.
    NewLine,
    /// A closing brace.
    Brace,
    /// A closing brace and a comma.
    Comma,
}

/// Reads records out of bytes.
#[derive(Debug)]
pub struct Reader {
    /// Records after this are refused.
    latest: Timestamp,
    account: Account,
    state: State,
    /// Line of the next byte, from 1.
    line: u64,
    /// How many arrays of records we are within. More than one is wrong; what they hold is read all the same.
    arrays: u64,
    /// Line on which the value under way began.
    began: u64,
    /// The record under way.
    buffer: Vec<u8>,
    /// Open brackets of the value under way.
    depth: u64,
    /// Which of them are braces: the lowest bit is the innermost.
    braces: u64,
    quoted: bool,
    escaped: bool,
    /// Last byte outside quotes that is no space; the closing quote for a text.
    last: u8,
    /// Whether only spaces have come on this line.
    fresh: bool,
    /// Where, within the record under way, a line begins that may be a record of its own: in the buffer, and its number.
    retry: Option<(usize, u64)>,
}

/// Receives the records.
pub type Sink<'a> = dyn FnMut(Record) + 'a;

impl Reader {
    /// A reader at the start. Records with a time after `latest` count as corrupt.
    #[must_use]
    pub fn new(latest: Timestamp) -> Self {
        Self {
            latest,
            account: Account::default(),
            state: State::Between,
            line: 1,
            arrays: 0,
            began: 1,
            buffer: Vec::new(),
            depth: 0,
            braces: 0,
            quoted: false,
            escaped: false,
            last: 0,
            fresh: true,
            retry: None,
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Reads on.
    pub fn push(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        self.account.bytes += bytes.len() as u64;
        for &byte in bytes {
            self.step(byte, sink);
        }
    }

    /// The input has ended.
    #[must_use]
    pub fn finish(mut self, sink: &mut Sink<'_>) -> Account {
        self.account.cut_off = matches!(self.state, State::Record | State::Passing) || self.arrays > 0;
        while self.state == State::Record {
            self.give_up(Fault::CutOff, sink);
        }
        self.account
    }

    fn step(&mut self, byte: u8, sink: &mut Sink<'_>) {
        match self.state {
            State::Between => self.between(byte),
            State::Record => self.record(byte, sink),
            State::Passing => self.passing(byte),
            State::Scalar => self.scalar(byte),
            State::Lost(waiting) => self.lost(byte, waiting),
        }
        match byte {
            b'\n' => {
                self.line += 1;
                self.fresh = true;
            }
            b' ' | b'\t' | b'\r' => {}
            _ => self.fresh = false,
        }
    }

    fn between(&mut self, byte: u8) {
        let found = match byte {
            // The last three are a byte order mark, which some editors put at the start.
            b' ' | b'\t' | b'\r' | b'\n' | b',' | 0xEF | 0xBB | 0xBF => return,
            b'{' => return self.begin(byte),
            b']' if self.arrays > 0 => return self.arrays -= 1,
            b'[' => {
                self.arrays = self.arrays.saturating_add(1);
                if self.arrays == 1 {
                    return;
                }
                self.began = self.line;
                return self.note(Fault::NotAnObject { found: "an array" });
            }
            b'"' => "a text",
            b'0'..=b'9' | b'-' => "a number",
            b't' | b'f' | b'n' => "a word",
            _ => "no JSON",
        };
        self.began = self.line;
        self.note(Fault::NotAnObject { found });
        (self.quoted, self.escaped) = (byte == b'"', false);
        self.state = match byte {
            b'}' if self.arrays > 0 => State::Lost(Waiting::Brace),
            _ if self.arrays > 0 && found == "no JSON" => State::Lost(Waiting::Anything),
            _ => State::Scalar,
        };
    }

    /// Begins a record with its opening brace.
    fn begin(&mut self, byte: u8) {
        self.began = self.line;
        self.buffer.clear();
        self.buffer.push(byte);
        (self.depth, self.braces) = (1, 1);
        (self.quoted, self.escaped, self.last, self.retry) = (false, false, byte, None);
        self.state = State::Record;
    }

    fn record(&mut self, byte: u8, sink: &mut Sink<'_>) {
        if self.buffer.len() >= LONGEST_RECORD {
            self.pass(Fault::TooLong);
            return self.passing(byte);
        }
        if self.quoted {
            if byte == b'\n' {
                self.give_up(Fault::OpenQuote, sink);
                return self.again(byte, sink);
            }
            self.buffer.push(byte);
            return self.within_quotes(byte);
        }
        if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') && !self.may_follow(byte) {
            if byte == b'{' {
                let retried = self.retry.is_some();
                self.give_up(Fault::NextBegins, sink);
                if !retried {
                    self.state = State::Between;
                }
            } else {
                self.give_up(Fault::Garbage, sink);
            }
            return self.again(byte, sink);
        }
        if byte == b'{' && self.fresh && self.retry.is_none() {
            self.retry = Some((self.buffer.len(), self.line));
        }
        self.buffer.push(byte);
        self.outside_quotes(byte);
        if self.depth == 0 {
            self.complete(sink);
        } else if self.depth > u64::from(DEEPEST) {
            self.pass(Fault::TooDeep);
        }
    }

    /// Handles the byte at which something was given up, in the state that holds now. The line is not counted here.
    fn again(&mut self, byte: u8, sink: &mut Sink<'_>) {
        match self.state {
            State::Between => self.between(byte),
            State::Record => self.record(byte, sink),
            State::Passing => self.passing(byte),
            State::Scalar => self.scalar(byte),
            State::Lost(waiting) => self.lost(byte, waiting),
        }
    }

    fn within_quotes(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => (self.quoted, self.last) = (false, b'"'),
            _ => {}
        }
    }

    fn outside_quotes(&mut self, byte: u8) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => return,
            b'"' => return self.quoted = true,
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                self.braces = self.braces << 1 | u64::from(byte == b'{');
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.braces >>= 1;
            }
            _ => {}
        }
        self.last = byte;
    }

    /// Whether a JSON reader could go on with this byte outside quotes. It says yes too often, never no to valid JSON.
    fn may_follow(&self, byte: u8) -> bool {
        let in_braces = self.braces & 1 == 1;
        let value = match self.last {
            b':' | b'[' => true,
            b',' => !in_braces,
            _ => false,
        };
        match byte {
            b'{' | b'[' => value,
            b'"' => value || (in_braces && matches!(self.last, b'{' | b',')),
            b'}' => in_braces && self.last != b':',
            b']' => !in_braces && self.last != b':',
            b',' | b':' => !matches!(self.last, b':' | b'['),
            b'0'..=b'9' | b'+' | b'-' | b'.' | b'E' => value || is_scalar(self.last),
            b't' | b'r' | b'u' | b'e' | b'f' | b'a' | b'l' | b's' | b'n' => value || is_scalar(self.last),
            _ => false,
        }
    }

    fn complete(&mut self, sink: &mut Sink<'_>) {
        match Record::parse(&self.buffer, self.latest) {
            Ok(record) => {
                self.account.records += 1;
                sink(record);
            }
            Err(fault) => self.note(fault),
        }
        self.state = State::Between;
    }

    /// The value under way is no record; its end will be known by its brackets.
    fn pass(&mut self, fault: Fault) {
        self.note(fault);
        self.buffer.clear();
        self.state = State::Passing;
    }

    fn passing(&mut self, byte: u8) {
        if self.quoted && byte == b'\n' {
            // Quotes do not hold line ends: whatever was counted is not to be relied on.
            self.quoted = false;
            self.state = State::Lost(Waiting::NewLine);
        } else if self.quoted {
            self.within_quotes(byte);
        } else if byte == b'{' && self.fresh && self.may_begin_anew() {
            self.begin(byte);
        } else {
            self.outside_quotes(byte);
            if self.depth == 0 {
                self.state = State::Between;
            }
        }
    }

    /// Whether a brace at the start of a line begins a record, not a value within the one that is passed over: where none
    /// could stand, or so deep inside that nothing real is there.
    fn may_begin_anew(&self) -> bool {
        self.depth > u64::from(DEEPEST) || !matches!(self.last, b':' | b'[' | b',')
    }

    /// Within a value without brackets: in an array it ends with its comma, else with its line.
    fn scalar(&mut self, byte: u8) {
        match byte {
            b'\n' => self.state = State::Between,
            _ if self.arrays == 0 => {}
            _ if self.quoted => self.within_quotes(byte),
            b',' => self.state = State::Between,
            b']' => (self.arrays, self.state) = (self.arrays - 1, State::Between),
            _ => {}
        }
    }

    fn lost(&mut self, byte: u8, waiting: Waiting) {
        let next = match (byte, waiting) {
            (b'{', Waiting::NewLine | Waiting::Comma) => return self.begin(byte),
            (b']', Waiting::NewLine | Waiting::Brace) if self.arrays > 0 => {
                self.arrays -= 1;
                return self.state = State::Between;
            }
            // What began on this line was meant to end on it, as most do: the next line stands for itself.
            (b'\n', _) if self.line == self.began => return self.state = State::Between,
            (b'\n', _) => Waiting::NewLine,
            (b' ' | b'\t' | b'\r', _) => waiting,
            (b'}', _) => Waiting::Brace,
            (b',', Waiting::Brace) => Waiting::Comma,
            _ => Waiting::Anything,
        };
        self.state = State::Lost(next);
    }

    /// The record under way is broken. What may have been the next one already is read again.
    fn give_up(&mut self, fault: Fault, sink: &mut Sink<'_>) {
        self.note(fault);
        self.quoted = false;
        self.state = State::Lost(Waiting::Anything);
        let Some((from, line)) = self.retry.take() else { return };
        let buffer = mem::take(&mut self.buffer);
        self.line = line;
        self.state = State::Between;
        // Each time it begins a level further inside, so no deeper than a record may be nested.
        for &byte in &buffer[from..] {
            self.step(byte, sink);
        }
    }

    fn note(&mut self, fault: Fault) {
        self.account.corrupt += 1;
        if self.account.faults.len() < TOLD {
            self.account.faults.push((self.began, fault));
        }
    }
}

/// Whether a byte outside quotes belongs to a number or a word.
fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
