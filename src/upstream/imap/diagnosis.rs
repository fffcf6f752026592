//! `popgate check`: the way to an IMAP mailbox, step by step, in words for an
//! operator. It changes nothing upstream.

use std::collections::HashSet;
use std::time::Instant as Clock;

use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};

use super::config::{Config, Security};
use super::login::{Capabilities, Greeted};
use super::mailbox::{self, Removal};
use super::transport;
use crate::maildrop::{Ingredients, Policy};
use crate::sasl::Credentials;
use crate::upstream::finding::certificate_advice;
use crate::upstream::{Finding, UpstreamError};

/// Walks from DNS to the listing of the mailbox, or to the capabilities where
/// there are no credentials, and tells of each step. Returns whether all is
/// well; behind a bad step there is no further one.
pub async fn diagnose(
    config: &Config,
    policy: &Policy,
    credentials: Option<&Credentials>,
    mut tell: impl FnMut(&'static str, Finding),
) -> bool {
    let failed = walk(config, policy, credentials, &mut tell).await.err();
    match failed {
        None => true,
        Some((step, finding)) => {
            tell(step, finding);
            false
        }
    }
}

type Failed = (&'static str, Finding);

async fn walk(
    config: &Config,
    policy: &Policy,
    credentials: Option<&Credentials>,
    tell: &mut impl FnMut(&'static str, Finding),
) -> Result<(), Failed> {
    let deadline = Instant::now() + config.timeouts.connect;
    let bad = |step: &'static str, seen: String, advice: &str| -> Failed {
        (
            step,
            Finding::Bad {
                seen,
                advice: advice.to_owned(),
            },
        )
    };

    let found = timeout_at(deadline, lookup_host((config.host.as_str(), config.port))).await;
    let addresses: Vec<String> = match found {
        Ok(Ok(found)) => found.map(|address| address.ip().to_string()).collect(),
        Ok(Err(error)) => {
            let advice = "check the host name in `upstream`, and the name server of this machine";
            return Err(bad(
                "DNS",
                format!("{} is not found: {error}", config.host),
                advice,
            ));
        }
        Err(_) => {
            let advice = "check the name server of this machine";
            return Err(bad("DNS", "no answer in time".to_owned(), advice));
        }
    };
    tell(
        "DNS",
        Finding::Good(format!("{} is {}", config.host, addresses.join(", "))),
    );

    let advice =
        "check the port in `upstream`, that the mail server runs, and any firewall between";
    let tcp = match timeout_at(deadline, transport::tcp(&config.host, config.port)).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) => return Err(bad("TCP", error.to_string(), advice)),
        Err(_) => return Err(bad("TCP", "no connection in time".to_owned(), advice)),
    };
    tell(
        "TCP",
        Finding::Good(format!("port {} answers", config.port)),
    );

    let stream = match timeout_at(deadline, transport::secure(tcp, config)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(bad("TLS", error.to_string(), tls_advice(&error))),
        Err(_) => {
            let advice = "that port may not speak TLS at once: try imap+starttls:// (port 143)";
            return Err(bad("TLS", "no handshake in time".to_owned(), advice));
        }
    };
    if config.security == Security::ImplicitTls {
        let told = format!("the certificate is valid for {}", config.host);
        tell("TLS", Finding::Good(told));
    }

    let greeted = match timeout_at(deadline, Greeted::over(stream, config, deadline)).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return Err(bad("greeting", error.to_string(), tls_advice(&error))),
        Err(_) => {
            let advice = "that port may not be IMAP, or may want TLS at once: imaps:// (port 993)";
            return Err(bad("greeting", "no greeting in time".to_owned(), advice));
        }
    };
    let greeting: String = greeted.greeting.escape_debug().take(80).collect();
    tell("greeting", Finding::Good(format!("\"{greeting}\"")));
    match config.security {
        Security::ImplicitTls => {}
        Security::StartTls => {
            let told = format!("STARTTLS; the certificate is valid for {}", config.host);
            tell("TLS", Finding::Good(told));
        }
        Security::Cleartext => {
            let told = "none: passwords and mail cross the network as they are".to_owned();
            tell("TLS", Finding::Warning(told));
        }
    }

    let Some(credentials) = credentials else {
        tell("capabilities", Finding::Good(listed(&greeted.capabilities)));
        let told = "not tried: name a user to check the login and the mailbox".to_owned();
        tell("login", Finding::Warning(told));
        return Ok(());
    };
    let logged_in = greeted.login(credentials, config).await;
    let (mut connection, capabilities) =
        logged_in.map_err(|error| bad("login", error.to_string(), login_advice(&error)))?;
    tell(
        "login",
        Finding::Good(format!("{} is let in", credentials.user().escape_debug())),
    );
    tell("capabilities", Finding::Good(listed(&capabilities)));

    let began = Clock::now();
    let most = config.limits.messages;
    let nothing = |_| HashSet::new();
    let opened = mailbox::open(&mut connection, &capabilities, policy, most, nothing).await;
    let opened =
        opened.map_err(|error| bad("mailbox", error.to_string(), mailbox_advice(&error)))?;
    let removal = match &opened.removal {
        Removal::Move(trash) => format!("moved to {trash:?}"),
        Removal::CopyThenExpunge(trash) => format!("copied to {trash:?}, then expunged"),
        Removal::Expunge => "expunged: gone for good".to_owned(),
        Removal::Never => "refused (read-only)".to_owned(),
    };
    let selected = opened.selected;
    tell(
        "mailbox",
        Finding::Good(format!(
            "INBOX, UIDVALIDITY {}; deleted messages are {removal}",
            selected.uid_validity
        )),
    );
    let octets: u64 = opened.entries.iter().map(|entry| entry.octets).sum();
    let mut told = format!(
        "{} messages, {octets} octets, in {} ms",
        opened.entries.len(),
        began.elapsed().as_millis()
    );
    if let Some(first) = opened.entries.first() {
        let known = Ingredients {
            uid: Some(first.uid),
            uid_validity: Some(selected.uid_validity),
            ..Ingredients::default()
        };
        let format = policy.unique_ids.clone().unwrap_or_default();
        if let Ok(unique_id) = format.unique_id(&known) {
            told.push_str(&format!("; the first unique id is {unique_id}"));
        }
    }
    tell("listing", Finding::Good(told));
    connection.logout(config.timeouts.connect).await;
    Ok(())
}

/// The capabilities that matter here, and what is missing.
fn listed(capabilities: &Capabilities) -> String {
    let matters = |name: &&str| {
        name.starts_with("AUTH=")
            || [
                "LOGINDISABLED",
                "SASL-IR",
                "LITERAL+",
                "LITERAL-",
                "UIDPLUS",
                "MOVE",
            ]
            .contains(name)
            || ["SPECIAL-USE", "ESEARCH", "QRESYNC", "CONDSTORE", "OBJECTID"].contains(name)
    };
    let names: Vec<&str> = capabilities.names().into_iter().filter(matters).collect();
    if names.is_empty() {
        "none that popgate makes use of".to_owned()
    } else {
        names.join(" ")
    }
}

fn tls_advice(error: &UpstreamError) -> &'static str {
    let seen = error.to_string();
    certificate_advice(&seen).unwrap_or(if seen.contains("STARTTLS") {
        "the server offers no STARTTLS: use imaps://, or imap+plain:// on a trusted network"
    } else {
        "check the scheme and port in `upstream`: imaps:// speaks TLS at once (993), imap+starttls:// later (143)"
    })
}

fn login_advice(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Authentication => {
            "the mail server does not accept this user and password: try them in a mail program; some providers want an app password"
        }
        UpstreamError::Misconfigured(_) => {
            "the server has no login that popgate can use here: look at its AUTH= capabilities, LOGINDISABLED, and the user's rights"
        }
        UpstreamError::InUse(_) => "the server limits connections: close some, or raise its limit",
        _ => "the mail server has trouble of its own: try again, and look at its log",
    }
}

fn mailbox_advice(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Misconfigured(_) => {
            "choose another `delete` policy (trash, expunge, refuse), or make what it needs"
        }
        _ => "the mail server could not open or list INBOX: look at its log",
    }
}
