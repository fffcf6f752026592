//! SASL (RFC 4422), pure: one file a mechanism, both directions. popgate is
//! the server in front and the client upstream.

use std::fmt;

use zeroize::Zeroizing;

use crate::secret::Secret;

mod digest;
mod login;
mod oauth_bearer;
mod plain;
mod text;
mod xoauth2;

pub use digest::{Digest, DigestKey};
pub use text::check_user;

/// A mechanism popgate speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN, the obsolete prompt for a user name and a password.
    Login,
    /// XOAUTH2, Google's and Microsoft's.
    XOauth2,
    /// OAUTHBEARER (RFC 7628).
    OAuthBearer,
}

/// All there is to know about a mechanism; what CAPA announces and what AUTH
/// runs both come from here.
struct Profile {
    name: &'static str,
    /// Whether its credentials are a user name and a password.
    password: bool,
    /// What the server says first when the client sent no initial response.
    prompt: &'static [u8],
    /// The server's part: makes something of a client's response.
    respond: fn(Option<String>, &[u8]) -> Result<Round, SaslError>,
    /// What the server says before it fails the exchange, where it must.
    failure: Option<&'static [u8]>,
    /// The client's part: its initial response.
    initial_response: fn(&Credentials, &str, u16) -> Option<Message>,
    /// The client's part: its answer to `failure`.
    answer_to_failure: &'static [u8],
}

/// A client's message in raw octets, in memory that is wiped.
pub type Message = Zeroizing<Vec<u8>>;

/// What a client's response led to.
enum Round {
    Finished(Credentials),
    /// LOGIN has the user and asks for the password.
    Next {
        user: String,
        challenge: &'static [u8],
    },
}

impl Mechanism {
    /// Every mechanism, in the order in which they are announced.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Login, Self::XOauth2, Self::OAuthBearer];

    fn profile(self) -> &'static Profile {
        match self {
            Self::Plain => &plain::PROFILE,
            Self::Login => &login::PROFILE,
            Self::XOauth2 => &xoauth2::PROFILE,
            Self::OAuthBearer => &oauth_bearer::PROFILE,
        }
    }

    /// Its registered name.
    pub fn name(self) -> &'static str {
        self.profile().name
    }

    /// The mechanism with this name, in any case of letters.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// Whether a client proves itself by a user name and a password.
    pub fn takes_password(self) -> bool {
        self.profile().password
    }

    /// The challenge by which the server announces that it will fail the
    /// exchange, where the mechanism has one (RFC 7628 §3.2.2). Raw octets. The
    /// client answers it, then the exchange fails.
    pub fn failure(self) -> Option<&'static [u8]> {
        self.profile().failure
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a client proved itself with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// From USER and PASS, PLAIN or LOGIN.
    Password {
        /// The authentication identity.
        user: String,
        /// The authorization identity of PLAIN, where it is another one.
        authorize_as: Option<String>,
        /// The password, spaces and all.
        password: Secret,
    },
    /// From XOAUTH2 or OAUTHBEARER.
    Bearer {
        /// The mailbox's user.
        user: String,
        /// The access token.
        token: Secret,
    },
}

impl Credentials {
    /// A user name and a password that may be passed on: neither is empty, and
    /// neither holds what could be taken for protocol.
    pub fn password(user: &str, password: &str) -> Result<Self, SaslError> {
        text::check_user(user)?;
        text::check_password(password)?;
        Ok(Self::Password {
            user: user.to_owned(),
            authorize_as: None,
            password: Secret::from(password),
        })
    }

    /// Who logs in.
    pub fn user(&self) -> &str {
        match self {
            Self::Password { user, .. } | Self::Bearer { user, .. } => user,
        }
    }

    /// Whose mailbox is opened, where it is not the user's own.
    pub fn authorized_as(&self) -> Option<&str> {
        match self {
            Self::Password { authorize_as, .. } => authorize_as.as_deref(),
            Self::Bearer { .. } => None,
        }
    }

    /// The same proof for a mailbox that is called otherwise.
    pub fn for_mailbox(self, name: String) -> Self {
        match self {
            Self::Password {
                user,
                authorize_as: Some(_),
                password,
            } => Self::Password {
                user,
                authorize_as: Some(name),
                password,
            },
            Self::Password { password, .. } => Self::Password {
                user: name,
                authorize_as: None,
                password,
            },
            Self::Bearer { token, .. } => Self::Bearer { user: name, token },
        }
    }

    /// Whose mailbox is opened.
    pub fn mailbox(&self) -> &str {
        self.authorized_as().unwrap_or_else(|| self.user())
    }
}

/// Why an exchange, or a user name and password, came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// It does not follow the mechanism's grammar, or holds octets that user
    /// names, passwords or tokens never have.
    #[error("malformed credentials")]
    Malformed,
    /// The user name or the password is empty. Neither is ever sent upstream:
    /// some directories take an empty password for an anonymous login.
    #[error("empty user name or password")]
    Empty,
}

/// The server's side of an exchange that waits for the client's response.
pub struct ServerExchange {
    mechanism: Mechanism,
    /// What LOGIN has learned so far.
    user: Option<String>,
}

/// Where an exchange stands.
#[derive(Debug)]
pub enum Progress {
    /// The client has to answer this challenge (raw octets).
    Challenge(ServerExchange, &'static [u8]),
    /// The client has said who it is; whether that is so must now be found out.
    Credentials(Credentials),
}

impl ServerExchange {
    /// Begins an exchange, with the client's initial response where it sent
    /// one (raw octets).
    pub fn start(
        mechanism: Mechanism,
        initial_response: Option<&[u8]>,
    ) -> Result<Progress, SaslError> {
        let exchange = Self {
            mechanism,
            user: None,
        };
        match initial_response {
            Some(response) => exchange.step(response),
            None => Ok(Progress::Challenge(exchange, mechanism.profile().prompt)),
        }
    }

    /// Takes the client's response (raw octets).
    pub fn step(self, response: &[u8]) -> Result<Progress, SaslError> {
        let Self { mechanism, user } = self;
        Ok(match (mechanism.profile().respond)(user, response)? {
            Round::Finished(credentials) => Progress::Credentials(credentials),
            Round::Next { user, challenge } => Progress::Challenge(
                Self {
                    mechanism,
                    user: Some(user),
                },
                challenge,
            ),
        })
    }

    /// The mechanism that runs.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }
}

impl fmt::Debug for ServerExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerExchange({})", self.mechanism)
    }
}

/// The initial response by which popgate proves itself as a client, in raw
/// octets; `host` and `port` are the server's. `None` where these credentials
/// do not go with the mechanism, cannot be written in it, or where it has no
/// initial response.
pub fn initial_response(
    mechanism: Mechanism,
    credentials: &Credentials,
    host: &str,
    port: u16,
) -> Option<Message> {
    (mechanism.profile().initial_response)(credentials, host, port)
}

/// A client's answer to the challenge that announces failure, in raw octets.
pub fn answer_to_failure(mechanism: Mechanism) -> &'static [u8] {
    mechanism.profile().answer_to_failure
}

/// Puts a message together in memory that is wiped, and never moved while it
/// grows.
fn message(parts: &[&[u8]]) -> Message {
    let mut message = Zeroizing::new(Vec::with_capacity(
        parts.iter().map(|part| part.len()).sum(),
    ));
    for part in parts {
        message.extend_from_slice(part);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_mechanisms() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::from_name(mechanism.name()), Some(mechanism));
            let lower_case = mechanism.name().to_ascii_lowercase();
            assert_eq!(Mechanism::from_name(&lower_case), Some(mechanism));
        }
        assert_eq!(Mechanism::from_name("CRAM-MD5"), None);
        assert_eq!(Mechanism::from_name(""), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let password = Credentials::password("tim", "tanstaaf").unwrap();
        let bearer = Credentials::Bearer {
            user: "tim".into(),
            token: "tanstaaf".into(),
        };
        let progress = ServerExchange::start(Mechanism::Plain, Some(b"\0tim\0tanstaaf")).unwrap();
        let shown = format!("{password:?} {bearer:?} {progress:?}");
        assert!(!shown.contains("tanstaaf"), "{shown}");
        assert!(shown.contains("tim"));
    }

    #[test]
    fn what_one_side_sends_the_other_understands() {
        let password = Credentials::password("tim@example.org", "pass word").unwrap();
        let bearer = Credentials::Bearer {
            user: "a=b,c".into(),
            token: "ya29.vF9dft==".into(),
        };
        for (mechanism, credentials) in [
            (Mechanism::Plain, &password),
            (Mechanism::XOauth2, &bearer),
            (Mechanism::OAuthBearer, &bearer),
        ] {
            let sent = initial_response(mechanism, credentials, "mail.example.org", 143).unwrap();
            match ServerExchange::start(mechanism, Some(&sent)).unwrap() {
                Progress::Credentials(understood) => assert_eq!(&understood, credentials),
                progress => panic!("{progress:?}"),
            }
        }
    }

    #[test]
    fn credentials_go_only_with_their_mechanisms() {
        let password = Credentials::password("tim", "tanstaaf").unwrap();
        let bearer = Credentials::Bearer {
            user: "tim".into(),
            token: "t".into(),
        };
        let none = |mechanism, credentials| {
            assert_eq!(initial_response(mechanism, credentials, "host", 143), None);
        };
        none(Mechanism::Plain, &bearer);
        none(Mechanism::XOauth2, &password);
        none(Mechanism::OAuthBearer, &password);
        none(Mechanism::Login, &password);
        none(Mechanism::Login, &bearer);
    }

    #[test]
    fn a_client_never_writes_what_could_be_taken_for_protocol() {
        for bad in ["a\0b", "a\rb", "a\nb", "a\u{1}b", ""] {
            let secret = Secret::from(bad);
            for (user, secret) in [(bad, Secret::from("t")), ("tim", secret)] {
                let password = Credentials::Password {
                    user: user.into(),
                    authorize_as: None,
                    password: secret.clone(),
                };
                let bearer = Credentials::Bearer {
                    user: user.into(),
                    token: secret,
                };
                for mechanism in Mechanism::ALL {
                    for credentials in [&password, &bearer] {
                        assert_eq!(initial_response(mechanism, credentials, "host", 143), None);
                    }
                }
            }
            let other = Credentials::Password {
                user: "tim".into(),
                authorize_as: Some(bad.into()),
                password: "t".into(),
            };
            assert_eq!(
                initial_response(Mechanism::Plain, &other, "host", 143),
                None
            );
        }
    }
}
