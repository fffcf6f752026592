//! What can go wrong, in words that help. Nothing that a provider or a browser
//! said is repeated, but the addresses that are meant.

use std::sync::Arc;

use askama::Template;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::response::{Html, IntoResponse, Response};

use super::app::{App, Frame};
use super::request::{Area, Visitor};
use crate::accounts::{AccountsError, EnrolmentError, ProbeError};
use crate::oauth2::TokenError;

/// Why somebody does not get what he asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    NotFound,
    /// The method is not one for this path.
    Method,
    /// The form is none of ours, or too old.
    Forged,
    /// The request is none that a page makes.
    Unreadable,
    TooLarge,
    TooMany,
    Busy,
    SignedOut,
    /// Came back from a provider without having been sent there, or twice.
    UnknownState,
    /// Said no at the provider.
    Declined,
    /// The provider's answer is another provider's.
    MixedUp,
    /// What is asked for is not allowed for this address.
    NotHere(String),
    /// The operator has switched the account off.
    Disabled(String),
    AnotherMailbox {
        signed_in: String,
        expected: String,
    },
    /// The provider does not say who signed in.
    Nobody(String),
    /// The mailbox does not open although its owner signed in.
    MailboxRefused,
    /// Somebody else's server does not answer.
    Away,
    /// The operator has to do something.
    Misconfigured,
    TooManyDevices,
    /// An address that can be nobody's here.
    Unsuitable,
    /// Something of ours failed.
    Broken,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Forged | Self::NotHere(_) | Self::Disabled(_) | Self::AnotherMailbox { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::SignedOut => StatusCode::UNAUTHORIZED,
            Self::Unreadable
            | Self::UnknownState
            | Self::Declined
            | Self::MixedUp
            | Self::Nobody(_)
            | Self::Unsuitable
            | Self::MailboxRefused => StatusCode::BAD_REQUEST,
            Self::TooManyDevices => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::Away => StatusCode::SERVICE_UNAVAILABLE,
            Self::Misconfigured | Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn heading(&self) -> &'static str {
        match self {
            Self::NotFound => "There is no such page",
            Self::Method | Self::Unreadable => "That did not come from a page of ours",
            Self::Forged => "This page has been open for too long",
            Self::TooLarge => "That was too much",
            Self::TooMany => "That was too often",
            Self::Busy => "Too many people at once",
            Self::SignedOut => "You are signed out",
            Self::UnknownState => "That sign-in is no longer valid",
            Self::Declined => "You were not signed in",
            Self::MixedUp => "That sign-in does not fit",
            Self::NotHere(_) => "This mailbox cannot be used here",
            Self::Disabled(_) => "This account is switched off",
            Self::AnotherMailbox { .. } => "Another mailbox signed in",
            Self::Nobody(_) => "Whose mailbox is it?",
            Self::MailboxRefused => "The mailbox did not open",
            Self::Away => "The mail provider does not answer",
            Self::Misconfigured => "Something is not set up right",
            Self::TooManyDevices => "That is one device too many",
            Self::Unsuitable => "That address will not do",
            Self::Broken => "Something went wrong here",
        }
    }

    fn words(&self) -> String {
        match self {
            Self::NotFound => "The address may be mistyped, or the page has moved.".into(),
            Self::Method | Self::Unreadable => "Please start again from the first page.".into(),
            Self::Forged => "For your safety nothing was done. Please start again; your browser has to accept cookies from this site.".into(),
            Self::TooLarge => "What was sent is larger than anything that is asked for here.".into(),
            Self::TooMany => "Please wait a minute before you try again.".into(),
            Self::Busy => "Please try again in a moment.".into(),
            Self::SignedOut => "That happens after half an hour without a click. Sign in again to go on.".into(),
            Self::UnknownState => "A sign-in is good for ten minutes, once, and in the browser in which it was begun. Nothing was changed. Please begin again.".into(),
            Self::Declined => "Your provider says that the sign-in was not completed. Nothing was changed; you can try again whenever you like.".into(),
            Self::MixedUp => "The answer came from another provider than the one you were sent to, so it was not used. Please begin again.".into(),
            Self::NotHere(address) => format!("{address} signed in, but there is no account for it here, or it belongs to another provider. Please ask whoever runs this service."),
            Self::Disabled(address) => format!("Whoever runs this service has switched {address} off. Please ask them."),
            Self::AnotherMailbox { signed_in, expected } => format!("{signed_in} signed in, but this is for {expected}. Sign out at your provider, or use a private window, and sign in as {expected}."),
            Self::Nobody(provider) => format!("{provider} does not say which mailbox signed in. Please type its address first."),
            Self::MailboxRefused => "You signed in, but the mail server does not let popgate open the mailbox. It may be the wrong mailbox, or access for mail programs (IMAP) may be turned off in its settings.".into(),
            Self::Away => "Nothing was changed, and nothing is wrong with what you did. Please try again in a few minutes.".into(),
            Self::Misconfigured => "This cannot be solved from here: whoever runs this service finds the reason in the log.".into(),
            Self::TooManyDevices => "Please remove a device that you no longer use first.".into(),
            Self::Unsuitable => "It has letters that an account here cannot have. Please ask whoever runs this service.".into(),
            Self::Broken => "Nothing was changed. Please try again; if it stays so, tell whoever runs this service.".into(),
        }
    }

    /// Where to go from here, and how that is called.
    fn way_out(&self, area: Area) -> (String, &'static str) {
        match (self, area) {
            (Self::TooManyDevices, _) => ("/enrol/devices".into(), "Your devices"),
            (_, Area::Operator) => (area.home().into(), "To the accounts"),
            (Self::NotFound | Self::Method, _) => (area.home().into(), "To the first page"),
            (Self::SignedOut, _) => (area.home().into(), "Sign in"),
            _ => (area.home().into(), "Start again"),
        }
    }

    /// The page that says so.
    pub(super) fn page(&self, app: &App, visitor: &Visitor) -> Response {
        let (to, action) = self.way_out(visitor.area);
        let page = Page {
            frame: app.frame(visitor),
            problem: Shown {
                heading: self.heading(),
                words: self.words(),
                to,
                action,
            },
        };
        let mut response = match page.render() {
            Ok(html) => (self.status(), Html(html)).into_response(),
            Err(_) => self.status().into_response(),
        };
        if matches!(self, Self::TooMany | Self::Busy | Self::Away) {
            let wait = HeaderValue::from_static("60");
            response.headers_mut().insert(RETRY_AFTER, wait);
        }
        response
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Page<'a> {
    frame: Frame<'a>,
    problem: Shown,
}

struct Shown {
    heading: &'static str,
    words: String,
    to: String,
    action: &'static str,
}

/// Rendered where it is known who asked.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

impl From<AccountsError> for Problem {
    fn from(error: AccountsError) -> Self {
        match error {
            AccountsError::Missing(_) => Self::SignedOut,
            AccountsError::Changed(_) | AccountsError::Exists(_) | AccountsError::Busy => {
                Self::Busy
            }
            AccountsError::Unsuitable(_) => Self::Unsuitable,
            AccountsError::Store(error) => {
                tracing::error!(%error, "the pages cannot use the accounts");
                Self::Broken
            }
            AccountsError::Vault(_)
            | AccountsError::Unreadable(_)
            | AccountsError::KeyNotRunning(_) => {
                tracing::error!(%error, "the pages cannot use an account");
                Self::Misconfigured
            }
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Refused(_) | TokenError::NotSignedIn(_) => {
                tracing::info!(%error, "somebody could not be signed in");
                Self::Declined
            }
            TokenError::Temporary { reason, .. } => {
                tracing::warn!(%reason, "a provider does not answer the pages");
                Self::Away
            }
            TokenError::Misconfigured(reason) => {
                tracing::error!(%reason, "a provider refuses what is configured");
                Self::Misconfigured
            }
        }
    }
}

impl From<EnrolmentError> for Problem {
    fn from(error: EnrolmentError) -> Self {
        match error {
            EnrolmentError::AnotherMailbox {
                signed_in,
                expected,
            } => Self::AnotherMailbox {
                signed_in,
                expected,
            },
            EnrolmentError::Mailbox(ProbeError::Refused) => Self::MailboxRefused,
            EnrolmentError::Mailbox(ProbeError::Temporary(reason)) => {
                tracing::warn!(%reason, "a mail server does not answer the pages");
                Self::Away
            }
            EnrolmentError::Mailbox(ProbeError::Misconfigured(reason))
            | EnrolmentError::Unsuitable(reason) => {
                tracing::error!(%reason, "somebody could not be enrolled");
                Self::Misconfigured
            }
            EnrolmentError::Token(error) => error.into(),
            EnrolmentError::Accounts(error) => error.into(),
        }
    }
}
