//! Logs to standard error, as text (`key=value`) or JSON, one event a line.
//!
//! No value from outside can look like something else: a value that is not a
//! plain word is quoted, and control characters are escaped in whatever is
//! written, so a line ends where an event ends.

use std::fmt;
use std::io::{self, Write};
use std::panic;
use std::str::FromStr;

use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatFields, Writer};
use tracing_subscriber::fmt::{self as lines, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How to log.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The form of a line.
    pub format: Format,
    /// What is logged.
    pub filter: Filter,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people and the journal.
    #[default]
    Text,
    /// An object a line, for programs.
    Json,
}

/// Not the name of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected text or json")]
pub struct UnknownFormat;

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat),
        }
    }
}

/// What is logged: a level for popgate (`debug`), or levels by module
/// (`info,popgate::upstream=debug`). Of other crates never anything below
/// `warn`: their traces may hold secrets.
#[derive(Clone, Debug)]
pub struct Filter(Targets);

/// Not a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No level, and no list of them.
    #[error(
        "expected off, error, warn, info, debug or trace, or levels by module like info,popgate::upstream=debug"
    )]
    Syntax,
    /// It would log another crate in detail.
    #[error("only popgate's own modules can be logged below warn: others may log secrets")]
    OtherCrate,
}

const OWN: &str = "popgate";

impl Default for Filter {
    fn default() -> Self {
        Self::of(LevelFilter::INFO)
    }
}

impl Filter {
    fn of(own: LevelFilter) -> Self {
        let others = own.min(LevelFilter::WARN);
        Self(Targets::new().with_default(others).with_target(OWN, own))
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut own = LevelFilter::INFO;
        let mut modules = Vec::new();
        for directive in text.split(',').map(str::trim) {
            let (module, level) = match directive.split_once('=') {
                Some((module, level)) => (Some(module.trim()), level.trim()),
                None => (None, directive),
            };
            // A number would be a level, too; an empty text as well.
            if level.is_empty() || !level.bytes().all(|octet| octet.is_ascii_alphabetic()) {
                return Err(FilterError::Syntax);
            }
            let level: LevelFilter = level.parse().map_err(|_| FilterError::Syntax)?;
            match module {
                None => own = level,
                Some("") => return Err(FilterError::Syntax),
                Some(module) => {
                    let ours = module == OWN || module.starts_with("popgate::");
                    if !ours && level > LevelFilter::WARN {
                        return Err(FilterError::OtherCrate);
                    }
                    modules.push((module.to_owned(), level));
                }
            }
        }
        Ok(Self(Self::of(own).0.with_targets(modules)))
    }
}

/// Starts to log. A panic is logged by its place alone: its message may quote
/// what it stumbled over.
pub fn init(config: &Config) {
    let subscriber = tracing_subscriber::registry().with(layer(config, io::stderr));
    // Fails only where a test has set one up already.
    let _ = subscriber.try_init();
    panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(
            place,
            "PANIC: this is a defect of popgate, please report it"
        );
    }));
}

fn layer<S, W>(config: &Config, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Colours are control characters, and those are never written.
    let layer = lines::layer()
        .with_ansi(false)
        .with_writer(Escaping(writer));
    let layer = layer.log_internal_errors(false);
    let filter = config.filter.0.clone();
    match config.format {
        Format::Text => layer.fmt_fields(KeyValue).with_filter(filter).boxed(),
        Format::Json => {
            let layer = layer.json().flatten_event(true).with_span_list(false);
            layer.with_filter(filter).boxed()
        }
    }
}

/// Fields as `key=value`, quoted where the value is not a plain word.
struct KeyValue;

impl<'writer> FormatFields<'writer> for KeyValue {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Fields {
            writer,
            first: true,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Fields<'writer> {
    writer: Writer<'writer>,
    first: bool,
    result: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, field: &Field, value: &str) {
        let space = if self.first { "" } else { " " };
        self.first = false;
        let written = match field.name() {
            "message" => write!(self.writer, "{space}{value}"),
            name if is_plain(value) || is_quoted(value) => {
                write!(self.writer, "{space}{name}={value}")
            }
            name => write!(self.writer, "{space}{name}={value:?}"),
        };
        self.result = self.result.and(written);
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if is_plain(value) || field.name() == "message" {
            self.write(field, value);
        } else {
            self.write(field, &format!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, &format!("{value:?}"));
    }
}

/// Needs no quotes: cannot be taken for two values, or for a quoted one.
fn is_plain(value: &str) -> bool {
    let special = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\');
    !value.is_empty() && !value.contains(special)
}

/// Is one quoted string from its first to its last character.
fn is_quoted(value: &str) -> bool {
    let Some(inner) = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
    else {
        return false;
    };
    let mut escaped = false;
    for c in inner.chars() {
        match c {
            '"' if !escaped => return false,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    !escaped
}

/// Escapes control characters in what goes through, and all that could turn or
/// break a line, except for the last line end.
struct Escaping<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = EscapingWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter(self.0.make_writer())
    }
}

struct EscapingWriter<W>(W);

impl<W: Write> Write for EscapingWriter<W> {
    /// Takes a whole event at a time, which is how the layer writes.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut escaped = String::with_capacity(line.len() + 1);
        for c in line.chars() {
            if breaks_lines(c) {
                // Valid in a JSON string, where alone they can stand.
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
            } else {
                escaped.push(c);
            }
        }
        escaped.push('\n');
        self.0.write_all(escaped.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Control characters, Unicode's line ends, and its marks that reverse text.
fn breaks_lines(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
