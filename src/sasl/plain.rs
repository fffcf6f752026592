//! PLAIN (RFC 4616): `[authzid] NUL authcid NUL passwd`.

use super::text::{check_password, check_user, utf8};
use super::{Credentials, Message, Profile, Round, SaslError, message};

pub(super) static PROFILE: Profile = Profile {
    name: "PLAIN",
    password: true,
    prompt: b"",
    respond,
    failure: None,
    initial_response,
    answer_to_failure: b"",
};

fn respond(_: Option<String>, response: &[u8]) -> Result<Round, SaslError> {
    let mut parts = utf8(response)?.split('\0');
    let (Some(authorize_as), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SaslError::Malformed);
    };
    let mut credentials = Credentials::password(user, password)?;
    // Many clients name the same identity twice; that asks for nothing special.
    if !authorize_as.is_empty() && authorize_as != user {
        check_user(authorize_as)?;
        if let Credentials::Password {
            authorize_as: other,
            ..
        } = &mut credentials
        {
            *other = Some(authorize_as.to_owned());
        }
    }
    Ok(Round::Finished(credentials))
}

fn initial_response(credentials: &Credentials, _: &str, _: u16) -> Option<Message> {
    let Credentials::Password {
        user,
        authorize_as,
        password,
    } = credentials
    else {
        return None;
    };
    check_user(user).ok()?;
    check_password(password.reveal()).ok()?;
    let authorize_as = match authorize_as {
        Some(other) => {
            check_user(other).ok()?;
            other.as_str()
        }
        None => "",
    };
    Some(message(&[
        authorize_as.as_bytes(),
        b"\0",
        user.as_bytes(),
        b"\0",
        password.reveal().as_bytes(),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(response: &[u8]) -> Result<Credentials, SaslError> {
        match respond(None, response)? {
            Round::Finished(credentials) => Ok(credentials),
            Round::Next { .. } => panic!("PLAIN has one message"),
        }
    }

    #[test]
    fn identities_and_password() {
        let credentials = understood("\0tim\0 tanst ääf ".as_bytes()).unwrap();
        assert_eq!(
            credentials,
            Credentials::password("tim", " tanst ääf ").unwrap()
        );
        let same = understood(b"tim\0tim\0tanstaaf").unwrap();
        assert_eq!(same, Credentials::password("tim", "tanstaaf").unwrap());
    }

    #[test]
    fn another_authorization_identity() {
        let credentials = understood(b"shared\0tim\0tanstaaf").unwrap();
        assert_eq!(credentials.user(), "tim");
        assert_eq!(credentials.mailbox(), "shared");
        let sent = initial_response(&credentials, "", 0).unwrap();
        assert_eq!(sent.as_slice(), b"shared\0tim\0tanstaaf");
    }

    #[test]
    fn malformed() {
        for bad in [
            &b""[..],
            b"tim",
            b"tim\0tanstaaf",
            b"\0tim\0a\0b",
            b"\0tim\0\xff",
            b"\0\xff\0a",
            b"\0t\rm\0a",
            b"\0tim\0a\r\n",
            b"\x01\0tim\0a",
        ] {
            assert_eq!(
                understood(bad).unwrap_err(),
                SaslError::Malformed,
                "{bad:?}"
            );
        }
        for empty in [&b"\0\0a"[..], b"\0tim\0", b"\0\0"] {
            assert_eq!(
                understood(empty).unwrap_err(),
                SaslError::Empty,
                "{empty:?}"
            );
        }
    }
}
