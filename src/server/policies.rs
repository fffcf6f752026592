//! Which policies a login comes under: those of the gateway, of its domain, of
//! its account; and the folder and the window that its user name asks for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::maildrop::{FolderName, FolderNameError, Policy};
use crate::sasl::Credentials;

/// What applies to a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What its session obeys.
    pub policy: Arc<Policy>,
    /// The least time between two logins (RFC 2449 §6.5, LOGIN-DELAY).
    pub login_delay: Option<Duration>,
}

/// The rules of all logins.
#[derive(Clone, Debug)]
pub struct Policies {
    /// What stands between a user and a folder in a user name; `None`: a user
    /// name names no folder.
    pub separator: Option<String>,
    /// How far `recent:` looks back.
    pub recent: Duration,
    /// For whom nothing else is said.
    pub gateway: Rules,
    /// By domain, in lower case.
    pub domains: HashMap<String, Rules>,
    /// By user name, in lower case.
    pub accounts: HashMap<String, Rules>,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            separator: Some("+".to_owned()),
            recent: Duration::from_secs(30 * 24 * 3600),
            gateway: Rules::default(),
            domains: HashMap::new(),
            accounts: HashMap::new(),
        }
    }
}

/// A login with what its user name said taken apart.
#[derive(Debug)]
pub(super) struct Admission {
    /// As they go upstream: without folder and window.
    pub credentials: Credentials,
    pub rules: Rules,
}

/// What `recent:` begins with, as at Gmail.
const RECENT: &str = "recent:";

impl Policies {
    /// Rules that apply to nobody else than this user.
    pub fn of(&self, user: &str) -> &Rules {
        let user = user.to_lowercase();
        let domain = user.rsplit_once('@').map(|(_, domain)| domain);
        let of_domain = || domain.and_then(|domain| self.domains.get(domain));
        let own = self.accounts.get(&user);
        own.or_else(of_domain).unwrap_or(&self.gateway)
    }

    /// Each set of rules that somebody may come under.
    pub fn all(&self) -> impl Iterator<Item = &Rules> {
        let others = self.domains.values().chain(self.accounts.values());
        std::iter::once(&self.gateway).chain(others)
    }

    /// Takes a login's name apart: `[recent:]user[+folder]`, where the domain
    /// may stand before or behind the folder.
    pub(super) fn admit(&self, credentials: Credentials) -> Result<Admission, FolderNameError> {
        let name = credentials.mailbox();
        let (is_recent, name) = match name.get(..RECENT.len()) {
            Some(start) if start.eq_ignore_ascii_case(RECENT) && name.len() > RECENT.len() => {
                (true, &name[RECENT.len()..])
            }
            _ => (false, name),
        };
        let (user, folder) = self.split(name);
        let folder = folder.map(str::parse::<FolderName>).transpose()?;
        let mut rules = self.of(&user).clone();
        if folder.is_some() || is_recent {
            let policy = Arc::make_mut(&mut rules.policy);
            if let Some(folder) = folder {
                policy.folders = vec![folder];
            }
            if is_recent {
                policy.window.max_age = Some(self.recent);
                policy.window.max_messages = None;
            }
        }
        Ok(Admission {
            credentials: credentials.for_mailbox(user),
            rules,
        })
    }

    /// User and folder. A user name that is configured as a whole has none.
    fn split<'a>(&self, name: &'a str) -> (String, Option<&'a str>) {
        let whole = || (name.to_owned(), None);
        let Some(separator) = self.separator.as_deref() else {
            return whole();
        };
        if self.accounts.contains_key(&name.to_lowercase()) {
            return whole();
        }
        match name.split_once(separator) {
            None | Some(("", _)) => whole(),
            Some((user, folder)) => match folder.rsplit_once('@') {
                Some((folder, domain)) if !user.contains('@') => {
                    (format!("{user}@{domain}"), Some(folder))
                }
                _ => (user.to_owned(), Some(folder)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildrop::DeletePolicy;

    fn admit(policies: &Policies, name: &str) -> (String, String, Option<u64>) {
        let credentials = Credentials::password(name, "x").unwrap();
        let admission = policies.admit(credentials).unwrap();
        let policy = &admission.rules.policy;
        let folders: Vec<&str> = policy.folders.iter().map(FolderName::as_str).collect();
        let days = policy.window.max_age.map(|age| age.as_secs() / 86_400);
        let user = admission.credentials.user().to_owned();
        (user, folders.join(" "), days)
    }

    #[test]
    fn names_with_folders_and_windows() {
        let policies = Policies::default();
        for (name, user, folder, days) in [
            ("alice", "alice", "INBOX", None),
            ("alice+Junk", "alice", "Junk", None),
            ("alice@example.org", "alice@example.org", "INBOX", None),
            ("alice+Junk@example.org", "alice@example.org", "Junk", None),
            ("alice@example.org+Junk", "alice@example.org", "Junk", None),
            ("alice@example.org+a@b", "alice@example.org", "a@b", None),
            ("alice+Work/Möbel+2", "alice", "Work/Möbel+2", None),
            ("recent:alice", "alice", "INBOX", Some(30)),
            ("Recent:alice+Junk", "alice", "Junk", Some(30)),
            ("recent:", "recent:", "INBOX", None),
            ("+alice", "+alice", "INBOX", None),
        ] {
            let expected = (user.to_owned(), folder.to_owned(), days);
            assert_eq!(admit(&policies, name), expected, "{name}");
        }
    }

    #[test]
    fn another_separator_or_none() {
        let mut policies = Policies {
            separator: Some("--".to_owned()),
            ..Policies::default()
        };
        assert_eq!(admit(&policies, "a+b--Junk").1, "Junk");
        policies.separator = None;
        assert_eq!(admit(&policies, "a+b--Junk").0, "a+b--Junk");
    }

    #[test]
    fn folders_that_cannot_be() {
        let policies = Policies::default();
        for name in [
            "alice+",
            "alice+../x",
            "alice+*",
            "alice+%",
            "alice+@example.org",
        ] {
            let credentials = Credentials::password(name, "x").unwrap();
            assert!(policies.admit(credentials).is_err(), "{name}");
        }
    }

    #[test]
    fn the_nearest_rules_apply() {
        let rules = |delete: &DeletePolicy| Rules {
            policy: Arc::new(Policy {
                delete: delete.clone(),
                ..Policy::default()
            }),
            login_delay: None,
        };
        let own = DeletePolicy::Hide;
        let domain = DeletePolicy::Seen;
        let policies = Policies {
            domains: HashMap::from([("example.org".to_owned(), rules(&domain))]),
            accounts: HashMap::from([
                ("alice@example.org".to_owned(), rules(&own)),
                ("bob+pop".to_owned(), rules(&own)),
            ]),
            ..Policies::default()
        };
        let delete = |name: &str| {
            let credentials = Credentials::password(name, "x").unwrap();
            let rules = policies.admit(credentials).unwrap().rules;
            rules.policy.delete.clone()
        };
        assert_eq!(delete("Alice@Example.Org"), own);
        assert_eq!(delete("alice+Junk@example.org"), own);
        assert_eq!(delete("bob@example.org"), domain);
        assert_eq!(delete("carol"), DeletePolicy::TrashIfThere);
        // Configured as a whole: no folder of bob's.
        assert_eq!(admit(&policies, "bob+pop").0, "bob+pop");
    }

    #[test]
    fn the_authorization_identity_names_the_folder() {
        let credentials = Credentials::Password {
            user: "admin".to_owned(),
            authorize_as: Some("alice+Junk".to_owned()),
            password: "x".into(),
        };
        let admission = Policies::default().admit(credentials).unwrap();
        assert_eq!(admission.credentials.user(), "admin");
        assert_eq!(admission.credentials.authorized_as(), Some("alice"));
        assert_eq!(admission.rules.policy.folders[0].as_str(), "Junk");
    }
}
