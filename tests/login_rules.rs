//! What policies mean to sessions: which of them may be open at once, what QUIT
//! has to do, what a folder that is not there leads to. A gateway in the test's
//! own process, in front of an upstream that keeps a record.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use popgate::maildrop::{
    Maildrop, MaildropBuilder, MessageIndex, Outcome, Policy, Portion, SeenPolicy, UniqueId, Update,
};
use popgate::metrics::Metrics;
use popgate::sasl::{Credentials, Mechanism};
use popgate::server::Gateway;
use popgate::server::config::{Config, Limits, Listener, Security, Timeouts};
use popgate::server::policies::{Policies, Rules};
use popgate::store::{FolderKey, MessageKey};
use popgate::upstream::{Body, Upstream, UpstreamError, UpstreamSession};
use support::{PATIENCE, Pop3, only};
use tokio_util::sync::CancellationToken;

/// What an upstream was asked, in order.
type Record = Arc<Mutex<Vec<String>>>;

/// Everybody has INBOX, Junk and Archive there, and one message.
struct Fake(Record);

struct FakeSession {
    user: String,
    policy: Arc<Policy>,
    record: Record,
}

impl FakeSession {
    fn note(&self, what: &str) {
        let mut record = self.record.lock().unwrap();
        record.push(format!("{} {what}", self.user));
    }
}

#[async_trait]
impl Upstream for Fake {
    async fn login(
        &self,
        credentials: Credentials,
        _client: IpAddr,
        policy: Arc<Policy>,
    ) -> Result<Box<dyn UpstreamSession>, UpstreamError> {
        let session = FakeSession {
            user: credentials.user().to_owned(),
            policy,
            record: Arc::clone(&self.0),
        };
        session.note("login");
        Ok(Box::new(session))
    }

    fn accepts(&self, mechanism: Mechanism) -> bool {
        mechanism.takes_password()
    }

    fn name(&self) -> &str {
        "fake"
    }
}

struct Message(Option<Bytes>);

#[async_trait]
impl Body for Message {
    fn announced(&self) -> Option<u64> {
        Some(5)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        Ok(self.0.take())
    }

    async fn abandon(&mut self) {}
}

#[async_trait]
impl UpstreamSession for FakeSession {
    async fn folders(&mut self) -> Result<Vec<String>, UpstreamError> {
        let names = self.policy.folders.iter().map(|folder| {
            let asked = folder.as_str();
            let known = ["INBOX", "Junk", "Archive"].into_iter();
            let mut real = known.filter(|name| name.eq_ignore_ascii_case(asked));
            let missing = || UpstreamError::NoFolder("no such folder".into());
            let name = real.next().ok_or_else(missing)?;
            Ok(match self.policy.shared {
                Some(_) => format!("shared/team/{name}"),
                None => name.to_owned(),
            })
        });
        names.collect()
    }

    async fn snapshot(&mut self) -> Result<Maildrop, UpstreamError> {
        let mut maildrop = MaildropBuilder::with_capacity(1);
        maildrop.push(5, &UniqueId::of("1".to_owned())).unwrap();
        Ok(maildrop.build().unwrap())
    }

    async fn retrieve(
        &mut self,
        _message: MessageIndex,
        _portion: Portion,
    ) -> Result<Box<dyn Body + Send + '_>, UpstreamError> {
        Ok(Box::new(Message(Some(Bytes::from_static(b"\r\na\r\n")))))
    }

    fn kept_as(&self, _message: MessageIndex) -> Option<(FolderKey, MessageKey)> {
        None
    }

    async fn delivered(&mut self, message: MessageIndex, octets: u64) {
        self.note(&format!("delivered {message}, {octets} octets"));
    }

    async fn update(&mut self, update: &Update) -> Result<Outcome, UpstreamError> {
        self.note(&format!(
            "update {:?} {:?}",
            update.delete(),
            update.retrieved()
        ));
        if self.user == "unlucky" {
            return Err(UpstreamError::temporary("an outage"));
        }
        Ok(Outcome {
            removed: update.delete().to_vec(),
            ..Outcome::default()
        })
    }

    async fn close(&mut self) {
        self.note("close");
    }
}

struct InProcess {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    record: Record,
}

impl InProcess {
    fn start(policies: Policies, session_takeover: bool) -> Self {
        let address = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap()
        };
        let config = Config {
            listeners: vec![Listener {
                address,
                security: Security::Stls(None),
            }],
            allow_cleartext: true,
            policies,
            http_check: None,
            replace_nul: false,
            session_takeover,
            notice: false,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        };
        let (metrics, record) = (Arc::new(Metrics::new()), Record::default());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let upstream = Arc::new(Fake(Arc::clone(&record)));
        let gateway = Gateway::bind(config, only(upstream), None, Arc::clone(&metrics)).unwrap();
        let shutdown = CancellationToken::new();
        runtime.spawn(gateway.run(shutdown.clone()));
        Self {
            runtime,
            address,
            metrics,
            shutdown,
            record,
        }
    }

    fn login(&self, user: &str) -> Result<Pop3, String> {
        let mut client = Pop3::connect(self.address);
        client.expect_ok(&format!("USER {user}"));
        let reply = client.command("PASS x");
        if reply.starts_with("+OK") {
            Ok(client)
        } else {
            Err(reply)
        }
    }

    fn count(&self, metric: &str) -> Option<String> {
        let metrics = self.metrics.encode();
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(metric).map(|it| it.trim().to_owned()))
    }

    fn wait_for_metric(&self, line: &str) {
        let started = std::time::Instant::now();
        while !self.metrics.encode().contains(line) {
            let metrics = self.metrics.encode();
            assert!(started.elapsed() < PATIENCE, "no {line} in\n{metrics}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The record, once it holds this.
    fn wait_for(&self, entry: &str) -> Vec<String> {
        let started = std::time::Instant::now();
        loop {
            let record = self.record.lock().unwrap().clone();
            if record.iter().any(|it| it == entry) {
                return record;
            }
            assert!(started.elapsed() < PATIENCE, "no {entry} in {record:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        std::mem::replace(&mut self.runtime, runtime).shutdown_timeout(PATIENCE);
    }
}

fn rules(change: impl FnOnce(&mut Policy)) -> Rules {
    let mut policy = Policy::default();
    change(&mut policy);
    Rules {
        policy: Arc::new(policy),
        login_delay: None,
        ..Rules::default()
    }
}

fn of_account(name: &str, rules: Rules) -> Policies {
    Policies {
        accounts: HashMap::from([(name.to_owned(), rules)]),
        ..Policies::default()
    }
}

/// Alice's maildrop is two folders.
fn joined() -> Policies {
    let folders = || vec!["INBOX".parse().unwrap(), "junk".parse().unwrap()];
    of_account("alice", rules(|policy| policy.folders = folders()))
}

#[test]
fn a_folder_is_in_one_session_and_others_may_be_in_another() {
    let gateway = InProcess::start(Policies::default(), false);
    let _inbox = gateway.login("alice").unwrap();
    let _junk = gateway.login("alice+Junk").unwrap();
    let _archive = gateway.login("alice+archive").unwrap();
    let in_use = "-ERR [IN-USE] the maildrop is locked by another session";
    for again in [
        "Alice",
        "recent:alice",
        "alice+inbox",
        "alice+junk",
        "alice+Archive",
    ] {
        assert_eq!(
            gateway.login(again).err().as_deref(),
            Some(in_use),
            "{again}"
        );
    }
    let _other = gateway.login("bob+Archive").unwrap();
}

#[test]
fn folders_that_are_joined_are_locked_together() {
    let gateway = InProcess::start(joined(), false);
    let junk = gateway.login("alice+Junk").unwrap();
    assert!(gateway.login("alice").is_err());
    // Nothing is held by a login that got only a part.
    gateway.login("alice+INBOX").unwrap().quit();
    junk.quit();
    let _both = gateway.login("alice").unwrap();
    assert!(gateway.login("alice+Junk").is_err());
    assert!(gateway.login("alice+INBOX").is_err());
    let _neither = gateway.login("alice+Archive").unwrap();
}

#[test]
fn a_takeover_ends_every_session_that_is_in_the_way() {
    let gateway = InProcess::start(joined(), true);
    let mut inbox = gateway.login("alice+INBOX").unwrap();
    let mut junk = gateway.login("alice+Junk").unwrap();
    let mut archive = gateway.login("alice+Archive").unwrap();
    let mut both = gateway.login("alice").unwrap();
    for evicted in [&mut inbox, &mut junk] {
        assert!(!matches!(evicted.try_line(), Ok(Some(_))));
    }
    archive.expect_ok("NOOP");
    both.expect_ok("NOOP");
}

#[test]
fn a_shared_mailbox_is_one_maildrop_whoever_opens_it() {
    let shared = || rules(|policy| policy.shared = Some("Team".to_owned()));
    let mut policies = of_account("alice", shared());
    policies.accounts.insert("bob".to_owned(), shared());
    let gateway = InProcess::start(policies, false);
    let alice = gateway.login("alice").unwrap();
    for other in ["bob", "team"] {
        let refused = gateway.login(other).err().unwrap();
        assert!(refused.starts_with("-ERR [IN-USE]"), "{refused}");
    }
    let _junk = gateway.login("bob+Junk").unwrap();
    assert!(gateway.login("team+Junk").is_err());
    alice.quit();
    let _team = gateway.login("team").unwrap();
}

#[test]
fn a_folder_that_is_not_there() {
    let gateway = InProcess::start(Policies::default(), false);
    let refused = gateway.login("alice+Nowhere").err().unwrap();
    let text = "-ERR [SYS/PERM] there is no such folder, or it may not be read";
    assert_eq!(refused, text);
    let count = |metric: &str| gateway.count(metric);
    assert_eq!(
        count("popgate_logins_total{result=\"no_folder\"}").unwrap(),
        "1"
    );
    let errors = "popgate_upstream_errors_total{kind=\"misconfigured\"}";
    assert_eq!(count(errors).unwrap(), "1");
    gateway.login("alice").unwrap().quit();
}

#[test]
fn a_login_that_is_too_early_leaves_nothing_behind() {
    let delayed = Rules {
        login_delay: Some(Duration::from_secs(86_400)),
        ..Rules::default()
    };
    let gateway = InProcess::start(of_account("alice", delayed), false);
    gateway.login("alice").unwrap().quit();
    let mut client = Pop3::connect(gateway.address);
    client.expect_ok("USER alice");
    let refused = client.command("PASS another");
    assert!(refused.starts_with("-ERR [LOGIN-DELAY]"), "{refused}");
    gateway.wait_for_metric("popgate_upstream_connections 0\n");
    let record = gateway.wait_for("alice close");
    let closed = record.iter().filter(|it| *it == "alice close");
    assert_eq!(closed.count(), 2);
    assert_eq!(
        gateway
            .count("popgate_logins_total{result=\"too_early\"}")
            .unwrap(),
        "1"
    );
    // Other folders are other maildrops.
    gateway.login("alice+Junk").unwrap().quit();
}

#[test]
fn quit_tells_what_was_retrieved_only_where_that_matters() {
    let on_quit = rules(|policy| policy.seen = SeenPolicy::OnQuit);
    let gateway = InProcess::start(of_account("alice", on_quit), false);
    for user in ["alice", "bob"] {
        let mut client = gateway.login(user).unwrap();
        client.retrieve(1);
        assert_eq!(client.quit(), "+OK bye");
        gateway.wait_for(&format!("{user} close"));
    }
    let record = gateway.wait_for("alice delivered 0, 5 octets");
    assert!(
        record.contains(&"alice update [] [0]".to_owned()),
        "{record:?}"
    );
    assert!(
        !record.iter().any(|it| it.starts_with("bob update")),
        "{record:?}"
    );
}

#[test]
fn an_update_that_fails_matters_to_the_client_where_it_deleted() {
    let on_quit = rules(|policy| policy.seen = SeenPolicy::OnQuit);
    let gateway = InProcess::start(of_account("unlucky", on_quit), false);
    let mut client = gateway.login("unlucky").unwrap();
    client.retrieve(1);
    assert_eq!(client.quit(), "+OK bye");
    let failures = || gateway.count("popgate_upstream_errors_total{kind=\"temporary\"}");
    assert_eq!(failures().unwrap(), "1");
    let mut client = gateway.login("unlucky").unwrap();
    client.expect_ok("DELE 1");
    assert_eq!(client.quit(), "-ERR [SYS/TEMP] 1 messages not removed");
    assert_eq!(failures().unwrap(), "2");
    let record = gateway.wait_for("unlucky update [0] []");
    assert!(
        record.contains(&"unlucky update [] [0]".to_owned()),
        "{record:?}"
    );
}
