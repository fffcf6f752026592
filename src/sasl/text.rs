//! What user names, passwords and tokens may hold. Whatever passes here cannot
//! be taken for protocol, in front or upstream.

use super::SaslError;

/// Whether `user` may be a user name: it is not empty and has no control
/// character; spaces and UTF-8 are fine.
///
/// User names and passwords go upstream as they came: preparing them (SASLprep, RFC 4013) is for
/// the server that knows them.
pub fn check_user(user: &str) -> Result<(), SaslError> {
    if user.is_empty() {
        Err(SaslError::Empty)
    } else if user.chars().any(char::is_control) {
        Err(SaslError::Malformed)
    } else {
        Ok(())
    }
}

/// A password has no NUL, CR, LF or Ctrl-A; all else a person may type.
pub(super) fn check_password(password: &str) -> Result<(), SaslError> {
    if password.is_empty() {
        Err(SaslError::Empty)
    } else if password.contains(['\0', '\r', '\n', '\u{1}']) {
        Err(SaslError::Malformed)
    } else {
        Ok(())
    }
}

/// A token is a `b64token` (RFC 6750 §2.1).
pub(super) fn check_token(token: &str) -> Result<(), SaslError> {
    let is_token_octet = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~+/".contains(&octet);
    let unpadded = token.trim_end_matches('=');
    if unpadded.is_empty() || !unpadded.bytes().all(is_token_octet) {
        Err(SaslError::Malformed)
    } else {
        Ok(())
    }
}

/// A client's message as text.
pub(super) fn utf8(octets: &[u8]) -> Result<&str, SaslError> {
    std::str::from_utf8(octets).map_err(|_| SaslError::Malformed)
}

/// The token of an HTTP Authorization header with the scheme Bearer, which is
/// written in any case of letters (RFC 7628 §4).
pub(super) fn bearer_token(authorization: &str) -> Result<&str, SaslError> {
    let (scheme, token) = authorization.split_once(' ').ok_or(SaslError::Malformed)?;
    let token = token.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(SaslError::Malformed);
    }
    check_token(token)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        for good in ["tim", "tim@example.org", "DOMAIN/tim taylor", "jürgen"] {
            assert_eq!(check_user(good), Ok(()));
        }
        assert_eq!(check_user(""), Err(SaslError::Empty));
        for bad in ["a\0", "a\r\nb", "a\tb", "a\u{7f}", "a\u{85}", "a\u{1}b"] {
            assert_eq!(check_user(bad), Err(SaslError::Malformed));
        }
    }

    #[test]
    fn passwords() {
        for good in [" ", " a b ", "tab\there", "größe"] {
            assert_eq!(check_password(good), Ok(()));
        }
        assert_eq!(check_password(""), Err(SaslError::Empty));
        for bad in ["a\0b", "a\rb", "a\nb", "a\u{1}b"] {
            assert_eq!(check_password(bad), Err(SaslError::Malformed));
        }
    }

    #[test]
    fn tokens() {
        for good in ["ya29.a-b_c~d+e/f", "abc==", "a"] {
            assert_eq!(check_token(good), Ok(()));
        }
        for bad in ["", "==", "a=b", "a b", "a\u{1}", "ä", "a\"", "a\r\n"] {
            assert_eq!(check_token(bad), Err(SaslError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn bearer_tokens() {
        assert_eq!(bearer_token("bEARER  t "), Ok("t"));
        for bad in ["Bearer", "Bearer ", "Basic dA==", "OAuth realm=\"x\"", " t"] {
            assert_eq!(bearer_token(bad), Err(SaslError::Malformed), "{bad:?}");
        }
    }
}
