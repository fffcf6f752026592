//! A gateway's pages, with accounts and a mail server that is none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use popgate::accounts::{
    Account, Accounts, Alarm, Config, Entry, Home, KeyRing, Probe, ProbeError, Provider,
};
use popgate::metrics::Metrics;
use popgate::oauth2::{Client, ClientProof, Endpoints, Grant, Registration};
use popgate::sasl::Credentials;
use popgate::secret::Secret;
use popgate::store::{Access, Store};
use popgate::web::enrolment::{self, Enrolment, Reached};
use popgate::web::{Readiness, Server};
use rustls::RootCertStore;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::support::AuthorizationServer;
use crate::support::authorization_server::{CLIENT_ID, CLIENT_SECRET};

/// What the operator's page asks for.
pub const OPERATOR: &str = "operator's own pass phrase";
/// The one app password that is good.
pub const APP_PASSWORD: &str = "good app password";

/// How a site differs from others.
#[derive(Default)]
pub struct Options {
    /// Secrets open only with a device password.
    pub locked: bool,
    /// Served over TLS, with this.
    pub tls: Option<rustls::ServerConfig>,
    /// Not the address that it listens on.
    pub public_url: Option<&'static str>,
    /// What the service is called.
    pub title: Option<&'static str>,
}

/// The pages, listening. Providers:
///
/// | name | is |
/// |---|---|
/// | `mail` | OpenID Connect: says who signed in |
/// | `silent` | the same server, which is not asked who |
/// | `app` | app passwords |
/// | `robot` | lets popgate in by itself |
pub struct Site {
    pub address: SocketAddr,
    pub url: String,
    pub provider: AuthorizationServer,
    pub accounts: Arc<Accounts>,
    pub metrics: Arc<Metrics>,
    pub mailboxes: Arc<Mailboxes>,
    runtime: Runtime,
    shutdown: CancellationToken,
    _folder: TempDir,
}

/// A mail server that opens every mailbox but some.
#[derive(Default)]
pub struct Mailboxes {
    /// By address.
    problems: Mutex<BTreeMap<String, ProbeError>>,
    opened: Mutex<Vec<String>>,
}

impl Mailboxes {
    /// This one does not open.
    pub fn fail(&self, address: &str, problem: ProbeError) {
        self.problems
            .lock()
            .unwrap()
            .insert(address.to_owned(), problem);
    }

    /// All open again.
    pub fn mend(&self) {
        self.problems.lock().unwrap().clear();
    }

    /// Those that somebody tried to open.
    pub fn tried(&self) -> Vec<String> {
        self.opened.lock().unwrap().clone()
    }
}

#[async_trait]
impl Probe for Mailboxes {
    async fn probe(
        &self,
        _: &str,
        credentials: Credentials,
        _: Option<&str>,
    ) -> Result<(), ProbeError> {
        let (user, good) = match &credentials {
            Credentials::Password { user, password, .. } => {
                (user, password.reveal() == APP_PASSWORD)
            }
            Credentials::Bearer { user, .. } => (user, true),
        };
        self.opened.lock().unwrap().push(user.clone());
        if let Some(problem) = self.problems.lock().unwrap().get(user) {
            return Err(problem.clone());
        }
        good.then_some(()).ok_or(ProbeError::Refused)
    }
}

fn no_tls() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Arc::new(config)
}

fn oauth(server: &AuthorizationServer, client_id: &str, openid: bool) -> Entry {
    let scopes: &[&str] = if openid {
        &["openid", "email", "mail"]
    } else {
        &["mail"]
    };
    let client = Client::new(Registration {
        grant: Grant::User,
        endpoints: Endpoints {
            authorization: Some(server.url("authorize")),
            token: Some(server.url("token")),
            device: None,
            userinfo: None,
            issuer: Some(server.issuer().parse().unwrap()),
        },
        client_id: client_id.to_owned(),
        client_proof: ClientProof::Secret(CLIENT_SECRET.into()),
        scopes: scopes.iter().map(|&it| it.to_owned()).collect(),
        authorization_parameters: Vec::new(),
        tls: no_tls(),
    });
    Entry::OAuth(client.unwrap())
}

impl Site {
    /// `None` where the test cannot be run.
    pub fn start() -> Option<Self> {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Option<Self> {
        let server = AuthorizationServer::start()?;
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let _guard = runtime.enter();
        let http = runtime
            .block_on(Server::bind("127.0.0.1:0".parse().unwrap()))
            .unwrap();
        let address = http.address();
        let scheme = if options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let url = match options.public_url {
            Some(url) => url.to_owned(),
            None => format!("{scheme}://127.0.0.1:{}", address.port()),
        };
        server.add_client(json!({
            "client_id": "second",
            "secret": CLIENT_SECRET,
            "grants": ["authorization_code", "refresh_token"],
        }));
        let robot = Entry::Master {
            user: "root".to_owned(),
            password: "root".into(),
        };
        let providers = [
            ("mail", "Example Mail", oauth(&server, CLIENT_ID, true)),
            ("silent", "Silent & Sons", oauth(&server, "second", false)),
            ("app", "App Password Mail", Entry::Password),
            ("robot", "Robot", robot),
        ];
        let providers = providers.map(|(name, title, entry)| {
            let provider = Provider {
                name: name.to_owned(),
                title: title.to_owned(),
                upstream: format!("imaps://{name}.example"),
                entry,
            };
            (name.to_owned(), Arc::new(provider))
        });
        let metrics = Arc::new(Metrics::new());
        let store = Store::open(folder.path()).unwrap();
        let config = Config {
            keys: Some(KeyRing::parse(&KeyRing::generate().unwrap()).unwrap()),
            locked_by_password: options.locked,
            providers: providers.into_iter().collect(),
            gateway_upstream: None,
            alarm: Alarm::default(),
        };
        let accounts = Accounts::new(Access::Local(store), config, Arc::clone(&metrics));
        let accounts = Arc::new(accounts);
        let mailboxes = Arc::new(Mailboxes::default());
        let pages = Enrolment {
            config: Arc::new(enrolment::Config {
                public_url: url.parse().unwrap(),
                domains: ["example.org".to_owned()].into(),
                providers: ["mail", "silent", "app", "robot"].map(str::to_owned).into(),
                operator_password: Some(OPERATOR.into()),
                pop3: Reached {
                    host: "pop.example.org".to_owned(),
                    pop3s_port: Some(995),
                    pop3_port: Some(110),
                },
                title: options.title.unwrap_or("Example Mail Gateway").to_owned(),
            }),
            accounts: Arc::clone(&accounts),
            probe: Arc::clone(&mailboxes) as Arc<dyn Probe>,
        };
        let site = popgate::web::Site {
            metrics: Arc::clone(&metrics),
            readiness: Readiness::default(),
            autoconfig: None,
            enrolment: Some(pages),
        };
        let http = match &options.tls {
            Some(tls) => http.with_tls(tls),
            None => http,
        };
        let shutdown = CancellationToken::new();
        runtime.spawn(http.run(site, shutdown.clone()));
        drop(_guard);
        Some(Self {
            address,
            url,
            provider: server,
            accounts,
            metrics,
            mailboxes,
            runtime,
            shutdown,
            _folder: folder,
        })
    }

    /// Runs something of popgate's own.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// An account as it is stored.
    pub fn account(&self, address: &str) -> Option<Account> {
        self.block_on(self.accounts.find(address)).unwrap()
    }

    /// An account that the operator has made.
    pub fn add_account(&self, address: &str, home: &str, change: impl FnOnce(&mut Account)) {
        let home = Home::Provider(home.to_owned());
        let mut account = self.accounts.new_account(address, home).unwrap();
        change(&mut account);
        self.block_on(self.accounts.save(&mut account)).unwrap();
    }

    /// Changes an account past the pages.
    pub fn change(&self, address: &str, change: impl FnMut(&mut Account) + Send) {
        self.block_on(self.accounts.change(address, change))
            .unwrap();
    }

    /// Whether a device password is good.
    pub fn opens(&self, address: &str, password: &str) -> bool {
        let password = Secret::from(password);
        let verdict = self.block_on(self.accounts.authenticate(address, &password, None));
        matches!(verdict.unwrap(), popgate::accounts::Verdict::Admitted(_))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shutdown.cancel();
        // A wait that a test left behind is not waited for.
        let runtime = std::mem::replace(
            &mut self.runtime,
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
        );
        runtime.shutdown_timeout(Duration::from_secs(5));
    }
}
