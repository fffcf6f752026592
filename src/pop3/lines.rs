//! The lines of multi-line responses, made in portions.

/// The end of a multi-line response (RFC 1939 §3).
pub(super) const END: &[u8] = b".\r\n";

/// How far a multi-line response has come. [`Session::write_lines`] makes its
/// lines.
///
/// [`Session::write_lines`]: super::Session::write_lines
#[derive(Debug)]
pub struct Lines(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    /// Few lines, made in advance, each with CRLF.
    Made(Vec<u8>),
    /// A line for each message.
    Listing {
        of: Listed,
        /// The index of the next message.
        next: usize,
    },
}

/// What a listing tells of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// LIST.
    Octets,
    /// UIDL.
    UniqueIds,
}

impl Lines {
    pub(super) fn made(lines: impl Into<Vec<u8>>) -> Self {
        Self(Kind::Made(lines.into()))
    }

    pub(super) fn listing(of: Listed) -> Self {
        Self(Kind::Listing { of, next: 0 })
    }
}

/// Appends a number in decimal digits.
pub(super) fn push_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal() {
        for number in [0, 7, 10, 65_536, u64::MAX] {
            let mut out = Vec::new();
            push_decimal(number, &mut out);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
