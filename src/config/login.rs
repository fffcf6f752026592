//! Who judges passwords, and where mailboxes are: of the gateway, of a domain.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::policies::Protocol;
use super::settings::GivenRules;
use super::{ConfigError, Given, Origin, Settings, servers};
use crate::accounts::{Entry, Home, Provider};
use crate::server::policies::{Judge, Login};

/// Everywhere mailboxes may be.
#[derive(Debug)]
pub(super) struct Homes {
    /// The gateway's own upstream: its URL as written, and what it speaks.
    pub gateway: Option<(String, Protocol)>,
    /// By name.
    pub providers: BTreeMap<String, (Arc<Provider>, Protocol)>,
    /// There is an HTTP service to ask.
    pub auth_http: bool,
    /// There is a state folder to keep accounts in.
    pub has_state: bool,
    /// Nothing but accounts can be meant.
    pub accounts_alone: bool,
}

/// Who judges, and whether that was said or follows from where the mailboxes are.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub login: Login,
    said: bool,
}

/// Nowhere at all is anything configured.
pub(super) const NOTHING: &str = "no upstream is configured: set upstream (--upstream, POPGATE_UPSTREAM) to the URL of the mail server, like imaps://mail.example.com or https://mail.example.com/jmap/session; or configure where accounts have their mail, by a [provider.NAME]";

impl Homes {
    /// What applies to somebody of whom nothing else is said.
    pub fn of_gateway(&self, settings: &Settings) -> Result<Decision, ConfigError> {
        let home = match (&settings.default_provider, &self.gateway) {
            (Some(provider), Some(_)) => {
                return Err(provider.wrong(
                    "upstream is set, too: mailboxes are at one place; leave one of the two out, or name the provider in a [domain]",
                ));
            }
            (Some(provider), None) => self.provider(provider)?,
            (None, _) => Home::Gateway,
        };
        if home == Home::Gateway && self.gateway.is_none() && !self.accounts_alone {
            return Err(ConfigError::missing("upstream", NOTHING));
        }
        self.decide(&settings.rules, home, None)
    }

    /// What applies to a domain, below what applies to everybody.
    pub fn of_domain(
        &self,
        written: &GivenRules,
        above: &Decision,
        warnings: &mut Vec<String>,
    ) -> Result<Decision, ConfigError> {
        let home = match (&written.provider, &written.upstream) {
            (Some(provider), Some(_)) => {
                return Err(provider.wrong(
                    "upstream is set, too: mailboxes are at one place; leave one of the two out",
                ));
            }
            (Some(provider), None) => self.provider(provider)?,
            (None, Some(url)) => {
                servers::checked(url, warnings)?;
                match &self.gateway {
                    Some((own, _)) if *own == url.value => Home::Gateway,
                    _ => Home::Upstream(url.value.clone()),
                }
            }
            (None, None) => above.login.home.clone(),
        };
        self.decide(written, home, Some(above))
    }

    /// What an upstream there speaks, as far as is known.
    pub fn protocol(&self, home: &Home) -> Option<Protocol> {
        match home {
            Home::Gateway => self.gateway.as_ref().map(|(_, protocol)| *protocol),
            Home::Provider(name) => self.providers.get(name).map(|(_, protocol)| *protocol),
            Home::Upstream(url) => servers::protocol(url).ok(),
        }
    }

    fn provider(&self, given: &Given<String>) -> Result<Home, ConfigError> {
        if self.providers.contains_key(&given.value) {
            return Ok(Home::Provider(given.value.clone()));
        }
        let known: Vec<&str> = self.providers.keys().map(String::as_str).collect();
        Err(given.wrong(match known[..] {
            [] => format!(
                "no provider is configured: a table [provider.{}] says how to reach it",
                super::settings::quoted(&given.value)
            ),
            _ => format!(
                "there is no such provider; configured are: {}",
                known.join(", ")
            ),
        }))
    }

    fn decide(
        &self,
        written: &GivenRules,
        home: Home,
        above: Option<&Decision>,
    ) -> Result<Decision, ConfigError> {
        let (by, said) = match (&written.login, above) {
            (Some(given), _) => (judge(given)?, true),
            (None, Some(above)) if above.said || above.login.home == home => {
                (above.login.by, above.said)
            }
            (None, _) => (self.usual(&home), false),
        };
        let origin = || {
            let nearest = [&written.login, &written.provider, &written.upstream];
            let nearest = nearest.into_iter().flatten().next();
            nearest.map_or(Origin::Missing("login"), |it| it.origin.clone())
        };
        match self.problem(by, &home) {
            Some(problem) => Err(ConfigError::at(origin(), problem)),
            None => Ok(Decision {
                login: Login { by, home },
                said,
            }),
        }
    }

    /// Who judges where nothing is said. A provider that takes no passwords cannot.
    fn usual(&self, home: &Home) -> Judge {
        match home {
            Home::Gateway if self.gateway.is_none() => Judge::Accounts,
            Home::Gateway | Home::Upstream(_) => Judge::Upstream,
            Home::Provider(name) => match self.providers.get(name) {
                Some((provider, _)) if matches!(provider.entry, Entry::Password) => Judge::Upstream,
                _ => Judge::Accounts,
            },
        }
    }

    fn problem(&self, by: Judge, home: &Home) -> Option<String> {
        let nowhere = *home == Home::Gateway && self.gateway.is_none();
        let provider = match home {
            Home::Provider(name) => self.providers.get(name),
            Home::Gateway | Home::Upstream(_) => None,
        };
        match by {
            Judge::Accounts if !self.has_state => Some(
                "accounts are kept in the state folder: set state (--state, POPGATE_STATE)"
                    .to_owned(),
            ),
            Judge::Http if !self.auth_http => Some(
                "login = \"http\" asks a service of yours: set auth_http.url".to_owned(),
            ),
            Judge::Upstream | Judge::Http if nowhere => Some(
                "there is no mailbox to open: set upstream (--upstream, POPGATE_UPSTREAM) or default_provider; login = \"accounts\" lets in who has an account"
                    .to_owned(),
            ),
            Judge::Http => provider.filter(|(it, _)| !it.entry.needs_nobody()).map(|(it, _)| {
                format!(
                    "login = \"http\" cannot open mailboxes at the provider {}, which lets each account in by something of its own; grant = \"client-credentials\", \"service-account\" or \"master\" would do",
                    it.name
                )
            }),
            Judge::Upstream | Judge::Accounts => None,
        }
    }
}

fn judge(given: &Given<String>) -> Result<Judge, ConfigError> {
    match given.value.as_str() {
        "upstream" => Ok(Judge::Upstream),
        "accounts" => Ok(Judge::Accounts),
        "http" => Ok(Judge::Http),
        _ => Err(given.wrong("expected \"upstream\", \"accounts\" or \"http\"")),
    }
}
