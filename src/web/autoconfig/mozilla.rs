//! Mozilla's format, version 1.1
//! (`wiki.mozilla.org/Thunderbird:Autoconfiguration:ConfigFileFormat`).
//!
//! Clients put the address in place of `%EMAILADDRESS%` themselves, so nothing
//! of the request but its domain is repeated.

use super::xml::Document;
use super::{Config, Security, Server, User};

/// What a client is told about addresses in `domain`. Other domains are not
/// named: they may belong to other customers.
pub(super) fn document(config: &Config, domain: &str) -> String {
    let user = match config.user {
        User::Address => "%EMAILADDRESS%",
        User::LocalPart => "%EMAILLOCALPART%",
    };
    let mut document = Document::new();
    document.begin("clientConfig", &[("version", "1.1")]);
    document.begin("emailProvider", &[("id", domain)]);
    document.element("domain", domain);
    document.element("displayName", &config.display_name);
    document.element("displayShortName", &config.display_name);
    for pop3 in config.pop3() {
        server(&mut document, "incomingServer", "pop3", &pop3, user);
    }
    if let Some(smtp) = config.smtp() {
        server(&mut document, "outgoingServer", "smtp", &smtp, user);
    }
    document.finish()
}

fn server(
    document: &mut Document,
    element: &'static str,
    kind: &str,
    server: &Server<'_>,
    user: &str,
) {
    document.begin(element, &[("type", kind)]);
    document.element("hostname", server.host);
    document.element("port", &server.port.to_string());
    document.element(
        "socketType",
        match server.security {
            Security::ImplicitTls => "SSL",
            Security::StartTls => "STARTTLS",
        },
    );
    // Which is AUTH PLAIN or USER and PASS, over TLS.
    document.element("authentication", "password-cleartext");
    document.element("username", user);
    document.end();
}
