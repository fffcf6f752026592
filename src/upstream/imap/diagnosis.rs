//! `popgate check`: the way to an IMAP mailbox, step by step, in words for an
//! operator. It changes nothing upstream.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant as Clock;

use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};

use super::config::{Config, Security};
use super::disposal::{Disposal, Mark};
use super::fetch::HIDDEN;
use super::login::{Capabilities, Greeted, LoggedIn};
use super::session::{ImapSession, Place};
use super::{transport, utf7};
use crate::maildrop::{Policy, SeenPolicy};
use crate::sasl::Credentials;
use crate::upstream::finding::certificate_advice;
use crate::upstream::snapshots::Snapshots;
use crate::upstream::{Finding, UpstreamError, UpstreamSession as _};

/// Walks from DNS to the listing of the mailbox, or to the capabilities where
/// there are no credentials, and tells of each step. Returns whether all is
/// well; behind a bad step there is no further one. `has_store`: sessions have a
/// store, which is not looked into here.
pub async fn diagnose(
    config: &Config,
    policy: &Policy,
    has_store: bool,
    credentials: Option<&Credentials>,
    mut tell: impl FnMut(&'static str, Finding),
) -> bool {
    let failed = walk(config, policy, has_store, credentials, &mut tell)
        .await
        .err();
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
    has_store: bool,
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
    let LoggedIn {
        connection,
        capabilities,
        ..
    } = logged_in.map_err(|error| bad("login", error.to_string(), login_advice(&error)))?;
    tell(
        "login",
        Finding::Good(format!("{} is let in", credentials.user().escape_debug())),
    );
    tell("capabilities", Finding::Good(listed(&capabilities)));

    let place = Place {
        config: Arc::new(config.clone()),
        shared: Arc::default(),
        store: None,
        snapshots: Arc::new(Snapshots::new(None, &config.name)),
        has_store,
        policy: Arc::new(policy.clone()),
        metrics: Arc::default(),
    };
    let nobody = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut session =
        ImapSession::over(place, credentials.clone(), nobody, connection, capabilities);
    let walked = mailbox(&mut session, policy, tell).await;
    session.close().await;
    walked.map_err(|(step, error)| bad(step, error.to_string(), mailbox_advice(&error)))
}

/// Finds, opens and lists the folders, and tells what the policies come to.
async fn mailbox(
    session: &mut ImapSession,
    policy: &Policy,
    tell: &mut impl FnMut(&'static str, Finding),
) -> Result<(), (&'static str, UpstreamError)> {
    let began = Clock::now();
    let names = session
        .folders()
        .await
        .map_err(|error| ("folders", error))?;
    let maildrop = session
        .snapshot()
        .await
        .map_err(|error| ("mailbox", error))?;
    let took = began.elapsed().as_millis();
    let mut counts = vec![0usize; names.len()];
    for message in 0..maildrop.len() {
        let place = session.place(message).map_or(0, |(folder, _)| folder);
        if let Some(count) = counts.get_mut(place) {
            *count += 1;
        }
    }
    for (folder, count) in session.folders.iter().zip(counts) {
        let deletion = match &folder.disposal {
            Disposal::Move(target) => format!("deleted messages are moved to {:?}", shown(target)),
            Disposal::CopyThenExpunge(target) => {
                let target = shown(target);
                format!("deleted messages are copied to {target:?}, then expunged")
            }
            Disposal::Expunge => "deleted messages are expunged: gone for good".to_owned(),
            Disposal::Mark(Mark::Seen) => {
                "deleted messages are marked as read, and stay".to_owned()
            }
            Disposal::Mark(Mark::Hidden) => {
                format!("deleted messages stay, hidden by the keyword {HIDDEN}")
            }
            Disposal::Store => "deleted messages stay, hidden by popgate's own store".to_owned(),
            Disposal::Never => "deletion is refused (read-only)".to_owned(),
        };
        tell(
            "mailbox",
            Finding::Good(format!(
                "{}, UIDVALIDITY {}, {count} messages; {deletion}",
                shown(&folder.name),
                folder.uid_validity
            )),
        );
    }
    let octets: u64 = maildrop.iter().map(|message| message.octets).sum();
    let mut told = format!("{} messages, {octets} octets, in {took} ms", maildrop.len());
    if let Some(first) = maildrop.get(0) {
        told.push_str(&format!("; the first unique id is {}", first.unique_id));
    }
    tell("listing", Finding::Good(told));
    if policy.seen != SeenPolicy::Never || policy.expire_after.is_some() {
        let seen = match policy.seen {
            SeenPolicy::Never => None,
            SeenPolicy::OnRetr => Some("retrieved messages are marked as read at once".to_owned()),
            SeenPolicy::OnQuit => Some("retrieved messages are marked as read at QUIT".to_owned()),
        };
        let expiry = policy.expire_after.map(|after| {
            let days = after.as_secs() / 86_400;
            format!("retrieved messages go to the Trash after {days} days")
        });
        let told: Vec<String> = seen.into_iter().chain(expiry).collect();
        tell("policies", Finding::Good(told.join("; ")));
    }
    Ok(())
}

/// The name of a mailbox, for reading.
fn shown(name: &str) -> String {
    let name = utf7::decode(name).unwrap_or_else(|| name.to_owned());
    name.chars().filter(|c| !c.is_control()).take(100).collect()
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
    let seen = error.to_string();
    let says = |words: &str| seen.contains(words);
    match error {
        UpstreamError::Misconfigured(_) if says("unique_ids") => {
            "choose another `unique_ids` format: dovecot, cyrus, courier and uw need nothing but UIDs"
        }
        UpstreamError::NoFolder(_) | UpstreamError::Misconfigured(_)
            if says("folder") || says("shared") =>
        {
            "check `folders` and `shared`: the names, as a mail program shows them, and the user's rights there"
        }
        UpstreamError::Misconfigured(_) if says("expire_after") || says("--state") => {
            "set `state` to a directory, and make a Trash; or leave the setting out"
        }
        UpstreamError::Misconfigured(_) => {
            "choose another `delete` policy (trash, expunge, archive, move:FOLDER, seen, hide, refuse), or make what it needs"
        }
        _ => "the mail server could not open or list the mailbox: look at its log",
    }
}
