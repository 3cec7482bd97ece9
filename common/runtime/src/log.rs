//! Logs for whoever reads them: people at a terminal, journald, or a machine that takes JSON lines.
//!
//! Names of guests and nodes are text that others choose, and they end up in messages. So a message never holds a
//! control character: no forged second line, no forged journald priority, no terminal sequence.

use std::env;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};

use evenkeel_common::config::{Validate, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{
    self as layer, FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter,
};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// What `level` accepts, as it reads after "expected".
const LEVELS: &str = "error, warn, info, debug, trace, off, or a list like info,evenkeel_agent=debug";

/// What is logged, and in which form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Form of the log lines on standard error.
    pub format: LogFormat,
    /// Least level that is logged: error, warn, info, debug, trace or off. Single parts may have their own, as in
    /// "info,evenkeel_agent::uplink=debug".
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".into() }
    }
}

impl Validate for LogConfig {
    fn validate(&self) -> Result<(), Vec<Violation>> {
        match targets(&self.level) {
            Some(_) => Ok(()),
            None => Err(vec![Violation::new("level", format!("{:?}", self.level), LEVELS)]),
        }
    }
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text; for journald with priorities and without times, which journald adds itself.
    #[default]
    Auto,
    /// Text with times, whoever reads.
    Text,
    /// A JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is no level.
    #[error("log.level = {0:?} is not valid: expected {LEVELS}")]
    Level(String),
    /// Somebody set it up before.
    #[error("logging is already set up in this process")]
    Twice,
}

/// How a text line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// `<6>target: message`, as journald reads it from a service's standard error.
    Journal,
    /// Time, level and target.
    Text { colour: bool },
}

/// Sends the process's log to standard error. Call it once, at the start.
///
/// # Errors
/// [`LogError`].
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    // systemd sets the variable when standard error goes to the journal, and a child's redirect leaves it set: a
    // terminal is never the journal.
    let terminal = io::stderr().is_terminal();
    let journal = !terminal && env::var_os("JOURNAL_STREAM").is_some();
    let style = match config.format {
        LogFormat::Auto if journal => Some(Style::Journal),
        LogFormat::Auto | LogFormat::Text => Some(Style::Text { colour: terminal }),
        LogFormat::Json => None,
    };
    let subscriber = subscriber(config, style, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)
}

/// Stricter than `Targets` itself, which takes a word that is no level for a module: a typo would log nothing else.
fn targets(level: &str) -> Option<Targets> {
    let part_is_good = |part: &str| {
        let level = part.split_once('=').map_or(part, |(_, level)| level).trim();
        !level.is_empty() && level.parse::<LevelFilter>().is_ok()
    };
    if level.split(',').all(part_is_good) { level.parse().ok() } else { None }
}

/// `style`: `None` = JSON.
fn subscriber<W>(
    config: &LogConfig,
    style: Option<Style>,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + use<W>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let targets = targets(&config.level).ok_or_else(|| LogError::Level(config.level.clone()))?;
    let lines = layer::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match style {
        Some(style) => Box::new(lines.with_ansi(false).event_format(Line(style)).with_filter(targets)),
        None => Box::new(lines.json().flatten_event(true).with_filter(targets)),
    };
    Ok(tracing_subscriber::registry().with(lines))
}

struct Line(Style);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        match self.0 {
            Style::Journal => write!(writer, "<{}>", priority(*metadata.level()))?,
            Style::Text { colour } => {
                SystemTime.format_time(&mut writer)?;
                let level = metadata.level();
                match (colour, colour_of(*level)) {
                    (true, code) => write!(writer, " \x1b[{code}m{level:>5}\x1b[0m ")?,
                    (false, _) => write!(writer, " {level:>5} ")?,
                }
            }
        }
        let mut text = String::new();
        write!(text, "{}: ", metadata.target())?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            write!(text, "{}", span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>().filter(|f| !f.is_empty()) {
                write!(text, "{{{fields}}}")?;
            }
            text.push_str(": ");
        }
        context.format_fields(Writer::new(&mut text), event)?;
        writeln!(writer, "{}", Plain(&text))
    }
}

/// Text with its control characters escaped.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// The syslog priority that journald understands at the start of a line.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Terminal colour: red, yellow, green, blue, grey.
fn colour_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 90,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::config;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(style: Option<Style>, level: &str, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let config = LogConfig { level: level.into(), ..LogConfig::default() };
        let subscriber = subscriber(&config, style, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn journald_gets_priorities_spans_and_no_times() {
        let text = logged(Some(Style::Journal), "info", || {
            let span = tracing::info_span!("follow", guest = 101);
            let _inside = span.enter();
            tracing::error!(target: "t", code = 5, "It broke.");
            tracing::warn!(target: "t", "Careful.");
            tracing::debug!(target: "t", "Not this.");
        });
        assert_eq!(text, "<3>t: follow{guest=101}: It broke. code=5\n<4>t: follow{guest=101}: Careful.\n");
    }

    #[test]
    fn names_chosen_by_others_can_not_forge_lines() {
        let name = "web\n<0>evil: \x1b[31mred\r\u{9b}";
        for style in [Style::Journal, Style::Text { colour: false }] {
            let text = logged(Some(style), "info", || {
                tracing::info!(guest = %name, "Guest {name} appeared.");
                tracing::info_span!("s", %name).in_scope(|| tracing::info!("x"));
            });
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(!text.contains(['\x1b', '\r', '\u{9b}']), "{text}");
        }
        let json = logged(None, "info", || tracing::info!(guest = %name, "appeared"));
        assert_eq!(json.lines().count(), 1);
    }

    #[test]
    fn people_get_times_and_levels_and_parts_have_their_own_level() {
        let text = logged(Some(Style::Text { colour: false }), "warn,evenkeel_agent=debug", || {
            tracing::debug!(target: "evenkeel_agent::uplink", "Connected.");
            tracing::info!(target: "other", "Not this.");
        });
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert_eq!(rest, "DEBUG evenkeel_agent::uplink: Connected.\n");
        let colours = logged(Some(Style::Text { colour: true }), "info", || tracing::error!("x"));
        assert!(colours.contains("\x1b[31mERROR\x1b[0m"), "{colours}");
    }

    #[test]
    fn json_lines_keep_fields_apart() {
        let text = logged(None, "info", || tracing::info!(target: "t", guest = 101, "Moved."));
        for part in [r#""level":"INFO""#, r#""message":"Moved.""#, r#""guest":101"#, r#""target":"t""#] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_bad_level_is_named() {
        for bad in ["loud", "", "info,", "info,evenkeel_agent", "evenkeel_agent=loud", "infoo,a=debug"] {
            let config = LogConfig { level: bad.into(), ..LogConfig::default() };
            assert_eq!(config.validate().unwrap_err()[0].option, "level", "{bad}");
            let error = subscriber(&config, None, io::sink).map(drop).unwrap_err().to_string();
            assert!(error.starts_with(&format!("log.level = {bad:?} is not valid")), "{error}");
        }
        assert!(LogConfig::default().validate().is_ok());
        config::assert_documented::<LogConfig>();
    }
}
