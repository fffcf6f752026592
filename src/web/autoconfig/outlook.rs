//! Outlook's Autodiscover in plain XML, POX ([MS-OXDSCLI] §2.2).
//!
//! Errors are documents, too, with status 200: Outlook takes any other status
//! for a URL where there is no Autodiscover.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

use super::address::Address;
use super::xml::{self, Document};
use super::{Config, Security, Server, User};

/// The namespace of the document, and of errors.
const ENVELOPE: &str = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006";

/// The namespace of settings for Outlook. Phones ask for another one, that of
/// ActiveSync, which POP3 is not.
const SETTINGS: &str =
    "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a";

/// Why there are no settings, with code and text as Exchange has them, which
/// clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The address is in no domain of ours.
    NotFound,
    /// It cannot be read, or has no address.
    InvalidRequest,
    /// It asks for another kind of answer.
    NoProvider,
}

impl Failure {
    fn code(self) -> &'static str {
        match self {
            Self::NotFound => "500",
            Self::InvalidRequest => "600",
            Self::NoProvider => "601",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::NotFound => "The e-mail address cannot be found.",
            Self::InvalidRequest => "Invalid Request",
            Self::NoProvider => "Provider is not available",
        }
    }
}

/// Answers a request's body: settings, or an error.
pub(super) fn answer(config: &Config, body: &[u8]) -> String {
    match asked(body) {
        Ok(address) if config.answers(&address.domain) => settings(config, &address),
        Ok(_) => error(config, Failure::NotFound),
        Err(failure) => error(config, failure),
    }
}

/// The address that is asked about.
fn asked(body: &[u8]) -> Result<Address, Failure> {
    let texts = xml::texts(body).ok_or(Failure::InvalidRequest)?;
    let only = |name: &str| {
        let mut found = texts
            .iter()
            .filter(|(path, _)| *path == ["Autodiscover", "Request", name])
            .map(|(_, text)| text.trim());
        match (found.next(), found.next()) {
            (found, None) => Ok(found),
            _ => Err(Failure::InvalidRequest),
        }
    };
    let address = only("EMailAddress")?
        .and_then(Address::parse)
        .ok_or(Failure::InvalidRequest)?;
    match only("AcceptableResponseSchema")? {
        // It has to be there, but there is only one answer that could be meant.
        None | Some(SETTINGS) => Ok(address),
        Some(_) => Err(Failure::NoProvider),
    }
}

fn settings(config: &Config, address: &Address) -> String {
    let user = match config.user {
        User::Address => address.whole.as_str(),
        User::LocalPart => address.local_part(),
    };
    let mut document = Document::new();
    document.begin("Autodiscover", &[("xmlns", ENVELOPE)]);
    document.begin("Response", &[("xmlns", SETTINGS)]);
    document.begin("Account", &[]);
    document.element("AccountType", "email");
    document.element("Action", "settings");
    for pop3 in config.pop3() {
        begin_protocol(&mut document, "POP3", &pop3, user);
        document.end();
    }
    if let Some(smtp) = config.smtp() {
        begin_protocol(&mut document, "SMTP", &smtp, user);
        // With the user name and password of POP3.
        document.element("UsePOPAuth", "on");
        document.element("SMTPLast", "off");
        document.end();
    }
    document.finish()
}

fn begin_protocol(document: &mut Document, kind: &str, server: &Server<'_>, user: &str) {
    document.begin("Protocol", &[]);
    document.element("Type", kind);
    document.element("Server", server.host);
    document.element("Port", &server.port.to_string());
    // Left out, it would be what stands before the @.
    document.element("LoginName", user);
    document.element("DomainRequired", "off");
    document.element("SPA", "off");
    // Overridden by Encryption, where a client knows that. One that does not
    // fails with STARTTLS, instead of sending the password in the clear.
    document.element("SSL", "on");
    document.element(
        "Encryption",
        match server.security {
            Security::ImplicitTls => "SSL",
            Security::StartTls => "TLS",
        },
    );
    document.element("AuthRequired", "on");
}

fn error(config: &Config, failure: Failure) -> String {
    let mut server = DefaultHasher::new();
    config.host.hash(&mut server);
    let id = server.finish() & u64::from(u32::MAX);
    let mut document = Document::new();
    document.begin("Autodiscover", &[("xmlns", ENVELOPE)]);
    document.begin("Response", &[]);
    document.begin(
        "Error",
        &[("Time", &time_of_day()), ("Id", &id.to_string())],
    );
    document.element("ErrorCode", failure.code());
    document.element("Message", failure.message());
    document.element("DebugData", "");
    document.finish()
}

/// Now, in UTC: `21:05:09`.
fn time_of_day() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
        % 86_400;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}
