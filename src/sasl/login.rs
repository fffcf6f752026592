//! LOGIN: never standardised, still sent by many programs. The server asks
//! `Username:`, then `Password:`; the prompts are fixed, since clients compare
//! them.

use super::text::{check_user, utf8};
use super::{Credentials, Message, Profile, Round, SaslError};

pub(super) static PROFILE: Profile = Profile {
    name: "LOGIN",
    password: true,
    prompt: b"Username:",
    respond,
    failure: None,
    initial_response,
    answer_to_failure: b"",
};

/// The first response is the user name, whether it came with the command or
/// after the prompt.
fn respond(user: Option<String>, response: &[u8]) -> Result<Round, SaslError> {
    let text = utf8(response)?;
    match user {
        None => {
            check_user(text)?;
            Ok(Round::Next {
                user: text.to_owned(),
                challenge: b"Password:",
            })
        }
        Some(user) => Ok(Round::Finished(Credentials::password(&user, text)?)),
    }
}

/// Upstream, PLAIN and the protocol's own login command do what LOGIN does.
fn initial_response(_: &Credentials, _: &str, _: u16) -> Option<Message> {
    None
}

#[cfg(test)]
mod tests {
    use super::super::{Mechanism, Progress, ServerExchange};
    use super::*;

    #[test]
    fn two_prompts() {
        let started = ServerExchange::start(Mechanism::Login, None).unwrap();
        let Progress::Challenge(exchange, b"Username:") = started else {
            panic!("{started:?}")
        };
        let asked = exchange.step(b"tim").unwrap();
        let Progress::Challenge(exchange, b"Password:") = asked else {
            panic!("{asked:?}")
        };
        let Progress::Credentials(credentials) = exchange.step(b" pass word").unwrap() else {
            panic!("no third prompt")
        };
        assert_eq!(
            credentials,
            Credentials::password("tim", " pass word").unwrap()
        );
    }

    #[test]
    fn the_user_as_initial_response() {
        let started = ServerExchange::start(Mechanism::Login, Some(b"tim")).unwrap();
        assert!(matches!(started, Progress::Challenge(_, b"Password:")));
    }

    #[test]
    fn refused() {
        let first = |response| ServerExchange::start(Mechanism::Login, Some(response)).unwrap_err();
        assert_eq!(first(b""), SaslError::Empty);
        assert_eq!(first(b"t\0m"), SaslError::Malformed);
        assert_eq!(first(b"\xff"), SaslError::Malformed);
        let second = |response| respond(Some("tim".into()), response).err();
        assert_eq!(second(b""), Some(SaslError::Empty));
        assert_eq!(second(b"a\nb"), Some(SaslError::Malformed));
    }
}
