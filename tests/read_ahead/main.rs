//! Messages that are fetched before they are asked for: whatever a server makes
//! of many commands at once, each message is the one that was asked for, whole,
//! and what is fetched in vain is bounded.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod failing;
mod orders;
mod patterns;
mod servers;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use popgate::maildrop::{DeletePolicy, Policy, Portion, Update};
use popgate::metrics::{Ahead, Metrics};
use popgate::sasl::Credentials;
use popgate::upstream::imap::{Config, Imap};
use popgate::upstream::{ReadAhead, Upstream, UpstreamError, UpstreamSession};

use support::scripted_imap::{Command, World};
use support::{PATIENCE, ScriptedImap, imap_config, messages};

type Session = Box<dyn UpstreamSession>;

/// popgate's upstream, in front of a server.
struct Rig {
    imap: Imap,
    metrics: Arc<Metrics>,
}

impl Rig {
    fn new(url: &str) -> Self {
        Self::with(url, |_| {})
    }

    fn with(url: &str, change: impl FnOnce(&mut Config)) -> Self {
        let metrics = Arc::new(Metrics::new());
        let mut config = imap_config(url);
        change(&mut config);
        let imap = Imap::new(config, None).counting(Arc::clone(&metrics));
        Self { imap, metrics }
    }

    fn open(&self) -> Session {
        self.open_under(&Policy::default())
    }

    fn open_under(&self, policy: &Policy) -> Session {
        let credentials = Credentials::password("alice", "pw-alice").unwrap();
        let nobody = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let policy = Arc::new(policy.clone());
        run(async {
            let mut session = self.imap.login(credentials, nobody, policy).await.unwrap();
            session.folders().await.unwrap();
            session.snapshot().await.unwrap();
            session
        })
    }

    fn used(&self) -> u64 {
        self.metrics.read_ahead.get_or_create(&Ahead::Used).get()
    }

    fn wasted(&self) -> u64 {
        self.metrics.read_ahead.get_or_create(&Ahead::Wasted).get()
    }
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

fn try_portion(
    session: &mut Session,
    message: usize,
    portion: Portion,
) -> Result<Vec<u8>, UpstreamError> {
    run(async {
        let mut octets = Vec::new();
        let mut body = session.retrieve(message, portion).await?;
        while let Some(chunk) = body.chunk().await? {
            octets.extend_from_slice(&chunk);
        }
        Ok(octets)
    })
}

fn try_retrieve(session: &mut Session, message: usize) -> Result<Vec<u8>, UpstreamError> {
    let octets = try_portion(session, message, Portion::Whole)?;
    run(session.delivered(message, octets.len() as u64));
    Ok(octets)
}

/// RETR of messages that must come as they are.
#[track_caller]
fn assert_retrieved(
    session: &mut Session,
    all: &[Vec<u8>],
    messages: impl IntoIterator<Item = usize>,
) {
    for message in messages {
        let octets = try_retrieve(session, message).unwrap();
        assert!(octets == all[message], "message {message}");
    }
}

fn quit(mut session: Session, delete: Vec<usize>) {
    let outcome = run(session.update(&Update::new(delete.clone()))).unwrap();
    assert_eq!(outcome.removed, delete);
    run(session.close());
}

fn expunging() -> Policy {
    Policy {
        delete: DeletePolicy::Expunge,
        ..Policy::default()
    }
}

/// Messages unlike each other, of about so many octets.
fn mails(count: usize, octets: usize) -> Vec<Vec<u8>> {
    (1..=count)
        .map(|number| messages::plain(number, octets + number))
        .collect()
}

/// The UID of a command that fetches text.
fn text_of(command: &Command) -> Option<u32> {
    let (uid, items) = command.arguments.split_once(' ')?;
    items.contains("BODY.PEEK[").then(|| uid.parse().unwrap())
}

/// A response with the whole text of a message.
fn fetched(world: &mut World, uid: u32) -> Vec<u8> {
    let message = world.inbox().message(uid).unwrap();
    let start = format!(
        "* {uid} FETCH (UID {uid} BODY[] {{{}}}\r\n",
        message.octets.len()
    );
    [start.as_bytes(), &message.octets, b")\r\n"].concat()
}

/// Waits until the server has read so many commands for text.
fn wait_for_fetches(server: &ScriptedImap, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while fetches(server) < count {
        assert!(Instant::now() < deadline, "{:?}", server.commands());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn fetches(server: &ScriptedImap) -> usize {
    let fetches = server.commands_starting("UID FETCH").into_iter();
    fetches.filter(|line| line.contains("BODY.PEEK[")).count()
}
