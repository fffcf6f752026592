//! `popgate check`: the way to a JMAP mailbox, step by step, in words for an
//! operator. It changes nothing upstream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::api::Api;
use super::config::Config;
use super::http::Http;
use super::listing::{self, Wanted};
use super::mailboxes::{self, Mailboxes};
use super::messages::{Listed, Making, Messages};
use super::refresh::Rider;
use super::{session, terms};
use crate::maildrop::{DeletePolicy, Policy};
use crate::sasl::Credentials;
use crate::store::Kept;
use crate::upstream::finding::certificate_advice;
use crate::upstream::{Finding, UpstreamError, calendar};

/// Walks from DNS to the listing of the inbox and tells of each step. Without
/// credentials it ends behind the connection: JMAP shows nothing to strangers.
/// Returns whether all is well; behind a bad step there is no further one.
pub async fn diagnose(
    config: &Config,
    policy: &Policy,
    credentials: Option<&Credentials>,
    mut tell: impl FnMut(&'static str, Finding),
) -> bool {
    match walk(config, policy, credentials, &mut tell).await {
        Ok(()) => true,
        Err((step, finding)) => {
            tell(step, finding);
            false
        }
    }
}

async fn walk(
    config: &Config,
    policy: &Policy,
    credentials: Option<&Credentials>,
    tell: &mut impl FnMut(&'static str, Finding),
) -> Result<(), (&'static str, Finding)> {
    let bad = |step: &'static str, seen: String, advice: &str| {
        (
            step,
            Finding::Bad {
                seen,
                advice: advice.to_owned(),
            },
        )
    };
    let host = config.resource.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = config.resource.port_or_known_default().unwrap_or(443);
    let found = timeout(config.timeouts.connect, lookup_host((host, port))).await;
    let Ok(Ok(found)) = found else {
        let advice = "check the host name in `upstream`, and the name server of this machine";
        return Err(bad("DNS", format!("{host} is not found"), advice));
    };
    let addresses: Vec<String> = found.map(|address| address.ip().to_string()).collect();
    tell(
        "DNS",
        Finding::Good(format!("{host} is {}", addresses.join(", "))),
    );

    let connect = TcpStream::connect((host, port));
    let connected = match timeout(config.timeouts.connect, connect).await {
        Ok(connected) => connected.map_err(|error| error.to_string()),
        Err(_) => Err("no connection in time".to_owned()),
    };
    let stream = connected.map_err(|seen| {
        let advice = "check the port in `upstream`, that the server runs, and any firewall between";
        bad("TCP", seen, advice)
    })?;
    tell("TCP", Finding::Good(format!("port {port} answers")));
    tell(
        "TLS",
        shake_hands(config, host, stream).await.map_err(|seen| {
            let advice = tls_advice(&seen);
            bad("TLS", seen, advice)
        })?,
    );

    let Some(credentials) = credentials else {
        let told = "not tried: name a user to check the login and the mailbox".to_owned();
        tell("login", Finding::Warning(told));
        return Ok(());
    };
    let explain =
        |step: &'static str, error: UpstreamError| bad(step, error.to_string(), advice(&error));
    let config_of_http = Arc::new(config.clone());
    let http = Http::new(config_of_http, Arc::default(), Arc::default(), credentials)
        .map_err(|error| explain("login", error))?;
    let resource = session::fetch(&http, config, credentials, policy.shared.as_deref())
        .await
        .map_err(|error| match error {
            UpstreamError::Authentication => explain("login", error),
            error => explain("session", error),
        })?;
    tell(
        "login",
        Finding::Good(format!("{} is let in", credentials.user().escape_debug())),
    );
    let limits = resource.limits;
    tell(
        "session",
        Finding::Good(format!(
            "account {:?}; {} objects in a get, {} in a set, {} requests at a time",
            resource.account,
            limits.objects_in_get,
            limits.objects_in_set,
            limits.concurrent_requests
        )),
    );
    if resource.read_only && terms::needs_write(policy) {
        let advice = "set delete = \"refuse\", or make the account writable";
        return Err(bad(
            "session",
            "the account is read-only".to_owned(),
            advice,
        ));
    }
    let api = Api::new(http, resource);
    terms::check_unique_ids(policy).map_err(|error| explain("unique ids", error))?;
    // Whether there is a store does not show here: what needs it is said.
    let mailboxes = mailboxes::find(&api, policy, true, &mut Rider::new(None))
        .await
        .map_err(|error| explain("mailbox", error))?;
    let folders: Vec<&str> = mailboxes
        .sources
        .iter()
        .map(|source| source.folder.as_str())
        .collect();
    let folders = folders.join(", ");
    let removal = deletion(policy, &mailboxes);
    tell(
        "mailbox",
        Finding::Good(format!("{folders}; deleted messages {removal}")),
    );
    for needed in needs_store(policy, &mailboxes) {
        tell("store", Finding::Warning(needed));
    }
    list(&api, config, policy, &mailboxes, tell)
        .await
        .map_err(|error| explain("listing", error))
}

/// Lists the folders and tells of each.
async fn list(
    api: &Api,
    config: &Config,
    policy: &Policy,
    mailboxes: &Mailboxes,
    tell: &mut impl FnMut(&'static str, Finding),
) -> Result<(), UpstreamError> {
    let mut all = Vec::new();
    for source in &mailboxes.sources {
        let began = Instant::now();
        let wanted = Wanted {
            mailbox: &source.id,
            most: config.limits.messages,
            expected: source.total,
            keywords: policy.delete == DeletePolicy::Hide && policy.shared.is_none(),
        };
        let (listed, _) = listing::list(api, wanted).await?;
        let octets: u64 = listed.iter().map(|email| email.size).sum();
        let told = format!(
            "{}: {} messages, {octets} octets, in {} ms",
            source.folder,
            listed.len(),
            began.elapsed().as_millis()
        );
        tell("listing", Finding::Good(told));
        all.push(listed);
    }
    let kept = vec![Kept::default(); all.len()];
    let policy = Policy {
        folders: mailboxes
            .sources
            .iter()
            .map(|it| it.folder.clone())
            .collect(),
        ..policy.clone()
    };
    let making = Making {
        policy: &policy,
        sources: &mailboxes.sources,
        kept: &kept,
        sizes: &HashMap::new(),
        now: calendar::now(),
    };
    let (_, maildrop) = Messages::assemble(Listed::new(all)?, &making)?;
    if let Some(first) = maildrop.get(0) {
        let told = format!(
            "{} messages are shown; the first unique id is {}",
            maildrop.len(),
            first.unique_id
        );
        tell("maildrop", Finding::Good(told));
    }
    Ok(())
}

/// What becomes of deleted messages.
fn deletion(policy: &Policy, mailboxes: &Mailboxes) -> String {
    match &policy.delete {
        DeletePolicy::Refuse => "stay: deletion is refused (read-only)".to_owned(),
        DeletePolicy::Trash => "are moved to the Trash".to_owned(),
        DeletePolicy::TrashIfThere if mailboxes.trash.is_some() => {
            "are moved to the Trash".to_owned()
        }
        DeletePolicy::TrashIfThere | DeletePolicy::Expunge => {
            "are destroyed: gone for good".to_owned()
        }
        DeletePolicy::Archive => "are moved to the Archive".to_owned(),
        DeletePolicy::Move(folder) => format!("are moved to {folder}"),
        DeletePolicy::Seen => "stay, and are marked as read".to_owned(),
        DeletePolicy::Hide => "stay, and are not shown to this login again".to_owned(),
    }
}

/// What is kept in the store, which has to be there.
fn needs_store(policy: &Policy, mailboxes: &Mailboxes) -> Vec<String> {
    let mut needed = Vec::new();
    if policy.delete == DeletePolicy::Hide {
        for source in mailboxes.sources.iter().filter(|it| !it.has_keywords) {
            needed.push(format!(
                "what is hidden of {} is kept here, not upstream: --state must be set",
                source.folder
            ));
        }
    }
    if policy.expire_after.is_some() {
        let told = "expire_after keeps here what was retrieved when: --state must be set";
        needed.push(told.to_owned());
    }
    needed
}

/// A handshake for its own sake: nothing is sent over it.
async fn shake_hands(config: &Config, host: &str, stream: TcpStream) -> Result<Finding, String> {
    if config.resource.scheme() == "http" {
        let told = "none: loopback, where nobody else can listen".to_owned();
        return Ok(Finding::Warning(told));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::clone(&config.tls));
    let shaken = timeout(config.timeouts.connect, connector.connect(name, stream)).await;
    match shaken {
        Ok(Ok(_)) => Ok(Finding::Good(format!(
            "the certificate is valid for {host}"
        ))),
        Ok(Err(error)) => Err(match error.get_ref() {
            Some(inner) => format!("{inner:?}").chars().take(160).collect(),
            None => error.to_string(),
        }),
        Err(_) => Err("no handshake in time".to_owned()),
    }
}

fn tls_advice(seen: &str) -> &'static str {
    certificate_advice(seen)
        .unwrap_or("check the port in `upstream`: it must speak TLS (https, usually port 443)")
}

fn advice(error: &UpstreamError) -> &'static str {
    let text = error.to_string();
    let says = |words: &str| text.contains(words);
    match error {
        UpstreamError::Authentication => {
            "the server does not accept this user and password: try them elsewhere; some providers want an app password or a token"
        }
        UpstreamError::Misconfigured(_) if says("TLS") => tls_advice(&text),
        _ if says("trusted_hosts") => {
            "if that host is the provider's own, add it to `trusted_hosts`: it will see the credentials"
        }
        _ if says("session resource") => {
            "check the path in `upstream`: it must be the JMAP session resource, often /.well-known/jmap or /jmap/session"
        }
        _ if says("no folder") => {
            "check the name: levels are separated by /, and upper and lower case differ"
        }
        _ if says("is shared") => {
            "share the mailbox upstream first, and give its owner's name as the server does"
        }
        _ if says("unique_ids") => "change `unique_ids`",
        UpstreamError::Misconfigured(_) => {
            "the account, its rights or the policy (`delete`, `seen`, `expire_after`) has to be changed"
        }
        _ => {
            "the server has trouble of its own, or does not speak JMAP here: try again, and look at its log"
        }
    }
}
