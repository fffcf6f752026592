#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use tracing::{debug, error, info, warn};

use super::*;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged while `events` runs.
fn logged(format: Format, filter: &str, events: impl FnOnce()) -> String {
    let sink = Sink::default();
    let writer = sink.clone();
    let config = Config {
        format,
        filter: filter.parse().unwrap(),
    };
    let layer = layer(&config, move || writer.clone());
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, events);
    let octets = sink.0.lock().unwrap().clone();
    String::from_utf8(octets).unwrap()
}

const HOSTILE: &str =
    "eve\r\n2026-01-01 ERROR forged user=\"root\"\x1b[2J\u{9b}2J\x07\0\u{2028}\u{202e}";

fn hostile_events() {
    let boxed: Box<dyn std::error::Error> = HOSTILE.into();
    info!(user = HOSTILE, "as text");
    info!(user = %HOSTILE, "by Display");
    info!(user = ?HOSTILE, "by Debug");
    info!(error = boxed.as_ref(), "as an error");
    info!("in the message: {HOSTILE}");
    let span = tracing::info_span!("session", user = %HOSTILE);
    span.in_scope(|| info!("in a span"));
}

#[test]
fn no_value_forges_a_line_or_a_terminal_sequence() {
    for format in [Format::Text, Format::Json] {
        let log = logged(format, "info", hostile_events);
        assert_eq!(log.lines().count(), 6, "{log}");
        assert!(log.ends_with('\n'));
        for line in log.lines() {
            assert!(!line.contains(breaks_lines), "{line:?}");
        }
    }
}

#[test]
fn no_value_forges_a_field() {
    let log = logged(Format::Text, "info", || {
        info!(user = %"eve deleted=5", "end");
        info!(user = %"\"eve\" deleted=\"5\"", "end");
        info!(user = "eve\" deleted=5", "end");
        info!(user = ?"eve\\", deleted = 0, "end");
    });
    let fields: Vec<&str> = log
        .lines()
        .map(|line| line.split_once("end ").unwrap().1)
        .collect();
    assert_eq!(
        fields,
        [
            r#"user="eve deleted=5""#,
            r#"user="\"eve\" deleted=\"5\"""#,
            r#"user="eve\" deleted=5""#,
            r#"user="eve\\" deleted=0"#,
        ]
    );
}

#[test]
fn plain_words_are_not_quoted() {
    let log = logged(Format::Text, "info", || {
        info!(user = "alice@example.com", client = %"[::1]:5", octets = 7, quick = true, "end");
    });
    assert!(
        log.contains("end user=alice@example.com client=[::1]:5 octets=7 quick=true\n"),
        "{log}"
    );
}

#[test]
fn json_stays_json() {
    let log = logged(Format::Json, "info", hostile_events);
    for line in log.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        let inner = line.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(inner.matches('"').count() % 2, 0, "{line}");
    }
    assert!(
        log.contains(r#""user":"eve\r\n2026-01-01 ERROR forged"#),
        "{log}"
    );
}

#[test]
fn other_crates_are_never_logged_in_detail() {
    let log = logged(Format::Text, "trace", || {
        debug!("ours");
        debug!(target: "async_imap", "A1 LOGIN alice s3cret");
        info!(target: "rustls::client", "y");
        warn!(target: "hyper", "theirs");
    });
    assert!(log.contains("ours") && log.contains("theirs"), "{log}");
    assert_eq!(log.lines().count(), 2, "{log}");
}

#[test]
fn the_default_is_info_for_popgate_and_warn_for_others() {
    let log = logged(Format::Text, "info", || {
        info!("one");
        debug!("no");
        info!(target: "hyper", "no");
        warn!(target: "hyper", "two");
    });
    assert_eq!(log.lines().count(), 2, "{log}");
    let filter = Filter::default();
    assert_eq!(filter.0, "info".parse::<Filter>().unwrap().0);
}

#[test]
fn what_a_filter_may_be() {
    for text in [
        "info",
        "DEBUG",
        "off",
        "info,popgate::upstream=debug",
        "popgate=trace",
        "hyper=off",
    ] {
        assert!(text.parse::<Filter>().is_ok(), "{text}");
    }
    for text in [
        "",
        "verbose",
        "info,",
        "=info",
        "popgate=",
        "5",
        "info debug",
    ] {
        assert_eq!(
            text.parse::<Filter>().unwrap_err(),
            FilterError::Syntax,
            "{text}"
        );
    }
    for text in [
        "async_imap=trace",
        "rustls=info",
        "popgates=debug",
        "info,log=debug",
    ] {
        assert_eq!(
            text.parse::<Filter>().unwrap_err(),
            FilterError::OtherCrate,
            "{text}"
        );
    }
    let quiet = logged(Format::Text, "off", || error!("nothing"));
    assert_eq!(quiet, "");
}
