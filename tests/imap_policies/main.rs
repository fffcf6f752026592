//! What the policies do at an IMAP server, seen from the seam on one side and
//! by another client on the other: on Dovecot, Cyrus and Courier, and on
//! scripted servers that lack things or break off.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod deletion;
mod faults;
mod folders;
mod listing;
mod marks;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use popgate::maildrop::{DeletePolicy, FolderName, Maildrop, Policy, Portion, Update};
use popgate::sasl::Credentials;
use popgate::store::Store;
use popgate::upstream::imap::Imap;
use popgate::upstream::{Upstream, UpstreamError, UpstreamSession};

use support::servers::{Courier, Cyrus, Dovecot, MailServer};
use support::{ImapClient, ScriptedImap, Stored, TempStore, imap_config, messages};

type Session = Box<dyn UpstreamSession>;

/// A server and popgate's upstream in front of it.
struct Rig {
    server: Server,
    upstream: Imap,
}

enum Server {
    Dovecot(Dovecot),
    Cyrus(Cyrus),
    Courier(Courier),
}

impl Server {
    fn get(&self) -> &MailServer {
        match self {
            Self::Dovecot(server) => server,
            Self::Cyrus(server) => server,
            Self::Courier(server) => server,
        }
    }
}

fn upstream(url: &str, store: Option<Store>) -> Imap {
    Imap::new(imap_config(url), store)
}

impl Rig {
    fn new(server: Server, store: Option<Store>) -> Self {
        let upstream = upstream(&server.get().plain_url(), store);
        Self { server, upstream }
    }

    fn dovecot(store: Option<Store>) -> Option<Self> {
        Some(Self::new(Server::Dovecot(Dovecot::start()?), store))
    }

    /// Each of the servers that were fetched.
    fn all() -> impl Iterator<Item = (Self, TempStore)> {
        let servers: [fn() -> Option<Server>; 3] = [
            || Dovecot::start().map(Server::Dovecot),
            || Cyrus::start().map(Server::Cyrus),
            || Courier::start().map(Server::Courier),
        ];
        servers.into_iter().filter_map(|start| {
            let store = TempStore::new();
            let rig = Self::new(start()?, Some(store.clone()));
            eprintln!("server: {}", rig.name());
            Some((rig, store))
        })
    }

    fn name(&self) -> &'static str {
        match self.server {
            Server::Dovecot(_) => "Dovecot",
            Server::Cyrus(_) => "Cyrus",
            Server::Courier(_) => "Courier",
        }
    }

    /// A mailbox as the server names it.
    fn mailbox(&self, name: &str) -> String {
        match self.server {
            Server::Courier(_) if name != "INBOX" => format!("INBOX.{}", name.replace('/', ".")),
            _ => name.to_owned(),
        }
    }

    fn client(&self) -> ImapClient {
        self.server.get().imap("alice")
    }

    fn create(&self, name: &str) {
        let mailbox = self.mailbox(name);
        self.client().command(&format!("CREATE \"{mailbox}\""));
    }

    /// Delivers plain messages.
    fn deliver(&self, name: &str, numbers: std::ops::RangeInclusive<usize>) {
        let mut client = self.client();
        let mailbox = format!("\"{}\"", self.mailbox(name));
        for number in numbers {
            client.append(&mailbox, &messages::plain(number, 300));
        }
    }

    fn held(&self, name: &str) -> Vec<Stored> {
        self.client().dump(&format!("\"{}\"", self.mailbox(name)))
    }

    fn open(&self, policy: &Policy) -> (Session, Maildrop) {
        run(try_open(&self.upstream, policy)).unwrap()
    }

    #[track_caller]
    fn refused(&self, policy: &Policy, words: &str) {
        assert_refused(&self.upstream, policy, words);
    }
}

/// The login is refused, in words that name what is to be changed.
#[track_caller]
fn assert_refused(upstream: &Imap, policy: &Policy, words: &str) {
    match run(try_open(upstream, policy)) {
        Err(UpstreamError::Misconfigured(reason) | UpstreamError::NoFolder(reason)) => {
            assert!(reason.as_str().contains(words), "{reason}");
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("not refused"),
    }
}

async fn try_open(upstream: &Imap, policy: &Policy) -> Result<(Session, Maildrop), UpstreamError> {
    let credentials = Credentials::password("alice", "pw-alice").unwrap();
    let nobody = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let policy = Arc::new(policy.clone());
    let mut session = upstream.login(credentials, nobody, policy).await?;
    session.folders().await?;
    let maildrop = session.snapshot().await?;
    Ok((session, maildrop))
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
}

fn run<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(work))
}

fn policy(delete: DeletePolicy) -> Policy {
    Policy {
        delete,
        ..Policy::default()
    }
}

fn folders(names: &[&str]) -> Policy {
    Policy {
        folders: names.iter().map(|name| folder(name)).collect(),
        ..Policy::default()
    }
}

fn folder(name: &str) -> FolderName {
    name.parse().unwrap()
}

fn unique_ids(maildrop: &Maildrop) -> Vec<String> {
    let ids = maildrop.iter().map(|message| message.unique_id.to_owned());
    ids.collect()
}

/// RETR, where it must succeed.
fn retrieve(session: &mut Session, message: usize) -> Vec<u8> {
    run(try_retrieve(session, message)).unwrap()
}

async fn try_retrieve(session: &mut Session, message: usize) -> Result<Vec<u8>, UpstreamError> {
    let mut octets = Vec::new();
    {
        let mut body = session.retrieve(message, Portion::Whole).await?;
        while let Some(chunk) = body.chunk().await? {
            octets.extend_from_slice(&chunk);
        }
    }
    session.delivered(message, octets.len() as u64).await;
    Ok(octets)
}

/// DELE and QUIT, where it must succeed entirely.
#[track_caller]
fn delete(session: &mut Session, messages: &[usize]) {
    let update = Update::new(messages.to_vec());
    let outcome = run(session.update(&update)).unwrap();
    assert_eq!(outcome.removed, messages);
    assert_eq!((outcome.remaining, outcome.expired), (vec![], vec![]));
    run(session.close());
}

/// QUIT with nothing deleted.
fn quit(mut session: Session, retrieved: &[usize]) {
    let update = Update::with_retrieved(Vec::new(), retrieved.to_vec());
    run(session.update(&update)).unwrap();
    run(session.close());
}

fn numbers(stored: &[Stored]) -> Vec<usize> {
    stored.iter().map(|it| number(&it.octets)).collect()
}

/// The number of a plain message.
fn number(octets: &[u8]) -> usize {
    let text = String::from_utf8_lossy(octets);
    let (_, rest) = text.split_once("Subject: message ").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// Of messages, those that have a flag.
fn with_flag(stored: &[Stored], flag: &str) -> Vec<usize> {
    let has = |it: &&Stored| it.flags.iter().any(|set| set.eq_ignore_ascii_case(flag));
    let flagged: Vec<Stored> = stored.iter().filter(has).cloned().collect();
    numbers(&flagged)
}

fn scripted(server: &ScriptedImap, store: Option<Store>) -> Imap {
    upstream(&server.plain_url(), store)
}
