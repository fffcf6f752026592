//! Where credentials may go. A session resource names the URLs of everything
//! else, and a hostile one would name somebody else's.

use url::{Origin, Url};

/// The origins that may see credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    allowed: Vec<Origin>,
}

/// Hosts that belong to a provider's own service, beside the one that its
/// session resource is on.
const SIBLINGS: [(&str, &str); 1] = [("api.fastmail.com", "www.fastmailusercontent.com")];

impl Origins {
    /// The origin of the session resource, and `https` on each trusted host
    /// (`host` or `host:port`).
    ///
    /// # Errors
    /// The trusted host that is none.
    pub fn new(resource: &Url, trusted_hosts: &[String]) -> Result<Self, String> {
        let mut allowed = vec![resource.origin()];
        let own = resource.host_str().unwrap_or_default();
        let siblings = SIBLINGS.iter().filter(|(host, _)| *host == own);
        let hosts = trusted_hosts.iter().map(String::as_str);
        for host in hosts.chain(siblings.map(|(_, sibling)| *sibling)) {
            let refused = || format!("{host:?} is not a host, or host:port");
            let url = Url::parse(&format!("https://{host}/")).map_err(|_| refused())?;
            let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            if !bare || !url.username().is_empty() || url.password().is_some() {
                return Err(refused());
            }
            allowed.push(url.origin());
        }
        Ok(Self { allowed })
    }

    /// Whether a request with credentials may go to `url`. Cleartext http is
    /// only ever allowed within the configured origin, which is then on
    /// loopback.
    pub fn allow(&self, url: &Url) -> bool {
        let scheme_is_known = matches!(url.scheme(), "https" | "http");
        scheme_is_known
            && url.username().is_empty()
            && url.password().is_none()
            && self.allowed.contains(&url.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn credentials_stay_within_the_allowed_origins() {
        let trusted = [
            "files.example.net".to_owned(),
            "other.example:8443".to_owned(),
        ];
        let origins = Origins::new(&url("https://mail.example.com/jmap"), &trusted).unwrap();
        for allowed in [
            "https://mail.example.com/api",
            "https://MAIL.example.com:443/api",
            "https://files.example.net/x",
            "https://other.example:8443/x",
        ] {
            assert!(origins.allow(&url(allowed)), "{allowed}");
        }
        for refused in [
            "http://mail.example.com/api",
            "https://mail.example.com:8443/api",
            "https://mail.example.com.evil.example/api",
            "https://user@mail.example.com/api",
            "https://evil.example/api",
            "https://other.example/x",
            "ftp://mail.example.com/api",
        ] {
            assert!(!origins.allow(&url(refused)), "{refused}");
        }
    }

    #[test]
    fn cleartext_stays_within_the_one_origin() {
        let origins = Origins::new(&url("http://127.0.0.1:8080/jmap"), &[]).unwrap();
        assert!(origins.allow(&url("http://127.0.0.1:8080/api")));
        assert!(!origins.allow(&url("http://127.0.0.1:8081/api")));
        assert!(!origins.allow(&url("http://localhost:8080/api")));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let resource = url("https://mail.example.com/jmap");
        for bad in ["https://x", "a/b", "u@h", "", "a b", "h?q"] {
            assert!(Origins::new(&resource, &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
