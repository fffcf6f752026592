//! XOAUTH2, as Google and Microsoft document it:
//! `user=` user `^A` `auth=Bearer ` token `^A^A`.

use super::text::{bearer_token, check_token, check_user, utf8};
use super::{Credentials, Message, Profile, Round, SaslError, message};

pub(super) static PROFILE: Profile = Profile {
    name: "XOAUTH2",
    password: false,
    prompt: b"",
    respond,
    failure: Some(br#"{"status":"400","schemes":"Bearer"}"#),
    initial_response,
    answer_to_failure: b"",
};

fn respond(_: Option<String>, response: &[u8]) -> Result<Round, SaslError> {
    let (mut user, mut authorization) = (None, None);
    for field in utf8(response)?.split('\u{1}') {
        if let Some(value) = field.strip_prefix("user=") {
            user = Some(value);
        } else if let Some(value) = field.strip_prefix("auth=") {
            authorization = Some(value);
        }
    }
    let user = user.ok_or(SaslError::Malformed)?;
    check_user(user)?;
    let token = bearer_token(authorization.ok_or(SaslError::Malformed)?)?;
    Ok(Round::Finished(Credentials::Bearer {
        user: user.to_owned(),
        token: token.into(),
    }))
}

fn initial_response(credentials: &Credentials, _: &str, _: u16) -> Option<Message> {
    let Credentials::Bearer { user, token } = credentials else {
        return None;
    };
    check_user(user).ok()?;
    check_token(token.reveal()).ok()?;
    Some(message(&[
        b"user=",
        user.as_bytes(),
        b"\x01auth=Bearer ",
        token.reveal().as_bytes(),
        b"\x01\x01",
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(response: &[u8]) -> Result<Credentials, SaslError> {
        match respond(None, response)? {
            Round::Finished(credentials) => Ok(credentials),
            Round::Next { .. } => panic!("XOAUTH2 has one message"),
        }
    }

    #[test]
    fn user_and_token() {
        let message = b"user=tim@example.org\x01auth=Bearer ya29.vF9==\x01\x01";
        let credentials = Credentials::Bearer {
            user: "tim@example.org".into(),
            token: "ya29.vF9==".into(),
        };
        assert_eq!(understood(message), Ok(credentials.clone()));
        let sent = initial_response(&credentials, "host", 143).unwrap();
        assert_eq!(sent.as_slice(), message);
    }

    #[test]
    fn malformed() {
        for bad in [
            &b""[..],
            b"\x01",
            b"user=tim\x01\x01",
            b"auth=Bearer t\x01\x01",
            b"user=tim\x01auth=Bearer \x01\x01",
            b"user=tim\x01auth=Bearer t t\x01\x01",
            b"user=tim\x01auth=Basic dA==\x01\x01",
            b"user=t\rm\x01auth=Bearer t\x01\x01",
            b"user=tim\x01auth=Bearer t\r\n\x01\x01",
            b"user=\xff\x01auth=Bearer t\x01\x01",
        ] {
            assert_eq!(understood(bad), Err(SaslError::Malformed), "{bad:?}");
        }
        assert_eq!(
            understood(b"user=\x01auth=Bearer t\x01\x01"),
            Err(SaslError::Empty)
        );
    }
}
