//! What upstream failures mean to a POP3 client: the one table.
//!
//! A client that sees `[AUTH]` throws its password away (RFC 3206 §4), so only
//! a refusal of the credentials themselves may say so. Nothing that came from
//! upstream stands in these texts.

use std::time::Duration;

use url::Url;

use crate::maildrop::FolderNameError;
use crate::metrics::UpstreamFailure;
use crate::pop3::{Refusal, ResponseCode};
use crate::upstream::UpstreamError;

/// The fixed text for credentials that are no good, whoever found out.
const BAD_CREDENTIALS: &str = "invalid user name or password";

/// Octets of a link in an answer, which has 512 (RFC 2449 §4).
const LONGEST_LINK: usize = 400;

/// The answer to a client.
pub(super) fn refusal(error: &UpstreamError) -> Refusal {
    let (code, text) = match error {
        UpstreamError::Authentication => (Some(ResponseCode::Auth), BAD_CREDENTIALS),
        UpstreamError::Temporary { .. } => (
            Some(ResponseCode::SysTemp),
            "the mail server cannot be reached now, try again later",
        ),
        UpstreamError::InUse(_) => (
            Some(ResponseCode::InUse),
            "the mailbox is in use or has too many connections, try again later",
        ),
        UpstreamError::Misconfigured(_) => (
            Some(ResponseCode::SysPerm),
            "the mail server cannot be used as it is set up, tell its operator",
        ),
        UpstreamError::NoFolder(_) => (
            Some(ResponseCode::SysPerm),
            "there is no such folder, or it may not be read",
        ),
        UpstreamError::Gone => (None, "the message is no longer there"),
        UpstreamError::Protocol(_) => (
            Some(ResponseCode::SysTemp),
            "the mail server gave an answer that makes no sense, try again later",
        ),
    };
    Refusal::new(code, text)
}

/// Another session holds the maildrop (RFC 2449 §8.1.2).
pub(super) fn locked() -> Refusal {
    Refusal::new(
        Some(ResponseCode::InUse),
        "the maildrop is locked by another session",
    )
}

/// The last login was too recent (RFC 2449 §8.1.1); the next may come after
/// `wait`.
pub(super) fn early(wait: Duration) -> Refusal {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Refusal::new(
        Some(ResponseCode::LoginDelay),
        format!("the last login was too recent, try again in {seconds} s"),
    )
}

/// The user name asks for what cannot be a folder.
pub(super) fn folder(error: FolderNameError) -> Refusal {
    Refusal::new(
        Some(ResponseCode::SysPerm),
        match error {
            FolderNameError::Empty => "the user name names no folder behind the separator",
            FolderNameError::TooLong => "the folder's name is too long",
            FolderNameError::Forbidden | FolderNameError::Dots => "no folder can have that name",
        },
    )
}

/// The provider no longer lets popgate in; `link` is where people sign in again.
pub(super) fn sign_in(link: Option<&Url>) -> Refusal {
    const WHAT: &str = "your mail provider asks you to sign in again";
    let text = match link.filter(|link| link.as_str().len() <= LONGEST_LINK) {
        Some(link) => format!("{WHAT}: {link}"),
        None => WHAT.to_owned(),
    };
    Refusal::new(Some(ResponseCode::Auth), text)
}

/// The operator has shut the account.
pub(super) fn disabled() -> Refusal {
    Refusal::new(
        Some(ResponseCode::SysPerm),
        "the account is disabled, ask its operator",
    )
}

/// The account's own rules are none.
pub(super) fn unreadable_rules() -> Refusal {
    Refusal::new(
        Some(ResponseCode::SysPerm),
        "the account cannot be used as it is set up, tell its operator",
    )
}

/// Too many logins from the client's network have failed. This one was not judged.
pub(super) fn crowded() -> Refusal {
    Refusal::new(
        Some(ResponseCode::SysTemp),
        "too many logins from your network have failed, try again later",
    )
}

/// popgate is stopping, or the client's work was given up.
pub(super) fn stopping() -> Refusal {
    Refusal::new(
        Some(ResponseCode::SysTemp),
        "the server is stopping, try again later",
    )
}

/// The error as metrics and logs name it.
pub(super) fn kind(error: &UpstreamError) -> UpstreamFailure {
    match error {
        UpstreamError::Authentication => UpstreamFailure::Authentication,
        UpstreamError::Temporary { .. } => UpstreamFailure::Temporary,
        UpstreamError::InUse(_) => UpstreamFailure::InUse,
        UpstreamError::Misconfigured(_) | UpstreamError::NoFolder(_) => {
            UpstreamFailure::Misconfigured
        }
        UpstreamError::Gone => UpstreamFailure::Gone,
        UpstreamError::Protocol(_) => UpstreamFailure::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refused_credentials_are_auth() {
        let others = [
            UpstreamError::temporary("x"),
            UpstreamError::InUse("x".into()),
            UpstreamError::Misconfigured("x".into()),
            UpstreamError::NoFolder("x".into()),
            UpstreamError::Gone,
            UpstreamError::protocol("x"),
        ];
        for error in &others {
            assert_ne!(refusal(error).code(), Some(ResponseCode::Auth), "{error:?}");
        }
        let code = refusal(&UpstreamError::Authentication).code();
        assert_eq!(code, Some(ResponseCode::Auth));
    }
}
