//! What is known of providers: endpoints, scopes and quirks.

use url::Url;

use super::{Endpoints, Grant};

/// A provider that needs no more than a registration.
#[derive(Debug)]
pub struct Preset {
    /// As it is written in the configuration.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Where the mailboxes are; empty: the configuration says it.
    pub upstream: &'static str,
    /// How tokens are got, unless the configuration says otherwise.
    pub grant: Grant,
    /// Where people sign in. Of all these URLs: `{tenant}` is to be replaced, and an
    /// empty one is not known.
    pub authorization: &'static str,
    /// Where tokens come from.
    pub token: &'static str,
    /// Where device codes come from.
    pub device: &'static str,
    /// Who signed in, where the token response does not say.
    pub userinfo: &'static str,
    /// What id tokens and callbacks name. Empty: it differs from tenant to tenant,
    /// or the configuration says it.
    pub issuer: &'static str,
    /// Instead of `{tenant}`, unless the configuration says otherwise.
    pub tenant: Option<&'static str>,
    /// What is asked for when somebody signs in. `openid` is among them where the
    /// provider then tells who it was.
    pub scopes: &'static [&'static str],
    /// What is asked for without a user.
    pub scopes_without_user: &'static [&'static str],
    /// More parameters of the authorisation request.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Other hosts of its JMAP server.
    pub trusted_hosts: &'static [&'static str],
}

/// A preset's URLs cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// None is given, and no one is good for all.
    #[error("an id or a domain is needed")]
    Missing,
    /// It would change more than a part of a path.
    #[error("this is neither an id nor a domain")]
    Wrong,
}

const NOTHING: Preset = Preset {
    name: "",
    title: "",
    upstream: "",
    grant: Grant::User,
    authorization: "",
    token: "",
    device: "",
    userinfo: "",
    issuer: "",
    tenant: None,
    scopes: &[],
    scopes_without_user: &[],
    parameters: &[],
    trusted_hosts: &[],
};

// For Google's mail scope there are no device codes. Without consent there is a
// refresh token at the first time only.
const GOOGLE: Preset = Preset {
    name: "gmail",
    title: "Gmail",
    upstream: "imaps://imap.gmail.com:993",
    authorization: "https://accounts.google.com/o/oauth2/v2/auth",
    token: "https://oauth2.googleapis.com/token",
    userinfo: "https://openidconnect.googleapis.com/v1/userinfo",
    issuer: "https://accounts.google.com",
    scopes: &["https://mail.google.com/", "openid", "email"],
    scopes_without_user: &["https://mail.google.com/"],
    parameters: &[("access_type", "offline"), ("prompt", "consent")],
    ..NOTHING
};

// An id token names the tenant; userinfo wants a token of its own. `profile` brings
// the name to sign in with.
const MICROSOFT: Preset = Preset {
    name: "microsoft365",
    title: "Microsoft 365",
    upstream: "imaps://outlook.office365.com:993",
    authorization: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
    token: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
    device: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode",
    tenant: Some("organizations"),
    scopes: &[
        "https://outlook.office.com/IMAP.AccessAsUser.All",
        "offline_access",
        "openid",
        "profile",
        "email",
    ],
    scopes_without_user: &["https://outlook.office365.com/.default"],
    parameters: &[("prompt", "select_account")],
    ..NOTHING
};

const FASTMAIL: Preset = Preset {
    name: "fastmail",
    title: "Fastmail",
    upstream: "https://api.fastmail.com/jmap/session",
    authorization: "https://api.fastmail.com/oauth/authorize",
    token: "https://api.fastmail.com/oauth/refresh",
    scopes: &["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail"],
    // Where messages are downloaded from.
    trusted_hosts: &["www.fastmailusercontent.com"],
    ..NOTHING
};

/// Every preset.
pub const PRESETS: &[Preset] = &[
    GOOGLE,
    Preset {
        name: "google-workspace",
        title: "Google Workspace",
        grant: Grant::ServiceAccount,
        ..GOOGLE
    },
    MICROSOFT,
    // Nothing is good for all tenants here: the configuration names one.
    Preset {
        name: "microsoft365-app",
        grant: Grant::ClientCredentials,
        tenant: None,
        ..MICROSOFT
    },
    Preset {
        name: "outlook.com",
        title: "Outlook.com",
        tenant: Some("consumers"),
        ..MICROSOFT
    },
    Preset {
        name: "21vianet",
        title: "Microsoft 365 (21Vianet)",
        upstream: "imaps://partner.outlook.cn:993",
        authorization: "https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/authorize",
        token: "https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/token",
        device: "https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/devicecode",
        scopes: &[
            "https://partner.outlook.cn/IMAP.AccessAsUser.All",
            "offline_access",
            "openid",
            "profile",
            "email",
        ],
        scopes_without_user: &["https://partner.outlook.cn/.default"],
        ..MICROSOFT
    },
    Preset {
        name: "yahoo",
        title: "Yahoo",
        upstream: "imaps://imap.mail.yahoo.com:993",
        authorization: "https://api.login.yahoo.com/oauth2/request_auth",
        token: "https://api.login.yahoo.com/oauth2/get_token",
        scopes: &["mail-w"],
        ..NOTHING
    },
    Preset {
        name: "aol",
        title: "AOL",
        upstream: "imaps://imap.aol.com:993",
        authorization: "https://api.login.aol.com/oauth2/request_auth",
        token: "https://api.login.aol.com/oauth2/get_token",
        scopes: &["mail-w"],
        ..NOTHING
    },
    FASTMAIL,
    Preset {
        name: "fastmail-imap",
        upstream: "imaps://imap.fastmail.com:993",
        scopes: &["https://www.fastmail.com/dev/protocol-imap"],
        ..FASTMAIL
    },
    Preset {
        name: "openid",
        title: "OpenID Connect",
        scopes: &["openid", "email", "offline_access"],
        ..NOTHING
    },
];

/// The preset with this name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

impl Preset {
    /// Its endpoints, for a tenant.
    pub fn endpoints(&self, tenant: Option<&str>) -> Result<Endpoints, TenantError> {
        let url = |template: &str| self.url(template, tenant);
        Ok(Endpoints {
            authorization: url(self.authorization)?,
            token: url(self.token)?,
            device: url(self.device)?,
            userinfo: url(self.userinfo)?,
            issuer: url(self.issuer)?,
        })
    }

    fn url(&self, template: &str, tenant: Option<&str>) -> Result<Option<Url>, TenantError> {
        if template.is_empty() {
            return Ok(None);
        }
        let mut text = template.to_owned();
        if template.contains("{tenant}") {
            let tenant = tenant.or(self.tenant).ok_or(TenantError::Missing)?;
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
            if tenant.is_empty() || tenant.starts_with('.') || !tenant.chars().all(is_part) {
                return Err(TenantError::Wrong);
            }
            text = text.replace("{tenant}", tenant);
        }
        let url = Url::parse(&text).map_err(|_| TenantError::Wrong)?;
        Ok(Some(url))
    }

    /// Whether its endpoints differ from tenant to tenant.
    pub fn has_tenants(&self) -> bool {
        self.token.contains("{tenant}")
    }

    /// What is asked for by this grant.
    pub fn scopes_for(&self, grant: &Grant) -> Vec<String> {
        let scopes = match grant {
            Grant::User => self.scopes,
            Grant::ClientCredentials | Grant::ServiceAccount => self.scopes_without_user,
        };
        scopes.iter().map(|it| (*it).to_owned()).collect()
    }

    /// Whether the provider tells who signed in.
    pub fn tells_who(&self) -> bool {
        self.scopes.contains(&"openid")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use url::Url;

    use super::*;

    #[test]
    fn every_url_is_one_and_has_tls() {
        for preset in PRESETS {
            let endpoints = preset.endpoints(Some("example.org")).unwrap();
            for url in endpoints.all() {
                assert_eq!(url.scheme(), "https", "{url}");
                assert!(!url.as_str().contains(['{', '}', '%']), "{url}");
            }
            if !preset.upstream.is_empty() {
                let url = Url::parse(preset.upstream).unwrap();
                assert!(matches!(url.scheme(), "https" | "imaps"), "{url}");
                assert!(url.host_str().is_some());
            }
        }
    }

    #[test]
    fn each_has_what_its_grant_needs() {
        let mut names = BTreeSet::new();
        for preset in PRESETS {
            let name = preset.name;
            assert!(names.insert(name), "{name} twice");
            assert!(!name.is_empty() && !preset.title.is_empty());
            assert!(!preset.scopes.is_empty(), "{name}");
            if name == "openid" {
                continue;
            }
            assert!(!preset.upstream.is_empty(), "{name}");
            assert!(!preset.scopes_for(&preset.grant).is_empty(), "{name}");
            let endpoints = preset.endpoints(Some("example.org")).unwrap();
            assert!(!endpoints.are_incomplete(&Grant::User), "{name}");
        }
    }

    #[test]
    fn tenants() {
        let token = |name, tenant| {
            let endpoints = preset(name).unwrap().endpoints(tenant);
            endpoints.map(|it| it.token.unwrap().path().to_owned())
        };
        let path = |tenant| Ok(format!("/{tenant}/oauth2/v2.0/token"));
        assert_eq!(token("microsoft365", None), path("organizations"));
        assert_eq!(token("outlook.com", None), path("consumers"));
        assert_eq!(
            token("microsoft365", Some("example.org")),
            path("example.org")
        );
        assert_eq!(token("microsoft365-app", None), Err(TenantError::Missing));
        assert_eq!(token("microsoft365-app", Some("a-1")), path("a-1"));
        for tenant in [
            "", ".", "..", "a/b", "a?b", "a#b", "a%2fb", "a b", "{tenant}",
        ] {
            let token = token("microsoft365", Some(tenant));
            assert_eq!(token, Err(TenantError::Wrong), "{tenant}");
        }
        assert_eq!(token("gmail", Some("/")), Ok("/token".to_owned()));
    }

    #[test]
    fn by_name() {
        assert_eq!(preset("gmail").unwrap().title, "Gmail");
        assert!(preset("Gmail").is_none());
        assert!(preset("").is_none());
        assert!(preset("microsoft365").unwrap().tells_who());
        assert!(!preset("fastmail").unwrap().tells_who());
        let app = preset("21vianet")
            .unwrap()
            .scopes_for(&Grant::ClientCredentials);
        assert_eq!(app, ["https://partner.outlook.cn/.default"]);
    }
}
