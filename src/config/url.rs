//! The upstream's URL.

use std::net::IpAddr;

use rustls::pki_types::ServerName;
use url::Url;

use crate::upstream::imap::Security;

/// The upstream that a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Imap(ImapServer),
    Jmap(JmapServer),
}

/// A JMAP server by the URL of its session resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JmapServer {
    /// The URL, without what may be secret in it.
    pub name: String,
    /// `https`, or `http` on loopback.
    pub resource: Url,
}

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

const SCHEMES: &str = "imaps://host[:993], imap+starttls://host[:143] or imap+plain://host[:143] for IMAP, https://host/path or jmap://host for JMAP";

/// Where a JMAP server's session resource is found (RFC 8620 §2.2).
const WELL_KNOWN: &str = "/.well-known/jmap";

/// The text as a URL; `expected` are the forms it may have.
pub(super) fn read(text: &str, expected: &str) -> Result<Url, String> {
    if text.is_empty() {
        return Err(format!("is empty: expected {expected}"));
    }
    // The parser would leave them out in silence.
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a URL has no spaces or control characters".to_owned());
    }
    Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => format!("is not a URL: expected {expected}"),
        other => format!("is not a URL ({other}): expected {expected}"),
    })
}

/// Reads the URL of an IMAP or JMAP server. What is refused is not repeated in
/// the message: it may hold a password.
pub(super) fn parse(text: &str) -> Result<Server, String> {
    let url = read(text, SCHEMES)?;
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
        "https" | "http" | "jmap" => return jmap(&url).map(Server::Jmap),
        _ => return Err(format!("the scheme is not known: expected {SCHEMES}")),
    };
    if !matches!(url.path(), "" | "/") {
        no_credentials(&url)?;
        return Err("an IMAP URL has no path here: popgate opens INBOX".to_owned());
    }
    let Authority { name, host, port } = authority(&url, default_port, SCHEMES)?;
    Ok(Server::Imap(ImapServer {
        name,
        host,
        port,
        security,
    }))
}

/// A server by host and port, which is all that its URL says.
pub(super) struct Authority {
    /// The URL, with its port.
    pub name: String,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

/// Takes a URL of a host and a port apart; `expected` are the forms it may have.
pub(super) fn authority(url: &Url, default_port: u16, expected: &str) -> Result<Authority, String> {
    no_credentials(url)?;
    if url.query().is_some() || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
        return Err("the URL has no path, and no ? or # part here".to_owned());
    }
    let shown_host = url.host_str().unwrap_or_default();
    let host = shown_host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_ascii_lowercase();
    if host.is_empty() {
        return Err(format!("has no host: expected {expected}"));
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
    Ok(Authority { name, host, port })
}

/// Reads the URL of a service that popgate asks over HTTP: https, or http on
/// loopback.
pub(super) fn service(text: &str) -> Result<Url, String> {
    const EXPECTED: &str = "https://host/path, or http:// on loopback";
    let url = read(text, EXPECTED)?;
    match url.scheme() {
        "https" => {}
        "http" if url.host_str().is_some_and(is_loopback) => {}
        "http" => return Err("http:// is for loopback only: use https://".to_owned()),
        _ => return Err(format!("the scheme is not known: expected {EXPECTED}")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL must not hold credentials".to_owned());
    }
    if url.fragment().is_some() {
        return Err("the URL has no # part here".to_owned());
    }
    if url.port() == Some(0) {
        return Err("port 0 is no port to connect to".to_owned());
    }
    Ok(url)
}

fn no_credentials(url: &Url) -> Result<(), String> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(());
    }
    Err("a URL must not hold credentials: each POP3 client logs in with its own".to_owned())
}

/// `https://host/path` and `http://loopback/path` name the session resource,
/// `jmap://host` a host that tells where it is.
fn jmap(url: &Url) -> Result<JmapServer, String> {
    no_credentials(url)?;
    if url.fragment().is_some() {
        return Err("a JMAP URL has no # part".to_owned());
    }
    let resource = if url.scheme() == "jmap" {
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err("a jmap:// URL has no path: with one, write https://host/path".to_owned());
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("has no host: expected {SCHEMES}"))?;
        let port = url.port().map_or(String::new(), |port| format!(":{port}"));
        Url::parse(&format!("https://{host}{port}{WELL_KNOWN}"))
            .map_err(|_| "the host is neither a DNS name nor an IP address".to_owned())?
    } else {
        url.clone()
    };
    let host = resource.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if ServerName::try_from(bare).is_err() {
        return Err("the host is neither a DNS name nor an IP address".to_owned());
    }
    if resource.port() == Some(0) {
        return Err("port 0 is no port to connect to".to_owned());
    }
    let port = resource.port().map_or(String::new(), |it| format!(":{it}"));
    // What stands behind a ? may be a secret, and the name is logged.
    let name = match url.scheme() {
        "jmap" => format!("jmap://{host}{port}"),
        scheme => format!("{scheme}://{host}{port}{}", resource.path()),
    };
    Ok(JmapServer { name, resource })
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
            let Server::Imap(server) = parse(url).unwrap() else {
                panic!("{url} is IMAP")
            };
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
    fn jmap_servers() {
        for (url, name, resource) in [
            (
                "https://Mail.Example.com/jmap/session",
                "https://mail.example.com/jmap/session",
                "https://mail.example.com/jmap/session",
            ),
            (
                "https://mail.example.com:8443/s?key=s3cret",
                "https://mail.example.com:8443/s",
                "https://mail.example.com:8443/s?key=s3cret",
            ),
            (
                "http://[::1]:8080/",
                "http://[::1]:8080/",
                "http://[::1]:8080/",
            ),
            (
                "jmap://Mail.Example.com",
                "jmap://mail.example.com",
                "https://mail.example.com/.well-known/jmap",
            ),
            (
                "jmap://b\u{fc}ro.example:8443/",
                "jmap://xn--bro-hoa.example:8443",
                "https://xn--bro-hoa.example:8443/.well-known/jmap",
            ),
        ] {
            let Server::Jmap(server) = parse(url).unwrap() else {
                panic!("{url} is JMAP")
            };
            assert_eq!((&*server.name, server.resource.as_str()), (name, resource));
        }
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
            ("http://mail.example.com/jmap", "on loopback only"),
            ("http://127.0.0.1.example.com/jmap", "on loopback only"),
            ("jmap://", "has no host"),
            ("jmap:///path", "has no path"),
            ("jmap://host/path", "has no path"),
            ("jmap://host?x=1", "has no path"),
            ("https://host/jmap#x", "no # part"),
            ("https://host:0/jmap", "port 0"),
            ("https://a_b!c/jmap", "neither a DNS name"),
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
            "jmap://s3cret@host",
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
