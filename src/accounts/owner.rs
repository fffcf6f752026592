//! What the popgate that serves the store tells of it: to commands, which keys it has;
//! to the operator, what commands have changed.

use tracing::info;

use super::{Account, Accounts, Credential, KeyRing};
use crate::store::AccountRow;
use crate::store::control::Owner;

impl Owner for Accounts {
    fn keys(&self) -> Vec<String> {
        let keys = self.config.keys.iter().flat_map(KeyRing::ids);
        keys.map(str::to_owned).collect()
    }

    fn changed(&self, name: &str, before: Option<&AccountRow>, after: Option<&AccountRow>) {
        let read = |row: Option<&AccountRow>| {
            let row = row?;
            // What is damaged can be removed, or put right.
            super::account(name.to_owned(), row).ok()
        };
        let changes = match (before, after) {
            (None, _) => vec!["added"],
            (_, None) => vec!["removed"],
            (Some(_), Some(_)) => match (read(before), read(after)) {
                (Some(before), Some(after)) => changes(&before, &after),
                _ => vec!["changed"],
            },
        };
        if !changes.is_empty() {
            let changes = changes.join(", ");
            info!(account = name, changes, "a command changed an account");
        }
    }
}

/// What is another now, in words. That a command is about to ask for tokens is none.
fn changes(before: &Account, after: &Account) -> Vec<&'static str> {
    let mut changes = Vec::new();
    if before.disabled != after.disabled {
        changes.push(match after.disabled {
            true => "disabled",
            false => "enabled",
        });
    }
    let is_new = |one: &Account, other: &Account| {
        let mut devices = one.devices.iter();
        devices.any(|device| other.devices.iter().all(|it| it.id != device.id))
    };
    if is_new(after, before) {
        changes.push("a device was added");
    }
    if is_new(before, after) {
        changes.push("a device was revoked");
    }
    changes.extend(credential(&before.credential, &after.credential));
    match (&before.trouble, &after.trouble) {
        (None, Some(_)) => changes.push("the provider refuses"),
        (Some(_), None) => changes.push("cured"),
        _ => {}
    }
    let rest = |account: &Account| {
        let mut rest = account.clone();
        rest.version = 0;
        rest.disabled = false;
        rest.devices.clear();
        rest.credential = Credential::Provider;
        rest.lock = None;
        rest.trouble = None;
        rest
    };
    if rest(before) != rest(after) {
        changes.push("changed");
    }
    changes
}

/// What is another of what an account gets in with.
fn credential(before: &Credential, after: &Credential) -> Option<&'static str> {
    match (before, after) {
        (Credential::OAuth(before), Credential::OAuth(after)) => {
            let is_sealed_anew = before.access != after.access || before.refresh != after.refresh;
            if before.signed_in != after.signed_in {
                Some("somebody signed in again")
            } else if before.refreshed != after.refreshed {
                Some("the tokens were renewed")
            } else if is_sealed_anew {
                Some("the tokens were sealed anew")
            } else {
                None
            }
        }
        (Credential::Password(before), Credential::Password(after))
        | (Credential::ApiToken(before), Credential::ApiToken(after)) => {
            if before == after {
                None
            } else if before.key_id() == after.key_id() {
                Some("the credential was replaced")
            } else {
                Some("the credential is sealed with another key now")
            }
        }
        (before, after) => (before != after).then_some("the credential was replaced"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::testing::{Fixture, tokens};
    use crate::accounts::{Claim, Home};

    #[tokio::test]
    async fn each_change_has_words_and_a_claim_has_none() {
        let fixture = Fixture::new();
        let accounts = &fixture.accounts;
        let home = Home::Provider("mail".to_owned());
        let mut first = accounts.new_account("alice@example.org", home).unwrap();
        accounts.set_tokens(&mut first, &tokens("alice")).unwrap();
        let changed = |change: &dyn Fn(&mut Account)| {
            let mut second = first.clone();
            second.version = 7;
            change(&mut second);
            changes(&first, &second)
        };
        assert_eq!(changed(&|_| {}), [] as [&str; 0]);
        let claim = |row: &mut Account| {
            if let Credential::OAuth(tokens) = &mut row.credential {
                tokens.claim = Some(Claim {
                    by: "somebody".to_owned(),
                    since: 1,
                });
            }
        };
        assert_eq!(changed(&claim), [] as [&str; 0]);
        let renewed = |signed_in: i64, refreshed: i64| {
            changed(&|row: &mut Account| {
                let mut tokens = tokens("alice");
                tokens.signed_in += signed_in;
                tokens.refreshed += refreshed;
                accounts.set_tokens(row, &tokens).unwrap();
            })
        };
        assert_eq!(renewed(0, 0), ["the tokens were sealed anew"]);
        assert_eq!(renewed(0, 5), ["the tokens were renewed"]);
        assert_eq!(renewed(5, 5), ["somebody signed in again"]);
        let several = |row: &mut Account| {
            row.disabled = true;
            row.credential = Credential::Provider;
        };
        let expected = ["disabled", "the credential was replaced"];
        assert_eq!(changed(&several), expected);
        let other = |row: &mut Account| row.mailbox = Some("bob".to_owned());
        assert_eq!(changed(&other), ["changed"]);
    }
}
