//! OAUTHBEARER (RFC 7628): a GS2 header (RFC 5801 §4), then key=value pairs
//! with `^A` behind each, and a last `^A`.

use super::text::{bearer_token, check_token, check_user, utf8};
use super::{Credentials, Message, Profile, Round, SaslError, message};

pub(super) static PROFILE: Profile = Profile {
    name: "OAUTHBEARER",
    password: false,
    prompt: b"",
    respond,
    failure: Some(br#"{"status":"invalid_token"}"#),
    initial_response,
    answer_to_failure: b"\x01",
};

/// The user is the authorization identity: without one there is no mailbox to
/// open (RFC 7628 §3.1 allows to require it). `host` and `port` tell what the
/// client connected to, which behind a proxy is not known here; they are
/// ignored, like unknown keys.
fn respond(_: Option<String>, response: &[u8]) -> Result<Round, SaslError> {
    let mut fields = utf8(response)?.split('\u{1}');
    let header = fields.next().ok_or(SaslError::Malformed)?;
    let user = authorization_identity(header)?;
    check_user(&user)?;
    let authorization = fields
        .find_map(|field| field.strip_prefix("auth="))
        .ok_or(SaslError::Malformed)?;
    let token = bearer_token(authorization)?;
    Ok(Round::Finished(Credentials::Bearer {
        user,
        token: token.into(),
    }))
}

/// Reads `("n" / "y") "," "a=" saslname ","`. Channel binding (`p=`) cannot
/// be had with a token alone.
fn authorization_identity(header: &str) -> Result<String, SaslError> {
    let name = header
        .strip_prefix("n,a=")
        .or_else(|| header.strip_prefix("y,a="))
        .and_then(|rest| rest.strip_suffix(','))
        .filter(|name| !name.contains(','))
        .ok_or(SaslError::Malformed)?;
    Ok(unescaped(name))
}

/// `=2C` stands for a comma and `=3D` for an equals sign (RFC 5801 §4). Some
/// clients leave the equals sign as it is, which is clear enough.
fn unescaped(name: &str) -> String {
    name.replace("=2C", ",").replace("=3D", "=")
}

fn initial_response(credentials: &Credentials, host: &str, port: u16) -> Option<Message> {
    let Credentials::Bearer { user, token } = credentials else {
        return None;
    };
    check_user(user).ok()?;
    check_token(token.reveal()).ok()?;
    check_user(host).ok()?;
    Some(message(&[
        b"n,a=",
        user.replace('=', "=3D").replace(',', "=2C").as_bytes(),
        b",\x01host=",
        host.as_bytes(),
        b"\x01port=",
        port.to_string().as_bytes(),
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
            Round::Next { .. } => panic!("OAUTHBEARER has one message"),
        }
    }

    fn tim() -> Credentials {
        Credentials::Bearer {
            user: "tim@example.org".into(),
            token: "vF9dft4qmT==".into(),
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        let message = b"n,a=tim@example.org,\x01host=mail.example.org\x01port=143\x01\
                        auth=Bearer vF9dft4qmT==\x01\x01";
        assert_eq!(understood(message), Ok(tim()));
        let sent = initial_response(&tim(), "mail.example.org", 143).unwrap();
        assert_eq!(sent.as_slice(), message);
    }

    #[test]
    fn unknown_keys_and_other_cases() {
        let message = b"y,a=tim@example.org,\x01mthd=POST\x01auth=BeArEr vF9dft4qmT==\x01\x01";
        assert_eq!(understood(message), Ok(tim()));
    }

    #[test]
    fn escaped_names() {
        let name = |message: &[u8]| understood(message).unwrap().user().to_owned();
        assert_eq!(name(b"n,a=a=2Cb=3Dc,\x01auth=Bearer t\x01\x01"), "a,b=c");
        assert_eq!(name(b"n,a=a=3D2Cb,\x01auth=Bearer t\x01\x01"), "a=2Cb");
        assert_eq!(name(b"n,a=a=b,\x01auth=Bearer t\x01\x01"), "a=b");
    }

    #[test]
    fn malformed() {
        for bad in [
            &b""[..],
            b"\x01",
            b"n,,\x01auth=Bearer t\x01\x01",
            b"p=tls-unique,a=tim,\x01auth=Bearer t\x01\x01",
            b"n,a=tim\x01auth=Bearer t\x01\x01",
            b"n,a=tim,x,\x01auth=Bearer t\x01\x01",
            b"n,a=tim,\x01host=h\x01\x01",
            b"n,a=tim,\x01auth=Bearer \x01\x01",
            b"n,a=t\nm,\x01auth=Bearer t\x01\x01",
            b"n,a=tim,\x01auth=Bearer t\0\x01\x01",
            b"n,a=\xff,\x01auth=Bearer t\x01\x01",
        ] {
            assert_eq!(understood(bad), Err(SaslError::Malformed), "{bad:?}");
        }
        assert_eq!(
            understood(b"n,a=,\x01auth=Bearer t\x01\x01"),
            Err(SaslError::Empty)
        );
    }
}
