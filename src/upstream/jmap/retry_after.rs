//! `Retry-After` (RFC 9110 §10.2.3): how long a server wants to be left alone,
//! and by whom.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

use crate::upstream::UpstreamError;

/// The longest that a server is believed.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// For a header that says neither seconds nor a date.
const SOME_TIME: Duration = Duration::from_secs(60);
/// Accounts remembered. Pauses that are over go first; where that is not
/// enough, no more are taken.
const MOST_ACCOUNTS: usize = 10_000;

/// The time to wait that an answer asks for, in seconds or as a date.
pub(super) fn in_headers(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?;
    let value = value.to_str().unwrap_or_default().trim();
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => match date(value) {
            Some(date) => date.duration_since(SystemTime::now()).unwrap_or_default(),
            None => SOME_TIME,
        },
    };
    Some(wait.min(LONGEST))
}

/// An IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, rest) = text.split_once(", ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let [day, month, year, time, "GMT"] = fields[..] else {
        return None;
    };
    let clock: Vec<u64> = time.split(':').map_while(|it| it.parse().ok()).collect();
    let [hours, minutes, seconds] = clock[..] else {
        return None;
    };
    let month = MONTHS.iter().position(|it| *it == month)? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || hours > 23 || minutes > 59 {
        return None;
    }
    // Days since 1970, with years that begin in March: the leap day comes last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    let seconds = days * 86_400 + hours * 3600 + minutes * 60 + seconds.min(60);
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Accounts that the server wants to hear nothing of for a while.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    until: Mutex<HashMap<String, Instant>>,
}

impl Pauses {
    /// The server asked for a pause.
    pub fn begin(&self, account: &str, wait: Duration) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if until.len() >= MOST_ACCOUNTS {
            until.retain(|_, end| *end > now);
        }
        if until.len() < MOST_ACCOUNTS || until.contains_key(account) {
            let end = until.entry(account.to_owned()).or_insert(now);
            *end = (*end).max(now + wait);
        }
    }

    /// An error while a pause lasts.
    pub fn check(&self, account: &str) -> Result<(), UpstreamError> {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = until.get(account) else {
            return Ok(());
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            until.remove(account);
            return Ok(());
        }
        Err(UpstreamError::Temporary {
            reason: "the server asked not to be tried again yet (Retry-After)".into(),
            retry_after: Some(left),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        in_headers(&headers)
    }

    #[test]
    fn seconds_and_what_is_none() {
        assert_eq!(said("120"), Some(Duration::from_secs(120)));
        assert_eq!(said("0"), Some(Duration::ZERO));
        assert_eq!(said("99999999"), Some(LONGEST));
        assert_eq!(said("soon"), Some(SOME_TIME));
        assert_eq!(said("-1"), Some(SOME_TIME));
        assert_eq!(said("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(said("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LONGEST));
        assert_eq!(in_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn dates() {
        let seconds = |text: &str| {
            let date = date(text)?;
            Some(date.duration_since(UNIX_EPOCH).unwrap().as_secs())
        };
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 29 Feb 2024 12:00:00 GMT", Some(1_709_208_000)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nov 0000 08:49:37 GMT", None),
            ("Sun, 06 Foo 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_of_one_account_and_ends() {
        let pauses = Pauses::default();
        pauses.begin("alice", Duration::from_secs(10));
        // A shorter one does not cut it short.
        pauses.begin("alice", Duration::from_secs(1));
        assert!(pauses.check("bob").is_ok());
        tokio::time::advance(Duration::from_secs(9)).await;
        let Err(UpstreamError::Temporary { retry_after, .. }) = pauses.check("alice") else {
            panic!("the pause is not over");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pauses.check("alice").is_ok());
    }
}
