//! The old POP3 server that `popgate uidl import` reads.

use std::path::PathBuf;

use super::{ConfigError, Given, trust, url};
use crate::import::pop3_client::{Config, Security, Timeouts};

const SCHEMES: &str = "pop3s://host[:995], pop3+stls://host[:110] or pop3+plain://host[:110]";

/// The old server at this URL, and what the operator should know of it. Trusted
/// are the certificates in `ca_file`, or those that the system trusts.
pub fn old_server(
    given: &Given<String>,
    ca_file: Option<&Given<PathBuf>>,
) -> Result<(Config, Option<String>), ConfigError> {
    let (security, authority) = parse(&given.value).map_err(|problem| given.wrong(problem))?;
    let cleartext = security == Security::Cleartext;
    let tls = match ca_file {
        Some(ca_file) => trust::only(&ca_file.value).map_err(|problem| ca_file.wrong(problem)),
        None if cleartext => trust::nobody().map_err(|problem| given.wrong(problem)),
        None => trust::system("--from-ca-file").map_err(|problem| given.wrong(problem)),
    }?;
    let warning = (cleartext && !url::is_loopback(&authority.host)).then(|| {
        format!(
            "passwords cross the network unprotected to {}: for trusted networks only",
            authority.name
        )
    });
    let config = Config {
        name: authority.name,
        host: authority.host,
        port: authority.port,
        security,
        tls,
        timeouts: Timeouts::default(),
    };
    Ok((config, warning))
}

fn parse(text: &str) -> Result<(Security, url::Authority), String> {
    let url = url::read(text, SCHEMES)?;
    let (security, default_port) = match url.scheme() {
        "pop3s" => (Security::ImplicitTls, 995),
        "pop3+stls" => (Security::Stls, 110),
        "pop3+plain" => (Security::Cleartext, 110),
        "pop3" => {
            return Err(format!(
                "pop3:// does not say how it is protected: write {SCHEMES}"
            ));
        }
        _ => return Err(format!("the scheme is not known: expected {SCHEMES}")),
    };
    Ok((security, url::authority(&url, default_port, SCHEMES)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    #[test]
    fn the_three_schemes() {
        for (url, security, host, port) in [
            (
                "pop3s://Mail.Example.com",
                Security::ImplicitTls,
                "mail.example.com",
                995,
            ),
            (
                "pop3+stls://192.0.2.1:1110/",
                Security::Stls,
                "192.0.2.1",
                1110,
            ),
            ("pop3+plain://[::1]", Security::Cleartext, "::1", 110),
        ] {
            let (found, authority) = parse(url).unwrap();
            assert_eq!(
                (found, &*authority.host, authority.port),
                (security, host, port)
            );
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        for (url, says) in [
            ("", "is empty"),
            ("old.example.com", "is not a URL: expected pop3s://host"),
            ("pop3://old.example.com", "does not say how it is protected"),
            ("imaps://old.example.com", "the scheme is not known"),
            ("pop3s://old.example.com/INBOX", "no path"),
            ("pop3s://old.example.com?x", "no path, and no ? or #"),
            ("pop3s://", "has no host"),
            ("pop3s://host:0", "port 0"),
            ("pop3s://alice:s3cret@host", "must not hold credentials"),
        ] {
            let problem = parse(url).err().unwrap();
            assert!(problem.contains(says), "{url}: {problem}");
            assert!(!problem.contains("s3cret"));
        }
    }

    #[test]
    fn cleartext_is_warned_of_beyond_this_machine() {
        let given = |url: &str| Given {
            value: url.to_owned(),
            origin: Origin::Flag("--from"),
        };
        let warning = |url| old_server(&given(url), None).unwrap().1;
        assert_eq!(warning("pop3+plain://127.0.0.1:1110"), None);
        assert_eq!(warning("pop3+plain://localhost"), None);
        let told = warning("pop3+plain://192.0.2.1").unwrap();
        assert!(
            told.contains("unprotected to pop3+plain://192.0.2.1:110"),
            "{told}"
        );
        let error = old_server(&given("pop3://x"), None).unwrap_err();
        assert!(error.to_string().starts_with("--from: pop3://"));
    }
}
