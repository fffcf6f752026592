//! Which policies a login comes under: those of the gateway, of its domain, of
//! its account; and the folder and the window that its user name asks for.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::accounts::{self, Home};
use crate::maildrop::{DeletePolicy, FolderName, FolderNameError, Policy, SeenPolicy};
use crate::pop3::{Announced, Terms};
use crate::sasl::Credentials;

/// A day of EXPIRE (RFC 2449 §6.7), in seconds.
const DAY: u64 = 24 * 60 * 60;

/// What applies to a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What its session obeys.
    pub policy: Arc<Policy>,
    /// The least time between two logins (RFC 2449 §6.5, LOGIN-DELAY).
    pub login_delay: Option<Duration>,
    /// Who judges the password of somebody without an account of popgate's own.
    pub login: Login,
}

/// Who judges passwords, and where the mailboxes are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Login {
    /// Who judges passwords.
    pub by: Judge,
    /// Where the mailboxes are.
    pub home: Home,
}

/// Who judges passwords.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Judge {
    /// The upstream: they are passed on.
    #[default]
    Upstream,
    /// popgate: who has no account is refused.
    Accounts,
    /// An HTTP service (`[auth_http]`).
    Http,
}

impl Rules {
    /// After how many whole days a message may be gone for this client: moved
    /// away, or outside the window.
    fn expire(&self) -> Option<u64> {
        let ends = [self.policy.expire_after, self.policy.window.max_age];
        ends.into_iter()
            .flatten()
            .map(|age| age.as_secs() / DAY)
            .min()
    }

    /// What they mean to the session in front.
    fn terms(&self) -> Terms {
        let policy = &self.policy;
        Terms {
            deletion_refused: policy.delete == DeletePolicy::Refuse,
            updates_always: policy.seen == SeenPolicy::OnQuit || policy.expire_after.is_some(),
            login_delay: self.login_delay.map(|delay| delay.as_secs()),
            expire: self.expire(),
        }
    }
}

/// What the rules of an account in the store say is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Unreadable {
    /// As in the configuration.
    key: &'static str,
    /// What is wrong with it.
    problem: String,
}

impl Rules {
    /// Puts what an account's own rules say above these.
    fn put_above(&mut self, own: &accounts::Rules) -> Result<(), Unreadable> {
        fn unreadable(key: &'static str) -> impl Fn(String) -> Unreadable {
            move |problem| Unreadable { key, problem }
        }
        if *own == accounts::Rules::default() {
            return Ok(());
        }
        let policy = Arc::make_mut(&mut self.policy);
        if let Some(delete) = &own.delete {
            let delete = delete.parse::<DeletePolicy>();
            policy.delete = delete.map_err(|it| unreadable("delete")(it.to_string()))?;
        }
        if let Some(seen) = &own.seen {
            let seen = seen.parse::<SeenPolicy>();
            policy.seen = seen.map_err(|it| unreadable("seen")(it.to_string()))?;
        }
        if !own.folders.is_empty() {
            let mut folders: Vec<FolderName> = Vec::with_capacity(own.folders.len());
            for name in &own.folders {
                let folder = name.parse::<FolderName>();
                let folder = folder.map_err(|it| unreadable("folders")(it.to_string()))?;
                let is_same = |other: &FolderName| {
                    *other == folder || (other.is_inbox() && folder.is_inbox())
                };
                if folders.iter().any(is_same) {
                    return Err(unreadable("folders")(format!("{name:?} is named twice")));
                }
                folders.push(folder);
            }
            policy.folders = folders;
        }
        Ok(())
    }
}

/// What a user name asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whose mailbox.
    pub(super) user: String,
    /// A folder of it.
    folder: Option<FolderName>,
    /// What has come lately.
    is_recent: bool,
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
pub struct Admission {
    /// As they go upstream: without folder and window.
    pub credentials: Credentials,
    /// With the folder and the window that the user name asks for.
    pub rules: Rules,
    /// What they mean to the session in front.
    pub terms: Terms,
    /// Whose rules they are.
    pub source: Source,
}

/// Whose rules apply to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody's in particular.
    Gateway,
    /// Those of this domain.
    Domain(String),
    /// Those of this account.
    Account(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("gateway"),
            Self::Domain(name) => write!(f, "domain {name}"),
            Self::Account(name) => write!(f, "account {name}"),
        }
    }
}

/// What `recent:` begins with, as at Gmail.
const RECENT: &str = "recent:";

/// A user name without the window that it asks for, and whether it asks for one.
pub(super) fn without_recent(name: &str) -> (bool, &str) {
    match name.get(..RECENT.len()) {
        Some(start) if start.eq_ignore_ascii_case(RECENT) && name.len() > RECENT.len() => {
            (true, &name[RECENT.len()..])
        }
        _ => (false, name),
    }
}

impl Policies {
    /// The rules that apply to a user.
    pub fn of(&self, user: &str) -> &Rules {
        self.sourced(user).0
    }

    fn sourced(&self, user: &str) -> (&Rules, Source) {
        let user = user.to_lowercase();
        if let Some(rules) = self.accounts.get(&user) {
            return (rules, Source::Account(user));
        }
        let domain = user.rsplit_once('@').map(|(_, domain)| domain);
        match domain.and_then(|domain| self.domains.get_key_value(domain)) {
            Some((domain, rules)) => (rules, Source::Domain(domain.clone())),
            None => (&self.gateway, Source::Gateway),
        }
    }

    /// Each set of rules that somebody may come under.
    fn all(&self) -> impl Iterator<Item = &Rules> + Clone {
        let others = self.domains.values().chain(self.accounts.values());
        std::iter::once(&self.gateway).chain(others)
    }

    /// The LOGIN-DELAY in seconds before it is known who logs in: the longest
    /// (RFC 2449 §6.5).
    pub fn login_delay(&self) -> Option<Announced> {
        let delays = self.all().map(|rules| rules.login_delay);
        let value = delays.clone().max().flatten()?.as_secs();
        Some(Announced {
            value,
            differs: delays
                .map(|it| it.map(|it| it.as_secs()))
                .any(|it| it != Some(value)),
        })
    }

    /// The EXPIRE in days before it is known who logs in: the shortest
    /// (RFC 2449 §6.7). A window that a client asks for by `recent:` is its own
    /// affair.
    pub fn expire(&self) -> Option<Announced> {
        let ends = self.all().map(Rules::expire);
        let value = ends.clone().flatten().min()?;
        Some(Announced {
            value,
            differs: { ends }.any(|it| it != Some(value)),
        })
    }

    /// Takes a login's name apart: `[recent:]user[+folder]`, where the domain
    /// may stand before or behind the folder.
    pub fn admit(&self, credentials: Credentials) -> Result<Admission, FolderNameError> {
        let asked = self.asked(credentials.mailbox(), false)?;
        let (rules, terms, source) = self.of_anybody(&asked);
        Ok(Admission {
            credentials: credentials.for_mailbox(asked.user),
            rules,
            terms,
            source,
        })
    }

    /// The rules of a login of somebody without an account of popgate's own, what they
    /// mean to the session in front, and whose they are.
    pub fn of_anybody(&self, asked: &Asked) -> (Rules, Terms, Source) {
        let (rules, source) = self.sourced(&asked.user);
        let mut rules = rules.clone();
        let terms = rules.terms();
        self.grant(asked, &mut rules);
        (rules, terms, source)
    }

    /// What a login under this name to an account of popgate's own asks for.
    pub fn asked_of(
        &self,
        account: &accounts::Account,
        name: &str,
    ) -> Result<Asked, FolderNameError> {
        let (_, whole) = without_recent(name);
        self.asked(name, whole.to_lowercase() == account.address)
    }

    /// The same as [`Policies::of_anybody`] for an account of popgate's own; `Source` is
    /// whose the general ones are.
    pub fn of_account(
        &self,
        account: &accounts::Account,
        asked: &Asked,
    ) -> Result<(Rules, Terms, Source), Unreadable> {
        let (rules, source) = self.sourced(&account.address);
        let mut rules = rules.clone();
        rules.put_above(&account.rules)?;
        let terms = rules.terms();
        self.grant(asked, &mut rules);
        Ok((rules, terms, source))
    }

    /// Takes a login's name apart. `is_whole`: somebody is called so, whatever the
    /// name looks like (`recent:` apart, [`without_recent`]).
    pub(super) fn asked(&self, name: &str, is_whole: bool) -> Result<Asked, FolderNameError> {
        let (is_recent, name) = without_recent(name);
        let (user, folder) = match is_whole {
            true => (name.to_owned(), None),
            false => self.split(name),
        };
        Ok(Asked {
            user,
            folder: folder.map(str::parse::<FolderName>).transpose()?,
            is_recent,
        })
    }

    /// Whether a user name may ask for a folder.
    pub(super) fn may_name_folder(&self, name: &str) -> bool {
        let separator = self.separator.as_deref();
        separator.is_some_and(|separator| name.contains(separator))
    }

    /// Has the rules show what the user name asks for.
    fn grant(&self, asked: &Asked, rules: &mut Rules) {
        if asked.folder.is_none() && !asked.is_recent {
            return;
        }
        let policy = Arc::make_mut(&mut rules.policy);
        if let Some(folder) = &asked.folder {
            policy.folders = vec![folder.clone()];
        }
        if asked.is_recent {
            policy.window.max_age = Some(self.recent);
            policy.window.max_messages = None;
        }
    }

    /// Every way in which somebody without an account of popgate's own may log in.
    pub(super) fn logins(&self) -> HashSet<Login> {
        self.all().map(|rules| rules.login.clone()).collect()
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
    use crate::maildrop::Window;

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
            ..Rules::default()
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
        let source = |name: &str| {
            let credentials = Credentials::password(name, "x").unwrap();
            policies.admit(credentials).unwrap().source.to_string()
        };
        assert_eq!(
            source("Alice+Junk@Example.org"),
            "account alice@example.org"
        );
        assert_eq!(source("recent:bob@example.org"), "domain example.org");
        assert_eq!(source("bob"), "gateway");
    }

    #[test]
    fn what_is_announced_before_login() {
        let days = |days: u64| Some(Duration::from_secs(days * DAY));
        let rules = |delay: Option<u64>, max_age, expire_after| Rules {
            policy: Arc::new(Policy {
                window: Window {
                    max_age,
                    max_messages: None,
                },
                expire_after,
                ..Policy::default()
            }),
            login_delay: delay.map(Duration::from_secs),
            login: Login::default(),
        };
        let policies = |gateway: Rules, others: Vec<Rules>| Policies {
            gateway,
            accounts: others
                .into_iter()
                .enumerate()
                .map(|(number, rules)| (number.to_string(), rules))
                .collect(),
            ..Policies::default()
        };
        let announced = |policies: &Policies| {
            let told = |it: Option<Announced>| it.map(|it| (it.value, it.differs));
            (told(policies.login_delay()), told(policies.expire()))
        };
        assert_eq!(announced(&Policies::default()), (None, None));
        let own = rules(Some(300), days(90), days(30));
        let same = policies(own.clone(), vec![own.clone()]);
        assert_eq!(announced(&same), (Some((300, false)), Some((30, false))));
        let another = rules(Some(60), days(7), None);
        let differ = policies(own.clone(), vec![another.clone()]);
        assert_eq!(announced(&differ), (Some((300, true)), Some((7, true))));
        let some = policies(Rules::default(), vec![another]);
        assert_eq!(announced(&some), (Some((60, true)), Some((7, true))));
        // A day that is not whole does not count.
        let hours = rules(None, Some(Duration::from_secs(DAY * 3 / 2)), None);
        assert_eq!(
            announced(&policies(hours, vec![])),
            (None, Some((1, false)))
        );
    }

    #[test]
    fn terms_are_those_of_the_rules_and_not_of_recent() {
        let policies = Policies {
            gateway: Rules {
                policy: Arc::new(Policy {
                    seen: SeenPolicy::OnQuit,
                    delete: DeletePolicy::Refuse,
                    ..Policy::default()
                }),
                login_delay: Some(Duration::from_secs(60)),
                login: Login::default(),
            },
            ..Policies::default()
        };
        for name in ["alice", "recent:alice+Junk"] {
            let credentials = Credentials::password(name, "x").unwrap();
            let expected = Terms {
                deletion_refused: true,
                updates_always: true,
                login_delay: Some(60),
                expire: None,
            };
            assert_eq!(policies.admit(credentials).unwrap().terms, expected);
        }
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
