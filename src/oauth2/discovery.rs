//! OpenID Connect discovery, and that of RFC 8414: where a provider's endpoints are.

use reqwest::StatusCode;
use serde::Deserialize;
use url::Url;

use super::answer::plain;
use super::http::{Answer, Http, check, temporary};
use super::identity::same_issuer;
use super::{Endpoints, TokenError};

/// What is known of a provider.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub endpoints: Endpoints,
    /// The client's secret goes into the head (RFC 6749 §2.3.1), where the server says
    /// that it takes none in the form.
    pub basic: bool,
    /// Each callback names the issuer (RFC 9207 §3).
    pub callback_names_issuer: bool,
}

impl Known {
    /// As configured.
    pub fn configured(endpoints: &Endpoints) -> Self {
        Self {
            endpoints: endpoints.clone(),
            basic: false,
            callback_names_issuer: false,
        }
    }
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: Option<Url>,
    token_endpoint: Option<Url>,
    device_authorization_endpoint: Option<Url>,
    userinfo_endpoint: Option<Url>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// Asks the issuer. What is configured is not replaced.
pub(super) async fn discover(
    http: &Http,
    issuer: &Url,
    endpoints: &Endpoints,
) -> Result<Known, TokenError> {
    let mut answer = http.get(&openid(issuer), None).await?;
    if answer.status == StatusCode::NOT_FOUND {
        answer = http.get(&oauth(issuer), None).await?;
    }
    let document = read(&answer)?;
    known(document, issuer, endpoints)
}

fn read(answer: &Answer) -> Result<Document, TokenError> {
    let status = answer.status;
    if status == StatusCode::NOT_FOUND {
        let reason = "the issuer has no discovery document";
        return Err(TokenError::Misconfigured(reason.to_owned()));
    }
    if status != StatusCode::OK {
        return Err(TokenError::Temporary {
            reason: format!("discovery: HTTP status {}", status.as_u16()),
            retry_after: answer.retry_after,
        });
    }
    serde_json::from_slice(&answer.body)
        .map_err(|_| temporary("the discovery document cannot be read"))
}

fn known(document: Document, issuer: &Url, given: &Endpoints) -> Result<Known, TokenError> {
    // Else another provider's endpoints could be passed off as this one's
    // (OpenID Connect Discovery §4.3, RFC 8414 §3.3).
    if !same_issuer(&document.issuer, issuer.as_str()) {
        let reason = format!(
            "the discovery document is of the issuer {}",
            plain(&document.issuer, &[])
        );
        return Err(TokenError::Misconfigured(reason));
    }
    let endpoints = Endpoints {
        authorization: given
            .authorization
            .clone()
            .or(document.authorization_endpoint),
        token: given.token.clone().or(document.token_endpoint),
        device: given
            .device
            .clone()
            .or(document.device_authorization_endpoint),
        userinfo: given.userinfo.clone().or(document.userinfo_endpoint),
        issuer: Some(issuer.clone()),
    };
    for url in endpoints.all() {
        check(url)?;
        if issuer.scheme() == "https" && url.scheme() != "https" {
            let reason = "an endpoint without TLS, of an issuer with TLS";
            return Err(TokenError::Misconfigured(reason.to_owned()));
        }
    }
    // Where the list is not there, it is the head alone (Discovery §3).
    let basic = document
        .token_endpoint_auth_methods_supported
        .is_none_or(|methods| !methods.iter().any(|it| it == "client_secret_post"));
    Ok(Known {
        endpoints,
        basic,
        callback_names_issuer: document.authorization_response_iss_parameter_supported,
    })
}

/// OpenID Connect Discovery §4: behind the path.
fn openid(issuer: &Url) -> Url {
    let mut url = issuer.clone();
    let path = format!(
        "{}/.well-known/openid-configuration",
        issuer.path().trim_end_matches('/')
    );
    url.set_path(&path);
    url
}

/// RFC 8414 §3.1: in front of it.
fn oauth(issuer: &Url) -> Url {
    let mut url = issuer.clone();
    let path = format!(
        "/.well-known/oauth-authorization-server{}",
        issuer.path().trim_end_matches('/')
    );
    url.set_path(&path);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_document_is() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (issuer, by_openid, by_oauth) in [
            (
                "https://id.example.org",
                "https://id.example.org/.well-known/openid-configuration",
                "https://id.example.org/.well-known/oauth-authorization-server",
            ),
            (
                "https://id.example.org/realms/mail/",
                "https://id.example.org/realms/mail/.well-known/openid-configuration",
                "https://id.example.org/.well-known/oauth-authorization-server/realms/mail",
            ),
        ] {
            assert_eq!(openid(&url(issuer)), url(by_openid));
            assert_eq!(oauth(&url(issuer)), url(by_oauth));
        }
    }

    fn read_from(document: &str) -> Result<Known, TokenError> {
        let issuer = Url::parse("https://id.example.org").unwrap();
        let none = Endpoints::default();
        known(serde_json::from_str(document).unwrap(), &issuer, &none)
    }

    #[test]
    fn a_document_is_of_its_issuer_and_names_safe_endpoints() {
        let good = read_from(
            r#"{"issuer": "https://id.example.org", "token_endpoint": "https://t.example.org/",
                "token_endpoint_auth_methods_supported": ["client_secret_post"]}"#,
        )
        .unwrap();
        assert!(!good.basic && good.endpoints.token.is_some());
        assert!(
            read_from(r#"{"issuer": "https://id.example.org/"}"#)
                .unwrap()
                .basic
        );
        for bad in [
            r#"{"issuer": "https://id.example.com"}"#,
            r#"{"issuer": ""}"#,
            r#"{"issuer": "https://id.example.org", "token_endpoint": "http://t.example.org/"}"#,
            r#"{"issuer": "https://id.example.org", "token_endpoint": "http://127.0.0.1/"}"#,
            r#"{"issuer": "https://id.example.org", "userinfo_endpoint": "file:///etc/passwd"}"#,
        ] {
            let error = read_from(bad).unwrap_err();
            assert!(matches!(error, TokenError::Misconfigured(_)), "{bad}");
        }
    }
}
