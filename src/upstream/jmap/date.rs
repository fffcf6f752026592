//! Times as JMAP writes them (UTCDate, RFC 8620 §1.4). Pure.

use crate::upstream::calendar::Time;

/// Seconds since 1970; `None` for what is no UTCDate.
pub(super) fn seconds(date: &str) -> Option<i64> {
    let date = date.strip_suffix('Z')?;
    let (date, fraction) = match date.split_once('.') {
        Some((date, fraction)) => (date, Some(fraction)),
        None => (date, None),
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if fraction.is_some_and(|fraction| !is_number(fraction)) {
        return None;
    }
    // 2026-01-02T03:04:05
    let octets: &[u8; 19] = date.as_bytes().try_into().ok()?;
    let between = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if between.iter().any(|(at, octet)| octets[*at] != *octet) {
        return None;
    }
    let number = |from: usize, to: usize| {
        let text = date.get(from..to).filter(|it| is_number(it))?;
        text.parse::<i64>().ok()
    };
    let time = Time {
        year: number(0, 4)?,
        month: number(5, 7)?,
        day: number(8, 10)?,
        hour: number(11, 13)?,
        minute: number(14, 16)?,
        second: number(17, 19)?,
    };
    time.since_1970()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (date, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2000-03-01T00:00:00.5Z", 951_868_800),
            ("2026-11-25T22:21:57Z", 1_795_645_317),
            ("2016-12-31T23:59:60Z", 1_483_228_800),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
            ("0000-01-01T00:00:00Z", -62_167_219_200),
        ] {
            assert_eq!(seconds(date), Some(expected), "{date}");
        }
    }

    #[test]
    fn what_is_no_date() {
        for date in [
            "",
            "Z",
            "2026-01-02T03:04:05",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05z",
            "2026-01-02t03:04:05Z",
            "2026-01-02T03:04:05+00:00",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05.xZ",
            "2026-01-02T03:04:05.5.5Z",
            "2026-1-02T03:04:05Z",
            "2026-13-02T03:04:05Z",
            "2026-00-02T03:04:05Z",
            "2026-02-29T03:04:05Z",
            "2026-01-00T03:04:05Z",
            "2026-01-02T24:04:05Z",
            "2026-01-02T03:60:05Z",
            "2026-01-02T03:04:61Z",
            "+026-01-02T03:04:05Z",
            "2026-01-02T03:04:0٣Z",
            "20260-01-02T03:04:05Z",
        ] {
            assert_eq!(seconds(date), None, "{date}");
        }
    }
}
