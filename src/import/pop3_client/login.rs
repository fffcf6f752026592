//! What an old server can do, and the login there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::command::Command;
use super::wire::{Status, Wire};
use super::{Pop3Error, protocol, request};
use crate::sasl::{self, Credentials, Mechanism};

/// Lines of an answer to CAPA.
const MOST_CAPABILITIES: usize = 200;

/// What an old server can do (RFC 2449).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub user: bool,
    pub plain: bool,
    pub top: bool,
    pub pipelining: bool,
}

impl Capabilities {
    fn add(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).to_ascii_uppercase();
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("USER") => self.user = true,
            Some("SASL") => self.plain |= words.any(|mechanism| mechanism == "PLAIN"),
            Some("TOP") => self.top = true,
            Some("PIPELINING") => self.pipelining = true,
            _ => {}
        }
    }
}

/// What the server can do; `None` where it has no CAPA, as many old ones.
pub(super) async fn capabilities<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
) -> Result<Option<Capabilities>, Pop3Error> {
    match request(wire, &Command::Capa).await {
        Ok(_) => {}
        Err(Pop3Error::Refused(..)) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut capabilities = Capabilities::default();
    let mut lines = 0;
    while let Some(line) = wire.row().await? {
        lines += 1;
        if lines > MOST_CAPABILITIES {
            return Err(protocol("CAPA has too many lines"));
        }
        capabilities.add(line);
    }
    Ok(Some(capabilities))
}

/// Logs in by USER and PASS, or by SASL PLAIN where that is needed.
pub(super) async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    offered: Option<Capabilities>,
    credentials: &Credentials,
) -> Result<(), Pop3Error> {
    let Credentials::Password {
        user,
        authorize_as: None,
        password,
    } = credentials
    else {
        return Err(Pop3Error::Unsupported(
            "an old server is logged in to by a user name and a password",
        ));
    };
    wire.conceal(password.reveal().as_bytes());
    // Without CAPA there is nothing but USER.
    let (by_user, by_plain) = offered.map_or((true, false), |it| (it.user, it.plain));
    // A space, or anything but ASCII, goes for certain only through SASL.
    let simple = user.bytes().all(|octet| octet.is_ascii_graphic());
    if by_plain && !(by_user && simple) {
        let message = sasl::initial_response(Mechanism::Plain, credentials, "", 0);
        let message = message.ok_or(Pop3Error::Unsupported(
            "user name and password cannot be written in SASL PLAIN",
        ))?;
        let response = Zeroizing::new(STANDARD.encode(&*message));
        wire.conceal(response.as_bytes());
        // Servers older than RFC 5034 take no initial response.
        wire.send(Command::AuthPlain.line().as_bytes()).await?;
        match wire.challenge().await? {
            Status::Ok(_) => {}
            Status::Err(said) => {
                return Err(Pop3Error::Refused(Command::AuthPlain.name(), said.into()));
            }
        }
        wire.send(Command::Response(&response).line().as_bytes())
            .await?;
        let status = wire.status().await?;
        return judged(status);
    }
    if !by_user {
        return Err(Pop3Error::Unsupported(
            "the server offers neither USER nor SASL PLAIN on this connection; it may insist on TLS (pop3s:// or pop3+stls://)",
        ));
    }
    for command in [Command::User(user), Command::Pass(password)] {
        wire.expect_silence()?;
        wire.send(command.line().as_bytes()).await?;
        let status = wire.status().await?;
        judged(status)?;
    }
    Ok(())
}

fn judged(status: Status) -> Result<(), Pop3Error> {
    match status {
        Status::Ok(_) => Ok(()),
        Status::Err(said) => Err(Pop3Error::Login(said.into())),
    }
}
