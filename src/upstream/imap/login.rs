//! From a TCP connection to a logged-in one (RFC 3501 §6.1, §6.2).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::command::{Command, base64};
use super::config::{Config, Security};
use super::connection::{Connection, Event, Tag};
use super::status::{Code, Kind, Status};
use super::transport;
use crate::sasl::{self, Credentials, Mechanism};
use crate::upstream::{Reason, UpstreamError};

/// What the server says it can do, in upper case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities(HashSet<String>);

/// What IMAP4rev2 includes of that which popgate uses (RFC 9051 appendix E).
const IN_REV2: [&str; 7] = [
    "SASL-IR",
    "LITERAL-",
    "SPECIAL-USE",
    "ESEARCH",
    "UIDPLUS",
    "MOVE",
    "NAMESPACE",
];
/// The largest literal that LITERAL- lets go unasked (RFC 7888 §5).
const LITERAL_MINUS: usize = 4096;
/// A response, and the answer to a failure, and one more.
const MOST_CHALLENGES: u32 = 3;
/// The longest initial response: a command line has 8,000 octets.
const LONGEST_INITIAL_RESPONSE: usize = 7_900;

impl Capabilities {
    /// The capabilities of these names.
    pub fn new(names: &[String]) -> Self {
        let mut all: HashSet<String> = names.iter().map(|name| name.to_ascii_uppercase()).collect();
        if all.contains("IMAP4REV2") {
            all.extend(IN_REV2.map(str::to_owned));
        }
        Self(all)
    }

    /// Whether the capability of this name (upper case) was announced.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Up to how many octets a literal need not be asked for (RFC 7888).
    fn unasked_literals(&self) -> usize {
        if self.has("LITERAL+") {
            usize::MAX
        } else if self.has("LITERAL-") {
            LITERAL_MINUS
        } else {
            0
        }
    }

    /// The most messages that one command may touch: `MESSAGELIMIT=1000`
    /// (RFC 9738).
    pub fn message_limit(&self) -> Option<u32> {
        self.0
            .iter()
            .find_map(|it| it.strip_prefix("MESSAGELIMIT=")?.parse().ok())
            .filter(|limit| *limit > 0)
    }

    /// In alphabetical order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.iter().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    fn sasl(&self, mechanism: Mechanism) -> bool {
        self.0.contains(&format!("AUTH={}", mechanism.name()))
    }
}

/// A connection that has said its greeting, and under TLS where that is asked
/// for, but is not logged in.
pub(super) struct Greeted {
    pub connection: Connection,
    pub capabilities: Capabilities,
    /// The greeting's words.
    pub greeting: String,
}

impl Greeted {
    /// Connects, secures the connection and hears the greeting, all within the
    /// configured time. No credential is needed and none is sent.
    pub async fn connect(config: &Config) -> Result<Self, UpstreamError> {
        let deadline = Instant::now() + config.timeouts.connect;
        let connected = timeout_at(deadline, Self::connect_by(config, deadline)).await;
        connected.map_err(|_| UpstreamError::temporary("no connection in time"))?
    }

    async fn connect_by(config: &Config, deadline: Instant) -> Result<Self, UpstreamError> {
        let tcp = transport::tcp(&config.host, config.port).await?;
        let stream = transport::secure(tcp, config).await?;
        Self::over(stream, config, deadline).await
    }

    /// Hears the greeting on a connection that is under TLS already if that is
    /// implicit, and begins TLS now if it comes by STARTTLS.
    pub async fn over(
        stream: transport::Stream,
        config: &Config,
        deadline: Instant,
    ) -> Result<Self, UpstreamError> {
        let mut connection = Connection::new(stream, config.limits, config.timeouts);
        let greeting = greeting(&mut connection, deadline).await?;
        let told = capability_code(&greeting);
        let mut greeted = Self {
            connection,
            capabilities: Capabilities::default(),
            greeting: greeting.text,
        };
        if config.security == Security::StartTls {
            return greeted.start_tls(config, told).await;
        }
        greeted.capabilities = match told {
            Some(told) => told,
            None => greeted.ask_capabilities().await?,
        };
        Ok(greeted)
    }

    /// STARTTLS. What was said in cleartext before it is forgotten.
    async fn start_tls(
        mut self,
        config: &Config,
        told: Option<Capabilities>,
    ) -> Result<Self, UpstreamError> {
        let told = match told {
            Some(told) => told,
            None => self.ask_capabilities().await?,
        };
        if !told.has("STARTTLS") {
            let reason = "the upstream does not offer STARTTLS";
            return Err(UpstreamError::Misconfigured(reason.into()));
        }
        let answer = self
            .connection
            .run(Command::new("STARTTLS"), |_| Ok(()))
            .await?;
        answer.ok_or_error("STARTTLS")?;
        let round_trips = self.connection.count_in(Arc::default());
        let transport::Stream::Left(tcp) = self.connection.into_stream()? else {
            return Err(UpstreamError::protocol("STARTTLS under TLS"));
        };
        let stream = transport::tls(tcp, &config.host, &config.tls).await?;
        let mut secured = Self {
            connection: Connection::new(stream, config.limits, config.timeouts),
            capabilities: Capabilities::default(),
            greeting: self.greeting,
        };
        secured.connection.count_in(Arc::new(round_trips.into()));
        secured.capabilities = secured.ask_capabilities().await?;
        Ok(secured)
    }

    async fn ask_capabilities(&mut self) -> Result<Capabilities, UpstreamError> {
        capabilities(&mut self.connection).await
    }

    /// Tells an upstream that trusts us who the client is (RFC 2971). It must know
    /// before the login, where it counts failures and connections by address.
    pub async fn identify(&mut self, config: &Config, client: IpAddr) -> Result<(), UpstreamError> {
        if let Some(identity) = self.send_identity(config, client).await? {
            // Whatever the server makes of it.
            let deadline = self.connection.deadline();
            self.connection.wait(identity, deadline, |_| Ok(())).await?;
        }
        Ok(())
    }

    /// The same without waiting for the answer.
    pub async fn send_identity(
        &mut self,
        config: &Config,
        client: IpAddr,
    ) -> Result<Option<Tag>, UpstreamError> {
        if !config.send_client_address || !self.capabilities.has("ID") {
            return Ok(None);
        }
        let command = Command::new("ID").identity(client);
        Ok(Some(self.connection.send(command).await?))
    }

    /// Logs in. `Authentication` comes out only where the upstream said NO to
    /// these credentials.
    pub async fn login(
        mut self,
        credentials: &Credentials,
        config: &Config,
    ) -> Result<LoggedIn, UpstreamError> {
        let prepared = self.prepare(credentials, config)?;
        self.finish(prepared).await
    }

    /// How these credentials are sent. From now on what the server quotes of them
    /// is withheld.
    pub fn prepare(
        &mut self,
        credentials: &Credentials,
        config: &Config,
    ) -> Result<Prepared, UpstreamError> {
        let mechanism = self.mechanism(credentials)?;
        conceal(&mut self.connection, credentials);
        match mechanism {
            Some(mechanism) => self.authenticate(mechanism, credentials, config),
            None => self.plain_login(credentials),
        }
    }

    /// The same where more is sent behind it at once; `None`: that would be lost.
    pub fn prepare_for_more(
        &mut self,
        credentials: &Credentials,
        config: &Config,
    ) -> Result<Option<Prepared>, UpstreamError> {
        let greeting = self.greeting.to_ascii_lowercase();
        // Courier's login stage hands over to another process, and what it has read
        // by then is gone. Cyrus 3.6 reads an AUTHENTICATE again that something
        // came behind; LOGIN it does not.
        let prepared = match credentials {
            Credentials::Password {
                authorize_as: None, ..
            } if greeting.contains("cyrus") && !self.capabilities.has("LOGINDISABLED") => {
                conceal(&mut self.connection, credentials);
                self.plain_login(credentials)?
            }
            _ if greeting.contains("cyrus") || greeting.contains("courier") => return Ok(None),
            _ => self.prepare(credentials, config)?,
        };
        let is_complete = prepared.unsent.is_none() && prepared.command.goes_unasked();
        let is_told_by_its_end = prepared.mechanism.is_none_or(|it| it == Mechanism::Plain);
        Ok(Some(prepared).filter(|_| is_complete && is_told_by_its_end))
    }

    /// The mechanism that suits the credentials; `None`: LOGIN.
    fn mechanism(&self, credentials: &Credentials) -> Result<Option<Mechanism>, UpstreamError> {
        let before = &self.capabilities;
        Ok(match credentials {
            Credentials::Password { .. } if before.sasl(Mechanism::Plain) => Some(Mechanism::Plain),
            Credentials::Password {
                authorize_as: None, ..
            } if !before.has("LOGINDISABLED") => None,
            Credentials::Password { .. } => {
                let reason = "the upstream offers no login by password that popgate can use";
                return Err(UpstreamError::Misconfigured(reason.into()));
            }
            Credentials::Bearer { .. } if before.sasl(Mechanism::OAuthBearer) => {
                Some(Mechanism::OAuthBearer)
            }
            Credentials::Bearer { .. } if before.sasl(Mechanism::XOauth2) => {
                Some(Mechanism::XOauth2)
            }
            Credentials::Bearer { .. } => {
                let reason = "the upstream offers neither XOAUTH2 nor OAUTHBEARER";
                return Err(UpstreamError::Misconfigured(reason.into()));
            }
        })
    }

    /// LOGIN (RFC 3501 §6.2.3).
    fn plain_login(&self, credentials: &Credentials) -> Result<Prepared, UpstreamError> {
        let Credentials::Password { user, password, .. } = credentials else {
            return Err(UpstreamError::Authentication);
        };
        let command = Command::new("LOGIN")
            .with_unasked_literals(self.capabilities.unasked_literals())
            .string(user.as_bytes())
            .and_then(|command| command.string(password.reveal().as_bytes()))
            .map_err(|_| UpstreamError::Authentication)?;
        Ok(Prepared {
            command,
            mechanism: None,
            unsent: None,
        })
    }

    /// AUTHENTICATE (RFC 3501 §6.2.2, RFC 4959).
    fn authenticate(
        &mut self,
        mechanism: Mechanism,
        credentials: &Credentials,
        config: &Config,
    ) -> Result<Prepared, UpstreamError> {
        let response = sasl::initial_response(mechanism, credentials, &config.host, config.port)
            .ok_or(UpstreamError::Authentication)?;
        let response = base64(&response);
        self.connection.conceal(response.as_bytes());
        let command = Command::new("AUTHENTICATE").word(mechanism.name());
        let fits = response.len() <= LONGEST_INITIAL_RESPONSE;
        let (command, unsent) = match fits && self.capabilities.has("SASL-IR") {
            true => (command.base64(&response), None),
            false => (command, Some(response)),
        };
        Ok(Prepared {
            command,
            mechanism: Some(mechanism),
            unsent,
        })
    }

    /// Sends what was prepared, and waits for what comes of it.
    pub async fn finish(mut self, prepared: Prepared) -> Result<LoggedIn, UpstreamError> {
        let Prepared {
            command,
            mechanism,
            mut unsent,
        } = prepared;
        let connection = &mut self.connection;
        let deadline = connection.deadline();
        let tag = connection.send(command).await?;
        let mut told = None;
        let mut challenges = 0;
        let answer = loop {
            let hear = |event| hear_capabilities(event, &mut told);
            let line = match (
                connection.wait_or_go_on(tag, deadline, hear).await?,
                mechanism,
            ) {
                (Some(answer), _) => break answer,
                (None, Some(mechanism)) if challenges < MOST_CHALLENGES => match unsent.take() {
                    Some(response) => response,
                    // PLAIN knows no second challenge: cancel.
                    None if mechanism == Mechanism::Plain => Zeroizing::new("*".to_owned()),
                    // A failure, told as a challenge: its text may hold what is
                    // secret and is not looked at.
                    None => base64(sasl::answer_to_failure(mechanism)),
                },
                (None, _) => return Err(UpstreamError::protocol("challenges without end")),
            };
            challenges += 1;
            connection.send_line(line.as_bytes(), deadline).await?;
        };
        if answer.kind != Kind::Ok {
            return Err(answer.login_refusal());
        }
        let told = capability_code(&answer).or(told);
        Ok(LoggedIn {
            are_told: told.is_some(),
            capabilities: match told {
                Some(told) => told,
                None => self.ask_capabilities().await?,
            },
            connection: self.connection,
        })
    }
}

/// A login that is to be sent.
pub(super) struct Prepared {
    pub command: Command,
    /// `None`: LOGIN.
    mechanism: Option<Mechanism>,
    /// The response, where it waits for the challenge.
    unsent: Option<Zeroizing<String>>,
}

/// A connection that is logged in.
pub(super) struct LoggedIn {
    pub connection: Connection,
    pub capabilities: Capabilities,
    /// The answer to the login told the capabilities.
    pub are_told: bool,
}

/// Keeps what the credentials hold out of every error of the connection.
pub(super) fn conceal(connection: &mut Connection, credentials: &Credentials) {
    let secret = match credentials {
        Credentials::Password { password, .. } => password,
        Credentials::Bearer { token, .. } => token,
    };
    connection.conceal(secret.reveal().as_bytes());
    let quoted = Zeroizing::new(secret.reveal().replace('\\', "\\\\").replace('"', "\\\""));
    connection.conceal(quoted.as_bytes());
}

/// Whether credentials hold nothing that could be taken for protocol. The front
/// has refused such before; here it is seen to whatever the front does.
pub(super) fn are_sendable(credentials: &Credentials) -> bool {
    let clean = |text: &str| !text.contains(['\0', '\r', '\n']);
    match credentials {
        Credentials::Password {
            user,
            authorize_as,
            password,
        } => clean(user) && authorize_as.as_deref().is_none_or(clean) && clean(password.reveal()),
        Credentials::Bearer { user, token } => clean(user) && clean(token.reveal()),
    }
}

/// The greeting (RFC 3501 §7.1). PREAUTH is refused: nobody has shown a
/// password, and no mailbox could be told to be this client's.
async fn greeting(connection: &mut Connection, deadline: Instant) -> Result<Status, UpstreamError> {
    match connection.event(deadline).await? {
        Event::Untagged(status) => match status.kind {
            Kind::Ok => Ok(status),
            Kind::PreAuth => Err(UpstreamError::protocol("PREAUTH instead of a greeting")),
            _ => Err(status.refusal("greeting")),
        },
        _ => Err(UpstreamError::protocol("no greeting")),
    }
}

/// CAPABILITY (RFC 3501 §6.1.1).
pub(super) fn ask() -> Command {
    Command::new("CAPABILITY")
}

/// Asks for the capabilities, and waits for the answer.
pub(super) async fn capabilities(
    connection: &mut Connection,
) -> Result<Capabilities, UpstreamError> {
    let mut told = None;
    let hear = |event| hear_capabilities(event, &mut told);
    let answer = connection.run(ask(), hear).await?;
    answer.ok_or_error("CAPABILITY")?;
    told.ok_or_else(|| UpstreamError::Protocol(Reason::from("CAPABILITY without an answer")))
}

pub(super) fn hear_capabilities(
    event: Event,
    told: &mut Option<Capabilities>,
) -> Result<(), UpstreamError> {
    match event {
        Event::Capability(names) => *told = Some(Capabilities::new(&names)),
        Event::Untagged(status) => {
            if let Some(capabilities) = capability_code(&status) {
                *told = Some(capabilities);
            }
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn capability_code(status: &Status) -> Option<Capabilities> {
    match &status.code {
        Some(Code::Capability(names)) => Some(Capabilities::new(names)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(names: &str) -> Capabilities {
        let names: Vec<String> = names.split(' ').map(str::to_owned).collect();
        Capabilities::new(&names)
    }

    #[test]
    fn literals_go_unasked_as_far_as_was_announced() {
        assert_eq!(announced("IMAP4rev1").unasked_literals(), 0);
        assert_eq!(announced("IMAP4rev1 literal-").unasked_literals(), 4096);
        assert_eq!(
            announced("LITERAL- LITERAL+").unasked_literals(),
            usize::MAX
        );
    }

    #[test]
    fn rev2_includes_what_rev1_announces_one_by_one() {
        let rev2 = announced("IMAP4rev2 AUTH=PLAIN");
        assert!(IN_REV2.iter().all(|name| rev2.has(name)));
        assert!(!announced("IMAP4rev1").has("MOVE"));
    }

    #[test]
    fn message_limits() {
        assert_eq!(announced("MESSAGELIMIT=1000").message_limit(), Some(1000));
        for none in ["MESSAGELIMIT", "MESSAGELIMIT=0", "MESSAGELIMIT=x", "X=5"] {
            assert_eq!(announced(none).message_limit(), None, "{none}");
        }
    }

    #[test]
    fn credentials_that_could_be_taken_for_protocol() {
        let password = |user: &str, authorize_as: Option<&str>, password: &str| {
            are_sendable(&Credentials::Password {
                user: user.to_owned(),
                authorize_as: authorize_as.map(str::to_owned),
                password: password.into(),
            })
        };
        assert!(password("alice", Some("bob"), "p\u{e4}ss w\"\\rd"));
        for bad in ["a\r", "a\nb", "\0"] {
            assert!(!password(bad, None, "p"));
            assert!(!password("alice", Some(bad), "p"));
            assert!(!password("alice", None, bad));
            let token = bad.into();
            let user = "alice".to_owned();
            assert!(!are_sendable(&Credentials::Bearer { user, token }));
        }
    }
}
