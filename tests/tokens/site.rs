//! A gateway with an account whose mailbox is at a provider.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use popgate::accounts::{
    Account, Accounts, Alarm, Config, Credential, Entry, Home, KeyRing, NewCredential, Probe,
    ProbeError, Provider, Providers,
};
use popgate::oauth2::{Client, ClientProof, Endpoints, Grant, Registration, Tokens};
use popgate::sasl::Credentials;
use popgate::secret::Secret;
use popgate::store::Access;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::ALICE;
use crate::support::authorization_server::{CLIENT_ID, CLIENT_SECRET};
use crate::support::{AuthorizationServer, Dovecot, Gateway, PATIENCE, Pop3, messages};

/// See the module.
pub struct Site {
    pub server: AuthorizationServer,
    pub folder: TempDir,
    pub password: Secret,
    key: Secret,
    runtime: Runtime,
}

/// The mailbox is known to be there.
struct Opens;

#[async_trait]
impl Probe for Opens {
    async fn probe(
        &self,
        _upstream: &str,
        _credentials: Credentials,
        _delegate: Option<&str>,
    ) -> Result<(), ProbeError> {
        Ok(())
    }
}

/// A Dovecot that asks the authorisation server about each token, with two messages
/// for alice.
pub fn dovecot(server: &AuthorizationServer) -> Dovecot {
    let users = format!("{ALICE}:{{PLAIN}}pw-{ALICE}");
    let options = [("OAUTH_URL", server.issuer()), ("USERS", users)];
    let options: Vec<(&str, &str)> = options.iter().map(|(a, b)| (*a, b.as_str())).collect();
    let dovecot = Dovecot::with(&options).unwrap();
    for number in 1..=2 {
        dovecot.append(ALICE, "INBOX", &messages::plain(number, 500));
    }
    dovecot
}

impl Site {
    /// Alice is enrolled with a device. Tokens that are given from now on, that to
    /// her included, are good for so many seconds. `more` is configuration.
    pub fn new(server: AuthorizationServer, upstream: &str, lifetime: i64, more: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("popgate-test-")
            .tempdir()
            .unwrap();
        let path = |name: &str| folder.path().join(name);
        let key = KeyRing::generate().unwrap();
        fs::write(path("key"), key.reveal()).unwrap();
        fs::write(path("secret"), CLIENT_SECRET).unwrap();
        fs::create_dir(path("state")).unwrap();
        let config = format!(
            "state = {state:?}\npop3 = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\
             allow_cleartext = true\nlogin = \"accounts\"\ndefault_provider = \"mail\"\n{more}\n\
             [accounts]\nkey_file = {key:?}\n\
             [provider.mail]\nupstream = {upstream:?}\ngrant = \"user\"\n\
             client_id = {CLIENT_ID:?}\nclient_secret_file = {secret:?}\n\
             scopes = [\"openid\", \"email\", \"mail\"]\n\
             authorization_url = \"{authorize}\"\ntoken_url = \"{token}\"\n\
             device_url = \"{device}\"\n",
            state = path("state"),
            key = path("key"),
            secret = path("secret"),
            authorize = server.url("authorize"),
            token = server.url("token"),
            device = server.url("device_authorization"),
        );
        fs::write(path("popgate.toml"), config).unwrap();
        let mut site = Self {
            server,
            folder,
            password: Secret::from(""),
            key,
            runtime: Runtime::new().unwrap(),
        };
        site.server.set_lifetime(lifetime);
        site.enrol();
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The program.
    pub fn start(&self) -> Gateway {
        let config = self.path("popgate.toml");
        Gateway::start_expecting(2, &["--config", config.to_str().unwrap()])
    }

    fn client(&self) -> Client {
        let server = &self.server;
        let roots = rustls::RootCertStore::empty();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let registration = Registration {
            grant: Grant::User,
            endpoints: Endpoints {
                authorization: None,
                token: Some(server.url("token")),
                device: Some(server.url("device_authorization")),
                userinfo: None,
                issuer: None,
            },
            client_id: CLIENT_ID.to_owned(),
            client_proof: ClientProof::Secret(CLIENT_SECRET.into()),
            scopes: ["openid", "email", "mail"].map(str::to_owned).to_vec(),
            authorization_parameters: Vec::new(),
            tls: Arc::new(tls),
        };
        Client::new(registration).unwrap()
    }

    /// The accounts as a command has them: of the store, or of the gateway that has
    /// it.
    pub fn accounts(&self) -> Accounts {
        let provider = Provider {
            name: "mail".to_owned(),
            title: "Mail".to_owned(),
            upstream: "imap+plain://127.0.0.1".to_owned(),
            entry: Entry::OAuth(self.client()),
        };
        let config = Config {
            keys: Some(KeyRing::parse(&self.key).unwrap()),
            locked_by_password: false,
            providers: Providers::from([("mail".to_owned(), Arc::new(provider))]),
            gateway_upstream: None,
            alarm: Alarm::default(),
        };
        let access = Access::open(&self.state()).unwrap();
        Accounts::new(access, config, Arc::default())
    }

    pub fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    pub fn account(&self) -> Account {
        let found = self.wait(self.accounts().find(ALICE));
        found.unwrap().unwrap()
    }

    /// Alice types the code of a device at the provider.
    fn signed_in(&self) -> Tokens {
        let client = self.client();
        self.wait(async {
            let device = client.device().await.unwrap();
            self.server.approve(&device.user_code, ALICE);
            client.device_tokens(&device).await.unwrap()
        })
    }

    /// She signs in for the first time, and gets a password for her phone.
    fn enrol(&mut self) {
        let tokens = self.signed_in();
        let accounts = self.accounts();
        self.password = self.wait(async {
            let home = Home::Provider("mail".to_owned());
            let mut new = accounts.new_account(ALICE, home).unwrap();
            // At Cyrus she has no domain.
            new.mailbox = self.is_local().then(|| "alice".to_owned());
            let brought = NewCredential::OAuth(tokens);
            let enrolled = accounts.enrol(new, brought, &Opens).await.unwrap();
            let mut account = enrolled.account;
            let added = accounts.add_device(&mut account, "phone", None, None);
            let password = added.await.unwrap().password;
            accounts.save(&mut account).await.unwrap();
            password
        });
    }

    fn is_local(&self) -> bool {
        fs::read_to_string(self.path("popgate.toml"))
            .unwrap()
            .contains("/.well-known/jmap")
    }

    /// She signs in again, while the gateway runs.
    pub fn sign_in_again(&self) {
        let brought = NewCredential::OAuth(self.signed_in());
        let accounts = self.accounts();
        let renewed = self.wait(async {
            let found = accounts.find(ALICE).await.unwrap().unwrap();
            accounts.enrol(found, brought, &Opens).await.unwrap()
        });
        assert!(renewed.renewed);
    }

    /// As if the access token had come to its end.
    pub fn end_access(&self) {
        let accounts = self.accounts();
        let ended = accounts.change(ALICE, |row| {
            if let Credential::OAuth(tokens) = &mut row.credential {
                tokens.expires_at = tokens.refreshed;
            }
        });
        self.wait(ended).unwrap();
    }

    /// What the gateway says to the password of the phone.
    pub fn login(&self, gateway: &Gateway) -> String {
        login(gateway, self.password.reveal())
    }

    /// How many messages the phone finds.
    pub fn read(&self, gateway: &Gateway) -> usize {
        let mut pop3 = gateway.pop3();
        pop3.login(ALICE, self.password.reveal());
        let count = pop3.sizes().len();
        for number in 1..=count {
            assert_eq!(pop3.retrieve(number), messages::plain(number, 500));
        }
        assert!(pop3.quit().starts_with("+OK"));
        count
    }

    /// Configuration of a command that writes what it is told into a file.
    pub fn hook(file: &Path) -> String {
        let script = format!("cat >>{0}; echo >>{0}", file.display());
        format!("[alarm]\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n")
    }
}

/// The answer to PASS. The session is given up.
pub fn login(gateway: &Gateway, password: &str) -> String {
    let mut pop3: Pop3 = gateway.pop3();
    pop3.expect_ok(&format!("USER {ALICE}"));
    pop3.command(&format!("PASS {password}"))
}

/// Waits until a file has so many lines.
pub fn lines(path: &Path, count: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < deadline, "{lines:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What `/metrics` says.
pub fn metrics(gateway: &Gateway) -> String {
    let mut stream = TcpStream::connect(gateway.address("http")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Waits until `/metrics` has this line.
pub fn wait_for_metric(gateway: &Gateway, line: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = metrics(gateway);
        if text.lines().any(|it| it == line) {
            return;
        }
        assert!(Instant::now() < deadline, "no {line} in\n{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
