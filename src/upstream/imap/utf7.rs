//! Names of mailboxes in modified UTF-7 (RFC 3501 §5.1.3). Pure.

/// The digits of its base64: `,` in place of `/`, and no padding.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

/// `name` as it is sent.
pub(super) fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let plain = rest.find(|c| !is_plain(c)).unwrap_or(rest.len());
        let (run, after) = if first == '&' {
            encoded.push_str("&-");
            rest.split_at(1)
        } else if plain > 0 {
            let (run, after) = rest.split_at(plain);
            encoded.push_str(run);
            (run, after)
        } else {
            let end = rest.find(|c| is_plain(c) || c == '&').unwrap_or(rest.len());
            let (run, after) = rest.split_at(end);
            encoded.push('&');
            encode_run(run, &mut encoded);
            encoded.push('-');
            (run, after)
        };
        debug_assert!(!run.is_empty());
        rest = after;
    }
    encoded
}

/// What is sent as itself.
fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') && c != '&'
}

fn encode_run(run: &str, encoded: &mut String) {
    let (mut bits, mut count) = (0u32, 0);
    for unit in run.encode_utf16() {
        bits = bits << 16 | u32::from(unit);
        count += 16;
        while count >= 6 {
            count -= 6;
            encoded.push(digit(bits >> count));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        encoded.push(digit(bits << (6 - count)));
    }
}

fn digit(value: u32) -> char {
    DIGITS
        .get((value & 63) as usize)
        .map_or('A', |digit| char::from(*digit))
}

/// What was received, as a name; `None` where it is not of this encoding, or
/// not the only form that it has there.
pub(super) fn decode(encoded: &str) -> Option<String> {
    let mut name = String::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((plain, after)) = rest.split_once('&') {
        name.push_str(plain);
        let (run, after) = after.split_once('-')?;
        match run {
            "" => name.push('&'),
            _ => decode_run(run, &mut name)?,
        }
        rest = after;
    }
    name.push_str(rest);
    (encode(&name) == encoded).then_some(name)
}

fn decode_run(run: &str, name: &mut String) -> Option<()> {
    let (mut bits, mut count) = (0u32, 0);
    let mut units = Vec::new();
    for octet in run.bytes() {
        let value = DIGITS.iter().position(|digit| *digit == octet)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 16 {
            count -= 16;
            units.push(u16::try_from(bits >> count & 0xffff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    name.push_str(&String::from_utf16(&units).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_what_is_sent_for_them() {
        for (name, encoded) in [
            ("INBOX", "INBOX"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("a&b", "a&-b"),
            ("&", "&-"),
            ("ä&", "&AOQ-&-"),
            // RFC 3501 §5.1.3.
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("😀", "&2D3eAA-"),
            ("", ""),
        ] {
            assert_eq!(encode(name), encoded);
            assert_eq!(decode(encoded).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_none_of_it() {
        for encoded in [
            "&",
            "&AOQ",
            "&A-",
            "&/w-",
            "&AGE-",
            "&2D0-",
            "Entwürfe",
            "&AOR-",
            "&AOQ-&APY-",
        ] {
            assert_eq!(decode(encoded), None, "{encoded}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(name in ".{0,40}") {
            let encoded = encode(&name);
            prop_assert!(encoded.bytes().all(|octet| (0x20..0x7f).contains(&octet)));
            prop_assert_eq!(decode(&encoded), Some(name));
        }

        #[test]
        fn anything_can_be_read(encoded in "[&A-Za-z0-9+,ä-]{0,40}") {
            if let Some(name) = decode(&encoded) {
                prop_assert_eq!(encode(&name), encoded);
            }
        }

        /// What could be a pattern or a level stays what it was.
        #[test]
        fn no_wildcard_comes_about(name in "[^*%]{0,40}") {
            prop_assert!(!encode(&name).contains(['*', '%']));
        }
    }
}
