//! Dates of arrival (INTERNALDATE, RFC 3501 §9, date-time). Pure.

use crate::upstream::calendar::Time;

const MONTHS: [&[u8; 3]; 12] = [
    b"JAN", b"FEB", b"MAR", b"APR", b"MAY", b"JUN", b"JUL", b"AUG", b"SEP", b"OCT", b"NOV", b"DEC",
];

/// Seconds since 1970 of `17-Jul-1996 02:44:25 -0700`, the day possibly with a
/// space in place of a zero; `None` where it is no date in this form.
pub(super) fn seconds(text: &[u8]) -> Option<i64> {
    let text: &[u8; 26] = text.try_into().ok()?;
    let separators = [
        (2, b'-'),
        (6, b'-'),
        (11, b' '),
        (14, b':'),
        (17, b':'),
        (20, b' '),
    ];
    if separators.iter().any(|(at, octet)| text[*at] != *octet) {
        return None;
    }
    let digits = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0i64, |number, octet| {
            octet
                .is_ascii_digit()
                .then(|| number * 10 + i64::from(octet - b'0'))
        })
    };
    let day = match text[0] {
        b' ' => digits(1, 2)?,
        _ => digits(0, 2)?,
    };
    let month = text[3..6].to_ascii_uppercase();
    let month = MONTHS.iter().zip(1..).find(|(name, _)| ***name == *month);
    let time = Time {
        year: digits(7, 11)?,
        month: month?.1,
        day,
        hour: digits(12, 14)?,
        minute: digits(15, 17)?,
        second: digits(18, 20)?,
    };
    let (zone_hours, zone_minutes) = (digits(22, 24)?, digits(24, 26)?);
    let sign = match text[21] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    if zone_hours >= 24 || zone_minutes >= 60 {
        return None;
    }
    let zone = sign * (zone_hours * 3600 + zone_minutes * 60);
    Some(time.since_1970()? - zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, expected) in [
            ("01-Jan-1970 00:00:00 +0000", 0),
            (" 1-Jan-1970 00:00:00 +0000", 0),
            ("01-Jan-1970 01:30:00 +0130", 0),
            ("17-Jul-1996 02:44:25 -0700", 837_596_665),
            ("29-FEB-2000 12:00:00 +0000", 951_825_600),
            ("31-Dec-1969 23:59:59 +0000", -1),
            ("01-Mar-2024 00:00:00 -0000", 1_709_251_200),
            ("19-Jan-2038 03:14:08 +0000", 2_147_483_648),
        ] {
            assert_eq!(seconds(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "1-Jan-1970 00:00:00 +0000",
            "00-Jan-1970 00:00:00 +0000",
            "30-Feb-2024 00:00:00 +0000",
            "29-Feb-1900 00:00:00 +0000",
            "01-Foo-1970 00:00:00 +0000",
            "01-Jan-1970 24:00:00 +0000",
            "01-Jan-1970 00:60:00 +0000",
            "01-Jan-1970 00:00:61 +0000",
            "01-Jan-1970 00:00:00 00000",
            "01-Jan-1970 00:00:00 +2400",
            "01-Jan-19x0 00:00:00 +0000",
            "01/Jan/1970 00:00:00 +0000",
            "01-Jan-1970 00:00:00 +00000",
        ] {
            assert_eq!(seconds(text.as_bytes()), None, "{text}");
        }
    }
}
