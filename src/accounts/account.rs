//! An account: who may log in, and how popgate gets into the mailbox then.

use serde::{Deserialize, Serialize};

use super::vault::{PasswordLock, Sealed};

/// A user of popgate's own. In the store it is JSON; what is secret is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// What clients give as user name, in lower case.
    #[serde(skip)]
    pub address: String,
    /// Which state of the stored account this is; 0: not stored yet.
    #[serde(skip)]
    pub version: u64,
    /// When it was made, in seconds of Unix time.
    pub created: i64,
    /// Where the mailbox is.
    pub home: Home,
    /// The user name upstream, where it is not the address: another login name,
    /// or the address of a shared mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<String>,
    /// Who has to sign in, where it is not the address: the delegate of a shared
    /// mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate: Option<String>,
    /// How popgate gets in.
    pub credential: Credential,
    /// The private key of the account under each device's password, where secrets
    /// are sealed by these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<PasswordLock>,
    /// Passwords in front.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Nobody logs in.
    #[serde(default)]
    pub disabled: bool,
    /// May log in as others (authorization identity, `user*master`), and has no
    /// mailbox of its own.
    #[serde(default)]
    pub master: bool,
    /// Since when the provider refuses, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// Policies of its own, as they are written in the configuration.
    #[serde(default)]
    pub rules: Rules,
}

/// Where a mailbox is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Home {
    /// At the gateway's own upstream.
    #[default]
    Gateway,
    /// At a configured provider.
    Provider(String),
    /// At this URL.
    Upstream(String),
}

/// How popgate gets into a mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// The provider needs none of this account: client credentials, a service
    /// account, a master user.
    #[default]
    Provider,
    /// A password upstream (an app password).
    Password(Sealed),
    /// A token that is good until it is revoked, as Fastmail's API tokens.
    ApiToken(Sealed),
    /// OAuth tokens.
    OAuth(SealedTokens),
}

/// OAuth tokens at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedTokens {
    /// Gets the next access token; `None`: there is none, and the person has to
    /// sign in when the access token has ended.
    pub refresh: Option<Sealed>,
    /// The last access token.
    pub access: Sealed,
    /// When that ends, in seconds of Unix time.
    pub expires_at: i64,
    /// When somebody signed in, in seconds of Unix time.
    pub signed_in: i64,
    /// When tokens were last got, in seconds of Unix time.
    pub refreshed: i64,
    /// Counts renewals: part of what seals.
    pub generation: u64,
    /// Who is asking for new ones now, or ended while asking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
}

/// A process that is asking for tokens. It says so before it asks: others wait,
/// and where the disk is full nothing is asked that could not be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Which process: a random name.
    pub by: String,
    /// In milliseconds of Unix time.
    pub since: i64,
}

/// Why an account cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trouble {
    /// In seconds of Unix time.
    pub since: i64,
    /// In words, for the operator; nothing secret.
    pub reason: String,
    /// Whoever is to be told has been told.
    #[serde(default)]
    pub told: bool,
}

/// A password in front, for one device or program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Names it within its account, for ever.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// In seconds of Unix time.
    pub created: i64,
    /// What the password is compared with.
    pub verifier: Verifier,
}

/// What a device password is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verifier {
    /// Of a generated password of at least 128 bits: salted SHA-256.
    Generated {
        /// In base64.
        salt: String,
        /// In base64.
        digest: String,
    },
    /// Of one that a person chose: Argon2id, a PHC string.
    Chosen(String),
}

/// Policies of an account, as they are written in the configuration. What is not
/// there is as for anybody else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// As `delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<String>,
    /// As `seen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// As `folders`; empty: not said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<String>,
}

impl Account {
    /// The user name upstream.
    pub fn mailbox(&self) -> &str {
        self.mailbox.as_deref().unwrap_or(&self.address)
    }

    /// An account that is not there: for work that is done all the same.
    pub(super) fn nobody(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            version: 0,
            created: 0,
            home: Home::Gateway,
            mailbox: None,
            delegate: None,
            credential: Credential::Provider,
            lock: None,
            devices: Vec::new(),
            disabled: false,
            master: false,
            trouble: None,
            rules: Rules::default(),
        }
    }

    /// Who has to sign in at the provider.
    pub fn signs_in(&self) -> &str {
        self.delegate.as_deref().unwrap_or(&self.address)
    }
}
