//! What the cases need of a mailbox service, and how they use the seam.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;

use popgate::maildrop::{DeletePolicy, Maildrop, MessageIndex, Policy, Portion, Update};
use popgate::sasl::Credentials;
use popgate::upstream::{Upstream, UpstreamError, UpstreamSession};

/// A mailbox service with one account, and its other clients.
///
/// Only [`Subject::upstream`] is the thing under test; all else goes around it.
pub trait Subject: Sync {
    /// The service as popgate sees it, under a policy.
    fn upstream(&self, delete: &DeletePolicy) -> Service;

    /// The account's user name and, now, its password.
    fn account(&self) -> (String, String);

    /// Gives the account another password.
    fn change_password(&self, password: &str) -> Changed;

    /// Empties the inbox and the Trash.
    fn clear(&self);

    /// Delivers messages to the inbox, one after the other.
    fn deliver(&self, messages: &[Vec<u8>]);

    /// Delivers [`plain`] messages from 1 on to an empty inbox, the fastest way.
    fn fill(&self, count: usize) {
        self.deliver(&plain(1..=count));
    }

    /// All that is in the inbox, in the order of arrival. Changes nothing.
    fn inbox(&self) -> Vec<Held>;

    /// All that is in the Trash; nothing where there is none.
    fn trash(&self) -> Vec<Held>;

    /// What is done to the inbox by another client, once and at once.
    fn other_client(&self, change: Change, ids: &[&str]);

    /// Another client that can be at work while a session is.
    fn other_session(&self) -> Other;

    /// Whether another client can mark a message as deleted and leave it there.
    fn can_mark_deleted(&self) -> bool;

    /// The policies that this service can carry out.
    fn policies(&self) -> &[DeletePolicy];

    /// Whether a message under `TrashIfThere` comes to lie in the Trash.
    fn has_trash(&self) -> bool;

    /// Whether a message with NUL can be delivered; the service may change it.
    fn takes_nul(&self) -> bool;

    /// Whether a session may go on reading a message that another client has
    /// removed, for as long as it was not told of that (RFC 2180 §4.1).
    fn keeps_what_was_removed(&self) -> bool;

    /// Whether the service can send a part of a message and no more.
    fn sends_parts(&self) -> bool {
        true
    }

    /// Octets that the service has sent to popgate so far.
    fn received(&self) -> u64;
}

/// The thing under test, and the policies of who logs in.
pub struct Service {
    pub upstream: Arc<dyn Upstream>,
    pub policy: Arc<Policy>,
}

impl Service {
    /// Logs in and finds the folders.
    pub async fn login(
        &self,
        credentials: Credentials,
        client: IpAddr,
    ) -> Result<Session, UpstreamError> {
        let policy = Arc::clone(&self.policy);
        let mut session = self.upstream.login(credentials, client, policy).await?;
        session.folders().await?;
        Ok(session)
    }
}

/// What came of [`Subject::change_password`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    Done,
    /// Accounts are fixed here.
    Cannot,
}

/// What another client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Removes messages for good.
    Remove,
    /// Moves messages to the Trash, or to any other mailbox.
    MoveAway,
    /// Marks messages as deleted and leaves them there.
    MarkDeleted,
    /// Marks messages as seen and flagged.
    Flag,
}

/// Does something to the inbox each time it is called: adds, flags, removes
/// what it added. For a thread of its own.
pub type Other = Box<dyn FnMut() + Send>;

/// A message as the service holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// What the service calls it.
    pub id: String,
    /// Flags or keywords, sorted.
    pub flags: Vec<String>,
    pub octets: Vec<u8>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let octets = self.octets.len();
        write!(f, "{} {:?} ({octets} octets)", self.id, self.flags)
    }
}

/// Cases with their names.
pub type Cases = &'static [(&'static str, Case)];
pub type Case = for<'a> fn(&'a dyn Subject) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Names async functions as [`Cases`].
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        &[$((stringify!($case), |subject| Box::pin($case(subject)))),*]
    };
}
pub(crate) use cases;

pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub type Session = Box<dyn UpstreamSession>;

/// The credentials of the subject's account.
pub fn credentials(subject: &dyn Subject) -> Credentials {
    let (user, password) = subject.account();
    Credentials::password(&user, &password).unwrap()
}

/// Logs in and lists.
pub async fn try_open(
    subject: &dyn Subject,
    upstream: &Service,
) -> Result<(Session, Maildrop), UpstreamError> {
    let mut session = upstream.login(credentials(subject), CLIENT).await?;
    let maildrop = session.snapshot().await?;
    Ok((session, maildrop))
}

/// The same, where it must succeed.
pub async fn open(subject: &dyn Subject, delete: &DeletePolicy) -> (Session, Maildrop) {
    let upstream = subject.upstream(delete);
    try_open(subject, &upstream).await.unwrap()
}

/// The listing alone.
pub async fn listing(subject: &dyn Subject) -> Maildrop {
    let (mut session, maildrop) = open(subject, &DeletePolicy::Refuse).await;
    session.close().await;
    maildrop
}

/// Reads a message, or the first part of it, to the end.
pub async fn read(
    session: &mut Session,
    message: MessageIndex,
    portion: Portion,
) -> Result<Vec<u8>, UpstreamError> {
    let mut body = session.retrieve(message, portion).await?;
    let announced = body.announced();
    let mut octets = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        octets.extend_from_slice(&chunk);
    }
    if let (Portion::Whole, Some(announced)) = (portion, announced) {
        assert_eq!(announced, octets.len() as u64, "announced");
    }
    // The end stays the end.
    assert!(matches!(body.chunk().await, Ok(None)));
    Ok(octets)
}

/// RETR, TOP of a message that was `octets` and that another client removed.
pub async fn assert_gone(
    subject: &dyn Subject,
    session: &mut Session,
    message: MessageIndex,
    octets: &[u8],
) {
    for portion in [
        Portion::Whole,
        Portion::Top { lines: 0 },
        Portion::Top { lines: 10 },
    ] {
        match read(session, message, portion).await {
            Err(UpstreamError::Gone) => {}
            Ok(found) if subject.keeps_what_was_removed() => {
                assert!(octets.starts_with(&found), "{portion:?}: another message");
            }
            Ok(_) => panic!("{portion:?}: read what was removed"),
            Err(error) => panic!("{portion:?}: {error:?}"),
        }
    }
}

/// RETR, where it must succeed.
pub async fn whole(session: &mut Session, message: MessageIndex) -> Vec<u8> {
    read(session, message, Portion::Whole).await.unwrap()
}

/// DELE of these and QUIT, where it must succeed entirely.
pub async fn remove(session: &mut Session, messages: &[MessageIndex]) {
    let outcome = session
        .update(&Update::new(messages.to_vec()))
        .await
        .unwrap();
    assert_eq!(outcome.removed, messages);
    assert!(outcome.remaining.is_empty());
}

/// The unique ids, in order.
pub fn unique_ids(maildrop: &Maildrop) -> Vec<String> {
    maildrop
        .iter()
        .map(|message| message.unique_id.to_owned())
        .collect()
}

/// What is held is, in order, these messages.
#[track_caller]
pub fn assert_holds(held: &[Held], messages: &[impl AsRef<[u8]>]) {
    assert_eq!(held.len(), messages.len(), "messages");
    for (at, (held, message)) in held.iter().zip(messages).enumerate() {
        assert_same_octets(&held.octets, message.as_ref(), &format!("message {at}"));
    }
}

/// Octets of a [`plain`] message, about.
pub const PLAIN: usize = 600;

/// Short messages, each unlike any other.
pub fn plain(numbers: std::ops::RangeInclusive<usize>) -> Vec<Vec<u8>> {
    numbers
        .map(|number| crate::support::messages::plain(number, PLAIN))
        .collect()
}

/// Compares, and where two messages differ says only where.
#[track_caller]
pub fn assert_same_octets(found: &[u8], expected: &[u8], what: &str) {
    if found != expected {
        let at = found.iter().zip(expected).position(|(a, b)| a != b);
        let (found, expected) = (found.len(), expected.len());
        panic!("{what}: {found} octets instead of {expected}, different at {at:?}");
    }
}
