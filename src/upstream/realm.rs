//! Realms: two servers may each have a user "info", and what is kept or locked of
//! the one is not the other's.

use std::sync::Arc;

use url::Url;

/// Stands between a realm and a user name: no user name has a control character.
const BETWEEN: char = '\u{1}';

/// The realm of the server with this URL: the same however the URL is written.
/// The gateway's own server needs none, so that what was kept of it before there
/// were others stays.
pub fn realm(url: &str) -> Arc<str> {
    let Ok(parsed) = Url::parse(url) else {
        return url.to_lowercase().into();
    };
    let host = parsed.host_str().unwrap_or_default().to_lowercase();
    let port = |standard: u16| parsed.port_or_known_default().unwrap_or(standard);
    match parsed.scheme() {
        "imaps" => format!("imap {host}:{}", port(993)),
        "jmap" => format!("jmap {host}:{}/.well-known/jmap", port(443)),
        scheme if scheme.starts_with("imap") => format!("imap {host}:{}", port(143)),
        _ => format!("jmap {host}:{}{}", port(443), parsed.path()),
    }
    .into()
}

/// What the store and the locks know a user of a realm by.
pub fn account_in(realm: Option<&str>, user: &str) -> String {
    let user = user.to_lowercase();
    match realm {
        Some(realm) => format!("{realm}{BETWEEN}{user}"),
        None => user,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_is_one_realm_however_it_is_written() {
        for (one, other) in [
            ("imaps://Mail.example.org", "imaps://mail.example.org:993/"),
            (
                "imap+starttls://mail.example.org",
                "imap+starttls://MAIL.example.org:143",
            ),
            ("jmap://example.org", "https://example.org/.well-known/jmap"),
            ("https://example.org:443/jmap", "https://Example.org/jmap"),
        ] {
            assert_eq!(realm(one), realm(other), "{one}");
        }
    }

    #[test]
    fn other_servers_are_other_realms() {
        let urls = [
            "imaps://a.example.org",
            "imaps://b.example.org",
            "imaps://a.example.org:10993",
            "https://a.example.org/jmap",
            "https://a.example.org/other",
            "http://127.0.0.1:8080/jmap",
            "http://127.0.0.1/jmap",
            "http://[::1]:8080/jmap",
            "no url",
        ];
        let realms: std::collections::HashSet<_> = urls.iter().map(|url| realm(url)).collect();
        assert_eq!(realms.len(), urls.len(), "{realms:?}");
    }

    #[test]
    fn users_of_two_realms_never_have_the_same_name() {
        let (a, b) = (
            realm("imaps://a.example.org"),
            realm("imaps://b.example.org"),
        );
        let names = [
            account_in(None, "Info"),
            account_in(Some(&a), "info"),
            account_in(Some(&b), "info"),
        ];
        assert_eq!(names[0], "info");
        assert_ne!(names[1], names[2]);
        // No login of the gateway's own server can be called so.
        for name in &names[1..] {
            assert!(crate::sasl::check_user(name).is_err());
        }
    }
}
