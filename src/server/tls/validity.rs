//! The end of a certificate's validity, for metrics and warnings only: whether
//! a certificate may be trusted is decided by its clients.

/// `notAfter` of an X.509 certificate (RFC 5280 §4.1.2.5) in seconds since
/// 1970, or `None` where the encoding is not the expected one.
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let mut outer = Der(certificate);
    let mut certificate = Der(outer.expect(SEQUENCE)?);
    let mut to_be_signed = Der(certificate.expect(SEQUENCE)?);
    if to_be_signed.0.first() == Some(&VERSION) {
        to_be_signed.next()?;
    }
    to_be_signed.expect(INTEGER)?; // serialNumber
    to_be_signed.expect(SEQUENCE)?; // signature
    to_be_signed.expect(SEQUENCE)?; // issuer
    let mut validity = Der(to_be_signed.expect(SEQUENCE)?);
    validity.next()?; // notBefore
    match validity.next()? {
        (UTC_TIME, text) => {
            let (year, rest) = text.split_at_checked(2)?;
            let year = decimal(year)?;
            // RFC 5280 §4.1.2.5.1
            seconds(if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, text) => {
            let (year, rest) = text.split_at_checked(4)?;
            seconds(decimal(year)?, rest)
        }
        _ => None,
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// What is left of a DER encoding.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and contents.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let octets = usize::from(first & 0x7f);
            if octets == 0 || octets > 4 {
                return None;
            }
            let (digits, after) = rest.split_at_checked(octets)?;
            length = digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            rest = after;
        }
        let (contents, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, contents))
    }

    /// The contents of the next element, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, contents)| contents)
    }
}

fn decimal(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + i64::from(digit - b'0'))
    })
}

/// Seconds since 1970 of `MMDDHHMMSSZ` in `year`.
fn seconds(year: i64, text: &[u8]) -> Option<i64> {
    let digits = text
        .strip_suffix(b"Z")
        .filter(|digits| digits.len() == 10)?;
    let mut fields = digits.chunks(2).map(decimal);
    let mut field = || fields.next().flatten();
    let (month, day) = (field()?, field()?);
    let (hour, minute, second) = (field()?, field()?, field()?);
    if !(1..=12).contains(&month) {
        return None;
    }
    // Days of the proleptic Gregorian calendar, counted from 1 March, so that
    // the leap day is a year's last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, month, day);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn both_encodings_of_a_date() {
        // 2050 is the first year of GeneralizedTime.
        assert_eq!(not_after(&certificate(2049, 12, 31)), Some(2_524_521_600));
        assert_eq!(not_after(&certificate(2050, 1, 1)), Some(2_524_608_000));
        assert_eq!(not_after(&certificate(2028, 2, 29)), Some(1_835_395_200));
        assert_eq!(not_after(&certificate(1970, 1, 2)), Some(86_400));
    }

    #[test]
    fn what_is_cut_or_garbled_has_no_date() {
        let whole = certificate(2049, 12, 31);
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None);
        }
        for place in 0..whole.len().min(200) {
            let mut garbled = whole.clone();
            garbled[place] ^= 0xff;
            // Whatever it says, it must not end the process.
            let _ = not_after(&garbled);
        }
    }
}
