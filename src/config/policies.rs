//! The second stage of policies: what each login comes under. An account's
//! rules stand above those of its domain, and these above the gateway's, key
//! by key.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::login::{Decision, Homes};
use super::settings::{GivenRules, NamedRules};
use super::{ConfigError, Given, Settings};
use crate::maildrop::{FolderName, Ingredient, Policy, UniqueIdFormat, UniqueIdFormatError};
use crate::server::policies::{Policies, Rules};

/// The protocol of the mailboxes' server: not every unique id can be made of
/// what it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Imap,
    Jmap,
}

/// A day of EXPIRE (RFC 2449 §6.7).
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Octets of `folder_separator`.
const LONGEST_SEPARATOR: usize = 16;

/// The rules of all logins.
pub(super) fn policies(
    settings: &Settings,
    homes: &Homes,
    warnings: &mut Vec<String>,
) -> Result<Policies, ConfigError> {
    let of_gateway = homes.of_gateway(settings)?;
    let mut inheritance = Inheritance {
        homes,
        has_state: settings.state.is_some(),
        warnings,
    };
    let gateway = inheritance.gateway(&settings.rules, &of_gateway)?;
    let mut domains = HashMap::new();
    for written in &settings.domains {
        let name = domain(written)?;
        let rules = inheritance.domain(&written.rules, &gateway, &of_gateway)?;
        insert(&mut domains, &written.name, name, rules)?;
    }
    let mut accounts = HashMap::new();
    for written in &settings.accounts {
        let name = account(written)?;
        let of_domain = name.rsplit_once('@').and_then(|(_, it)| domains.get(it));
        let above = of_domain.unwrap_or(&gateway);
        let rules = inheritance.rules(&written.rules, above)?;
        insert(&mut accounts, &written.name, name, rules)?;
    }
    let default = Policies::default();
    Ok(Policies {
        separator: separator(settings)?.unwrap_or(default.separator),
        recent: match &settings.recent {
            Some(recent) if recent.value.0.is_zero() => {
                return Err(recent.wrong("must be at least 1s"));
            }
            Some(recent) => recent.value.0,
            None => default.recent,
        },
        gateway,
        domains,
        accounts,
    })
}

/// The name of a domain or an account, in lower case.
fn name(given: &Given<String>) -> Result<String, ConfigError> {
    let name = given.value.to_lowercase();
    if name.trim().is_empty() {
        return Err(given.wrong("is empty: expected a name"));
    }
    if name.trim() != name || name.chars().any(char::is_control) {
        return Err(given.wrong("no user name has spaces around it or control characters"));
    }
    Ok(name)
}

fn account(written: &NamedRules) -> Result<String, ConfigError> {
    let NamedRules { name: given, rules } = written;
    let name = name(given)?;
    if let Some(home) = [&rules.upstream, &rules.provider, &rules.login]
        .into_iter()
        .flatten()
        .next()
    {
        return Err(home.wrong(
            "is for domains: an account that has its mail elsewhere is made by `popgate account add`",
        ));
    }
    if name.starts_with("recent:") {
        return Err(given
            .wrong("asks for recent mail, which is not part of a user's name: leave out recent:"));
    }
    Ok(name)
}

fn domain(written: &NamedRules) -> Result<String, ConfigError> {
    let given = &written.name;
    let name = name(given)?;
    if name.contains('@') {
        return Err(given.wrong("is an account, not a domain: [account.\"user@example.com\"]"));
    }
    if let Some(shared) = &written.rules.shared {
        return Err(shared.wrong(
            "is for accounts: a whole domain in one mailbox would read and delete each other's mail",
        ));
    }
    Ok(name)
}

fn insert(
    all: &mut HashMap<String, Rules>,
    given: &Given<String>,
    name: String,
    rules: Rules,
) -> Result<(), ConfigError> {
    match all.insert(name, rules) {
        None => Ok(()),
        Some(_) => {
            Err(given.wrong("is configured twice: names are the same in any case of letters"))
        }
    }
}

/// `Some(None)`: user names name no folders.
fn separator(settings: &Settings) -> Result<Option<Option<String>>, ConfigError> {
    let Some(given) = &settings.folder_separator else {
        return Ok(None);
    };
    let separator = given.value.as_str();
    if separator.is_empty() {
        return Ok(Some(None));
    }
    let fits = |octet: u8| octet.is_ascii_punctuation() && octet != b'@';
    if separator.len() > LONGEST_SEPARATOR || !separator.bytes().all(fits) {
        return Err(given.wrong(
            "expected up to 16 signs of punctuation like \"+\" or \"--\", but not @; \"\" switches it off",
        ));
    }
    Ok(Some(Some(separator.to_owned())))
}

/// Puts tables above others.
struct Inheritance<'a> {
    homes: &'a Homes,
    has_state: bool,
    warnings: &'a mut Vec<String>,
}

impl Inheritance<'_> {
    fn gateway(&mut self, written: &GivenRules, login: &Decision) -> Result<Rules, ConfigError> {
        let above = Rules {
            login: login.login.clone(),
            ..Rules::default()
        };
        self.rules(written, &above)
    }

    fn domain(
        &mut self,
        written: &GivenRules,
        gateway: &Rules,
        login: &Decision,
    ) -> Result<Rules, ConfigError> {
        let decided = self.homes.of_domain(written, login, self.warnings)?;
        let above = Rules {
            login: decided.login,
            ..gateway.clone()
        };
        let rules = self.rules(written, &above)?;
        let home = [&written.provider, &written.upstream];
        let Some(home) = home.into_iter().flatten().next() else {
            return Ok(rules);
        };
        // What fits the gateway's upstream need not fit this one.
        if let (Some(format), None) = (&rules.policy.unique_ids, &written.unique_ids)
            && let Some(problem) = self.unfit(format, &rules)
        {
            return Err(home.wrong(format!(
                "is there with unique_ids as above, and those it cannot have; set unique_ids in this [domain], too: it {problem}"
            )));
        }
        Ok(rules)
    }

    /// What a table says, and for the rest what the one above it says.
    fn rules(&mut self, written: &GivenRules, above: &Rules) -> Result<Rules, ConfigError> {
        let mut rules = above.clone();
        let policy = Arc::make_mut(&mut rules.policy);
        if let Some(delete) = &written.delete {
            policy.delete = parsed(delete, "no policy for deleting")?;
        }
        if let Some(seen) = &written.seen {
            policy.seen = parsed(seen, "no policy for marking as read")?;
        }
        if let Some(folders) = &written.folders {
            policy.folders = self::folders(folders)?;
        }
        if let Some(shared) = &written.shared {
            name(shared)?;
            policy.shared = Some(shared.value.clone());
        }
        if let Some(unique_ids) = &written.unique_ids {
            policy.unique_ids = Some(parse_format(unique_ids)?);
        }
        self.window(written, policy)?;
        if let Some(delay) = &written.login_delay {
            rules.login_delay = Some(delay.value.0).filter(|it| !it.is_zero());
        }
        if let (Some(given), Some(format)) = (&written.unique_ids, &rules.policy.unique_ids)
            && let Some(problem) = self.unfit(format, &rules)
        {
            return Err(given.wrong(problem));
        }
        Ok(rules)
    }

    /// Nothing at all is how a table lifts what the one above it says.
    fn window(&mut self, written: &GivenRules, policy: &mut Policy) -> Result<(), ConfigError> {
        let lifted = |age: Duration| (!age.is_zero()).then_some(age);
        if let Some(age) = &written.max_age {
            policy.window.max_age = lifted(age.value.0);
        }
        if let Some(count) = &written.max_messages {
            let most = usize::try_from(count.value.0).unwrap_or(usize::MAX);
            policy.window.max_messages = (most > 0).then_some(most);
        }
        if let Some(age) = &written.expire_after {
            policy.expire_after = lifted(age.value.0);
            if policy.expire_after.is_some() && !self.has_state {
                return Err(age.wrong(
                    "popgate must remember when messages were retrieved: set state (--state, POPGATE_STATE)",
                ));
            }
        }
        for age in [&written.max_age, &written.expire_after]
            .into_iter()
            .flatten()
        {
            if !age.value.0.is_zero() && age.value.0 < DAY {
                self.warnings.push(format!(
                    "{}: less than a day is announced as EXPIRE 0, which tells clients that no mail may be left on the server",
                    age.origin
                ));
            }
        }
        Ok(())
    }

    /// Why mailboxes that are there cannot have such unique ids.
    fn unfit(&self, format: &UniqueIdFormat, rules: &Rules) -> Option<&'static str> {
        let protocol = self.homes.protocol(&rules.login.home)?;
        format
            .ingredients()
            .find_map(|ingredient| missing(protocol, ingredient))
    }
}

fn parse_format(given: &Given<String>) -> Result<UniqueIdFormat, ConfigError> {
    given
        .value
        .parse()
        .map_err(|error: UniqueIdFormatError| given.wrong(error.to_string()))
}

/// Why a server of this kind never tells what a unique id is to be made of.
fn missing(protocol: Protocol, ingredient: Ingredient) -> Option<&'static str> {
    match (protocol, ingredient) {
        (Protocol::Imap, Ingredient::BlobId) => Some(
            "needs blobIds, which only JMAP has: over IMAP, unique ids are made of UIDs, GUIDs or EMAILID",
        ),
        (Protocol::Jmap, Ingredient::Uid | Ingredient::UidValidity) => Some(
            "needs UIDs, which JMAP does not have: use jmap or emailid, or keep the old server's ids (popgate uidl import)",
        ),
        (Protocol::Jmap, Ingredient::Guid | Ingredient::FileName | Ingredient::HeaderMd5) => Some(
            "needs GUIDs, which JMAP does not have: use jmap or emailid, or keep the old server's ids (popgate uidl import)",
        ),
        (Protocol::Jmap, Ingredient::GmailId) => {
            Some("needs X-GM-MSGID, which only Gmail's IMAP has")
        }
        (Protocol::Imap, _) | (Protocol::Jmap, Ingredient::EmailId | Ingredient::BlobId) => None,
    }
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(
    given: &Given<String>,
    what: &str,
) -> Result<T, ConfigError> {
    given.value.parse().map_err(|error| {
        let shown: String = given.value.chars().take(40).collect();
        given.wrong(format!("{shown:?} is {what}: {error}"))
    })
}

fn folders(given: &Given<Vec<Given<String>>>) -> Result<Vec<FolderName>, ConfigError> {
    if given.value.is_empty() {
        return Err(given.wrong("is empty: a maildrop has at least one folder, like \"INBOX\""));
    }
    let mut folders: Vec<FolderName> = Vec::with_capacity(given.value.len());
    for name in &given.value {
        let folder: FolderName = parsed(name, "no folder")?;
        let same = |other: &FolderName| *other == folder || (other.is_inbox() && folder.is_inbox());
        if folders.iter().any(same) {
            return Err(name.wrong(format!("{:?} is named twice", name.value)));
        }
        folders.push(folder);
    }
    Ok(folders)
}

#[cfg(test)]
mod tests;
