//! The upstream's URL.

use std::net::IpAddr;

use rustls::pki_types::ServerName;
use url::Url;

use crate::upstream::imap::Security;

/// An IMAP server by its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImapServer {
    /// The URL, with its port.
    pub name: String,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    pub security: Security,
}

const SCHEMES: &str = "imaps://host[:993], imap+starttls://host[:143] or imap+plain://host[:143]";

/// Reads `imaps://host[:993]`, `imap+starttls://host[:143]`,
/// `imap+plain://host[:143]`. What is refused is not repeated in the message:
/// it may hold a password.
pub(super) fn parse(text: &str) -> Result<ImapServer, String> {
    if text.is_empty() {
        return Err(format!("is empty: expected {SCHEMES}"));
    }
    // The parser would leave them out in silence.
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a URL has no spaces or control characters".to_owned());
    }
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => format!("is not a URL: expected {SCHEMES}"),
        other => format!("is not a URL ({other}): expected {SCHEMES}"),
    })?;
    let (security, default_port) = match url.scheme() {
        "imaps" => (Security::ImplicitTls, 993),
        "imap+starttls" => (Security::StartTls, 143),
        "imap+plain" => (Security::Cleartext, 143),
        "imap" => {
            return Err(format!(
                "imap:// does not say how it is protected: write {SCHEMES}"
            ));
        }
        "http" if !url.host_str().is_some_and(is_loopback) => {
            return Err("http:// is for a JMAP server on loopback only: use https://".to_owned());
        }
        "https" | "http" | "jmap" => {
            return Err(format!(
                "{}:// is a JMAP server, and this version of popgate speaks only IMAP upstream: use {SCHEMES}",
                url.scheme()
            ));
        }
        _ => return Err(format!("the scheme is not known: expected {SCHEMES}")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "a URL must not hold credentials: each POP3 client logs in with its own".to_owned(),
        );
    }
    if !matches!(url.path(), "" | "/") {
        return Err("an IMAP URL has no path here: popgate opens INBOX".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("an IMAP URL has no ? or # part here".to_owned());
    }
    let shown_host = url.host_str().unwrap_or_default();
    let host = shown_host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_ascii_lowercase();
    if host.is_empty() {
        return Err(format!("has no host: expected {SCHEMES}"));
    }
    // Also what a certificate can be for.
    if ServerName::try_from(host.as_str()).is_err() {
        return Err(
            "the host is neither a DNS name (an international one in its xn-- form) nor an IP address"
                .to_owned(),
        );
    }
    let port = url.port().unwrap_or(default_port);
    if port == 0 {
        return Err("port 0 is no port to connect to".to_owned());
    }
    let name = format!(
        "{}://{}:{port}",
        url.scheme(),
        shown_host.to_ascii_lowercase()
    );
    Ok(ImapServer {
        name,
        host,
        port,
        security,
    })
}

/// Whether `host` is this machine, without asking a resolver.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_three_schemes() {
        let server = |url: &str| {
            let server = parse(url).unwrap();
            (server.security, server.host, server.port, server.name)
        };
        let expected = |security, host: &str, port, name: &str| {
            (security, host.to_owned(), port, name.to_owned())
        };
        assert_eq!(
            server("imaps://Mail.Example.com"),
            expected(
                Security::ImplicitTls,
                "mail.example.com",
                993,
                "imaps://mail.example.com:993"
            )
        );
        assert_eq!(
            server("imap+starttls://192.0.2.1:1143/"),
            expected(
                Security::StartTls,
                "192.0.2.1",
                1143,
                "imap+starttls://192.0.2.1:1143"
            )
        );
        assert_eq!(
            server("imap+plain://[::1]"),
            expected(Security::Cleartext, "::1", 143, "imap+plain://[::1]:143")
        );
        assert_eq!(server("IMAPS://h:993").2, 993);
    }

    #[test]
    fn what_is_refused_and_why() {
        for (url, says) in [
            ("", "is empty"),
            ("mail.example.com", "is not a URL: expected imaps://host"),
            ("mail.example.com:993", "the scheme is not known"),
            (
                "imap://mail.example.com",
                "does not say how it is protected",
            ),
            ("pop3://mail.example.com", "the scheme is not known"),
            ("https://mail.example.com/jmap", "JMAP"),
            ("jmap://mail.example.com", "JMAP"),
            ("http://127.0.0.1:8080/jmap", "speaks only IMAP"),
            ("http://mail.example.com/jmap", "on loopback only"),
            ("imaps://", "has no host"),
            ("imaps:", "has no host"),
            ("imaps:mail.example.com", "has no path here"),
            ("imaps:///INBOX", "has no path here"),
            ("imaps://host/INBOX", "has no path here"),
            ("imaps://host?x=1", "no ? or # part"),
            ("imaps://host#x", "no ? or # part"),
            ("imaps://host:0", "port 0"),
            ("imaps://host:65536", "invalid port number"),
            ("imaps://a_b!c", "neither a DNS name"),
            ("imaps://büro.example", "neither a DNS name"),
            ("imaps://ho%73t", "neither a DNS name"),
            ("imaps://[::1", "invalid IPv6 address"),
            ("imaps://ho st", "no spaces"),
            ("imaps://host\r\n", "no spaces"),
        ] {
            let problem = parse(url).unwrap_err();
            assert!(problem.contains(says), "{url}: {problem}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        for url in [
            "imaps://alice:s3cret@host",
            "imaps://s3cret@host",
            "imaps://alice:s3cret@host:99999",
            "imaps://alice:s3cret@",
            "alice:s3cret@host",
            "https://alice:s3cret@host/",
        ] {
            let problem = parse(url).unwrap_err();
            assert!(!problem.contains("s3cret"), "{problem}");
        }
        assert!(
            parse("imaps://alice@host")
                .unwrap_err()
                .contains("must not hold credentials")
        );
    }

    #[test]
    fn loopback_is_told_without_a_resolver() {
        for host in [
            "localhost",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example.com",
            "192.0.2.1",
            "::",
            "127.0.0.1.example.com",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
