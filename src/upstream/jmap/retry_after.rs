//! `Retry-After` (RFC 9110 §10.2.3): how long a server wants to be left alone.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// For a header that says neither seconds nor a date.
const SOME_TIME: Duration = Duration::from_secs(60);

/// The time to wait that an answer asks for, in seconds or as a date.
pub(super) fn in_headers(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?;
    let value = value.to_str().unwrap_or_default().trim();
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => match httpdate::parse_http_date(value) {
            Ok(date) => date.duration_since(SystemTime::now()).unwrap_or_default(),
            Err(_) => SOME_TIME,
        },
    };
    Some(wait)
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
        assert_eq!(said("99999999"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(said("soon"), Some(SOME_TIME));
        assert_eq!(said("-1"), Some(SOME_TIME));
        assert_eq!(said("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let far = said("Fri, 31 Dec 9999 23:59:59 GMT");
        assert!(far > Some(Duration::from_secs(7000 * 365 * 86_400)));
        assert_eq!(in_headers(&HeaderMap::new()), None);
    }
}
