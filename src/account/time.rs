//! Times, as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second of the year 9999.
const LATEST: i64 = 253_402_300_799;

/// Now, in seconds of Unix time.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| i64::try_from(it.as_secs()).unwrap_or(i64::MAX))
}

/// A time in seconds of Unix time, with how far that is from `now`.
pub(super) fn told(time: i64, now: i64) -> String {
    let seconds = u64::try_from(time.clamp(0, LATEST)).unwrap_or(0);
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    let distance = time.abs_diff(now);
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let found = units.into_iter().find(|(unit, _)| distance >= *unit);
    let Some((unit, name)) = found else {
        return format!("{date} (now)");
    };
    let count = distance / unit;
    let plural = if count == 1 { "" } else { "s" };
    match time < now {
        true => format!("{date} ({count} {name}{plural} ago)"),
        false => format!("{date} (in {count} {name}{plural})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_far() {
        let now = 1_700_000_000;
        let told = |time| told(time, now);
        assert_eq!(told(now), "Tue, 14 Nov 2023 22:13:20 GMT (now)");
        assert_eq!(
            told(now - 60),
            "Tue, 14 Nov 2023 22:12:20 GMT (1 minute ago)"
        );
        assert_eq!(
            told(now + 7200),
            "Wed, 15 Nov 2023 00:13:20 GMT (in 2 hours)"
        );
        assert!(told(now - 40 * 86_400).ends_with("(40 days ago)"));
        // What a server may say, and a clock.
        assert!(told(i64::MAX).starts_with("Fri, 31 Dec 9999"));
        assert!(told(i64::MIN).starts_with("Thu, 01 Jan 1970"));
    }
}
