//! Times in words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in seconds of Unix time.
pub(super) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

/// How long ago something was, or in how long it is.
pub(super) fn relative(time: i64, now: i64) -> String {
    let seconds = now.saturating_sub(time);
    let span = span(seconds.unsigned_abs());
    match span {
        None => "just now".to_owned(),
        Some(span) if seconds >= 0 => format!("{span} ago"),
        Some(span) => format!("in {span}"),
    }
}

/// How long something has been so.
pub(super) fn lasting(since: i64, now: i64) -> String {
    span(now.saturating_sub(since).unsigned_abs()).unwrap_or_else(|| "a moment".to_owned())
}

/// `None`: less than a minute.
fn span(seconds: u64) -> Option<String> {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let (count, unit) = match seconds {
        _ if seconds < MINUTE => return None,
        _ if seconds < HOUR => (seconds / MINUTE, "minute"),
        _ if seconds < DAY => (seconds / HOUR, "hour"),
        _ if seconds < 60 * DAY => (seconds / DAY, "day"),
        _ if seconds < 730 * DAY => (seconds / (30 * DAY), "month"),
        _ => (seconds / (365 * DAY), "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    Some(format!("{count} {unit}{plural}"))
}

/// A point in time: `26 Nov 2026, 05:08 UTC`.
pub(super) fn date(time: i64) -> String {
    // Four digits of a year, as HTTP writes it.
    let time = u64::try_from(time).unwrap_or(0).min(253_402_300_799);
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time));
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        [_, day, month, year, clock, _] => {
            let day = day.trim_start_matches('0');
            let clock = clock.rsplit_once(':').map_or(clock, |(clock, _)| clock);
            format!("{day} {month} {year}, {clock} UTC")
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_tell_them() {
        let now = 1_795_669_689;
        let told = [0, 59, 60, 3_599, 7_200, 86_400, 59 * 86_400, 90 * 86_400]
            .map(|seconds| relative(now - seconds, now));
        assert_eq!(
            told,
            [
                "just now",
                "just now",
                "1 minute ago",
                "59 minutes ago",
                "2 hours ago",
                "1 day ago",
                "59 days ago",
                "3 months ago"
            ]
        );
        assert_eq!(relative(now + 600, now), "in 10 minutes");
        assert_eq!(relative(i64::MIN, i64::MAX), "292471208677 years ago");
        assert_eq!(date(now), "26 Nov 2026, 05:08 UTC");
        assert_eq!(date(-1), "1 Jan 1970, 00:00 UTC");
        assert_eq!(date(i64::MAX), "31 Dec 9999, 23:59 UTC");
    }
}
