//! Logins of people with accounts of popgate's own, and of others beside them: who
//! judges them, where they end up, and what a guesser gets. A gateway in the test's
//! own process, with real accounts, in front of upstreams that keep a record.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod breaker;
mod guessing;
mod http;
mod logins;
mod notice;
mod realms;
mod upstreams;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use popgate::accounts::{
    Account, Accounts, Alarm, Config as AccountsConfig, Entry, Home, HttpCheckConfig, KeyRing,
    PlainTokens, Provider,
};
use popgate::metrics::Metrics;
use popgate::oauth2;
use popgate::secret::Secret;
use popgate::server::Gateway;
use popgate::server::config::{Config, Limits, Listener, Security, Timeouts};
use popgate::server::policies::{Judge, Login, Policies, Rules};
use popgate::store::{Access, Store};
use popgate::upstream::Upstreams;
use support::{PATIENCE, Pop3};
use tokio_util::sync::CancellationToken;
use upstreams::{Place, TokenServer};

/// What a client is told whose credentials are no good, whoever found out.
const WRONG: &str = "-ERR [AUTH] invalid user name or password";

/// A gateway with accounts.
struct World {
    runtime: Option<tokio::runtime::Runtime>,
    address: SocketAddr,
    accounts: Arc<Accounts>,
    metrics: Arc<Metrics>,
    /// The gateway's own upstream, and that of the provider `mail`.
    own: Arc<Place>,
    other: Arc<Place>,
    /// Gives the provider's tokens.
    tokens: TokenServer,
    store: Store,
    shutdown: CancellationToken,
    folder: tempfile::TempDir,
}

/// What is different in a test.
#[derive(Default)]
struct Setup {
    policies: Policies,
    notice: bool,
    /// The provider's mailboxes open by the token alone.
    opens_by_token: bool,
    /// Connections at once, where it is not as usual.
    connections: Option<usize>,
    /// Who judges passwords by HTTP.
    http: Option<url::Url>,
}

const OTHER: &str = "imaps://mail.example.net";

impl World {
    fn new() -> Self {
        Self::with(Setup::default())
    }

    fn with(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = Place::new("imaps://own.example.org", None, false);
        let other = Place::new(OTHER, Some(OTHER), setup.opens_by_token);
        Self::start(setup, folder, own, other, TokenServer::start())
    }

    /// The same once more, as after a restart.
    fn restarted(mut self, setup: Setup) -> Self {
        self.stop();
        let empty = tempfile::tempdir().unwrap();
        let folder = std::mem::replace(&mut self.folder, empty);
        let tokens = std::mem::replace(&mut self.tokens, TokenServer::start());
        let (own, other) = (Arc::clone(&self.own), Arc::clone(&self.other));
        drop(self);
        Self::start(setup, folder, own, other, tokens)
    }

    fn start(
        setup: Setup,
        folder: tempfile::TempDir,
        own: Arc<Place>,
        other: Arc<Place>,
        tokens: TokenServer,
    ) -> Self {
        let store = Store::open(folder.path()).unwrap();
        let metrics = Arc::new(Metrics::new());
        let key = Secret::from("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n");
        let provider = Arc::new(Provider {
            name: "mail".to_owned(),
            title: "Mail Example".to_owned(),
            upstream: OTHER.to_owned(),
            entry: Entry::OAuth(tokens.client()),
        });
        let accounts = AccountsConfig {
            keys: Some(KeyRing::parse(&key).unwrap()),
            locked_by_password: false,
            providers: [("mail".to_owned(), provider)].into(),
            gateway_upstream: Some("imaps://own.example.org".to_owned()),
            alarm: Alarm {
                sign_in: Some("https://pop.example.org/enrol".parse().unwrap()),
                ..Alarm::default()
            },
        };
        let access = Access::Local(store.clone());
        let accounts = Arc::new(Accounts::new(access, accounts, Arc::clone(&metrics)));
        let made = Arc::clone(&other);
        let make = move |url: &str| match url {
            OTHER => Ok(Arc::clone(&made) as Arc<dyn popgate::upstream::Upstream>),
            _ => Err("there is no such server".into()),
        };
        let upstreams = Upstreams::new(Some(Arc::clone(&own) as _), Box::new(make));
        let upstreams = Arc::new(upstreams.keeping(Some(store.clone())));
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
            policies: setup.policies,
            http_check: setup.http.map(|url| HttpCheckConfig {
                url,
                timeout: PATIENCE,
                tls: registration("http://127.0.0.1/".parse().unwrap()).tls,
                servers: BTreeMap::from([("127.0.0.2:993".to_owned(), OTHER.to_owned())]),
            }),
            replace_nul: false,
            session_takeover: false,
            notice: setup.notice,
            limits: Limits {
                connections: setup.connections.unwrap_or(1000),
                ..Limits::default()
            },
            timeouts: Timeouts::default(),
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let gateway = Gateway::bind(
            config,
            upstreams,
            Some(Arc::clone(&accounts)),
            Arc::clone(&metrics),
        )
        .unwrap();
        let shutdown = CancellationToken::new();
        runtime.spawn(gateway.run(shutdown.clone()));
        Self {
            runtime: Some(runtime),
            address,
            accounts,
            metrics,
            own,
            other,
            tokens,
            store,
            shutdown,
            folder,
        }
    }

    fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.as_ref().unwrap().block_on(work)
    }

    /// Stores an account, and gives it a device.
    fn account(
        &self,
        address: &str,
        home: Home,
        change: impl FnOnce(&Accounts, &mut Account),
    ) -> String {
        self.device(address, home, None, change)
    }

    /// The same, with a password that a person chose.
    fn device(
        &self,
        address: &str,
        home: Home,
        chosen: Option<&str>,
        change: impl FnOnce(&Accounts, &mut Account),
    ) -> String {
        let accounts = &self.accounts;
        self.block_on(async {
            let mut account = accounts.new_account(address, home).unwrap();
            change(accounts, &mut account);
            let chosen = chosen.map(Secret::from);
            let device = accounts.add_device(&mut account, "phone", chosen, None);
            let password = device.await.unwrap().password;
            accounts.save(&mut account).await.unwrap();
            password.reveal().to_owned()
        })
    }

    /// An account at the provider, with tokens: a mailbox that this one opens.
    fn enrolled(&self, address: &str, access: &str) -> String {
        self.account(
            address,
            Home::Provider("mail".to_owned()),
            |accounts, it| {
                set_tokens(accounts, it, access, 3600);
            },
        )
    }

    /// Changes what is stored.
    fn change(&self, address: &str, mut change: impl FnMut(&mut Account) + Send) {
        let changed = self.accounts.change(address, |account| change(account));
        self.block_on(changed).unwrap();
    }

    fn stored(&self, address: &str) -> Account {
        self.block_on(self.accounts.find(address)).unwrap().unwrap()
    }

    fn connect(&self) -> Pop3 {
        Pop3::connect(self.address)
    }

    fn login(&self, user: &str, password: &str) -> Result<Pop3, String> {
        let mut client = self.connect();
        client.expect_ok(&format!("USER {user}"));
        let reply = client.command(&format!("PASS {password}"));
        match reply.starts_with("+OK") {
            true => Ok(client),
            false => Err(reply),
        }
    }

    fn refused(&self, user: &str, password: &str) -> String {
        self.login(user, password).err().expect("refused")
    }

    /// AUTH PLAIN with an authorization identity.
    fn plain(&self, other: &str, user: &str, password: &str) -> Result<Pop3, String> {
        use base64::Engine as _;
        let message = format!("{other}\0{user}\0{password}");
        let message = base64::engine::general_purpose::STANDARD.encode(message);
        let mut client = self.connect();
        let reply = client.command(&format!("AUTH PLAIN {message}"));
        match reply.starts_with("+OK") {
            true => Ok(client),
            false => Err(reply),
        }
    }

    /// Waits until a metric has this value.
    fn wait_for(&self, metric: &str, value: &str) {
        let started = std::time::Instant::now();
        while self.count(metric) != value {
            let metrics = self.metrics.encode();
            assert!(
                started.elapsed() < PATIENCE,
                "not {value}: {metric} in {metrics}"
            );
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    fn count(&self, metric: &str) -> String {
        let metrics = self.metrics.encode();
        let mut lines = metrics.lines();
        let found = lines.find_map(|line| line.strip_prefix(metric).map(str::trim));
        found.unwrap().to_owned()
    }

    fn stop(&mut self) {
        self.shutdown.cancel();
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        runtime.block_on(self.store.close());
        runtime.shutdown_timeout(PATIENCE);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tokens that end in so many seconds.
fn set_tokens(accounts: &Accounts, account: &mut Account, access: &str, life: i64) {
    let now = now();
    let tokens = PlainTokens {
        refresh: Some(Secret::from("refresh-1")),
        access: Secret::from(access),
        expires_at: now + life,
        signed_in: now,
        refreshed: now,
    };
    accounts.set_tokens(account, &tokens).unwrap();
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_secs()).unwrap()
}

/// Everybody without an account of his own is judged so.
fn judged(by: Judge, home: Home) -> Policies {
    Policies {
        gateway: Rules {
            login: Login { by, home },
            ..Rules::default()
        },
        ..Policies::default()
    }
}

/// The registration of a client at a token endpoint.
fn registration(token: url::Url) -> oauth2::Registration {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    oauth2::Registration {
        grant: oauth2::Grant::User,
        endpoints: oauth2::Endpoints {
            authorization: None,
            token: Some(token),
            device: None,
            userinfo: None,
            issuer: None,
        },
        client_id: "popgate".to_owned(),
        client_proof: oauth2::ClientProof::None,
        scopes: vec![],
        authorization_parameters: vec![],
        tls: Arc::new(tls),
    }
}
