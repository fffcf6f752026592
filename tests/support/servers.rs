//! Real mail servers, one of its own for each test, by the scripts in
//! `scripts/`. Where they were not fetched, a test is skipped, loudly.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use tempfile::TempDir;

use super::authorization_server::AuthorizationServer;
use super::contents::Contents;
use super::imap_client::{ImapClient, Stored};
use super::pop3::Pop3;

/// The environment variable that turns a skip into a failure.
const NO_SKIP: &str = "POPGATE_TEST_NO_SKIP";

/// A running mail server with users alice, bob, carol and dave, whose
/// passwords are `pw-NAME`. It ends when this is dropped.
pub struct MailServer {
    dir: TempDir,
    ports: HashMap<String, String>,
}

/// Dovecot: IMAP, IMAPS, POP3, POP3S; every extension that popgate uses.
pub struct Dovecot(MailServer);

/// Courier: POP3, and IMAP without TLS, MOVE, LITERAL+ or SASL-IR; folders
/// `INBOX.Trash`.
pub struct Courier(MailServer);

/// Cyrus: IMAP, IMAPS, POP3, POP3S and JMAP.
pub struct Cyrus(MailServer);

/// A Dovecot, or `None` where the test cannot be run.
pub fn dovecot() -> Option<Dovecot> {
    Dovecot::start()
}

/// A Courier, or `None` where the test cannot be run.
pub fn courier() -> Option<Courier> {
    Courier::start()
}

/// A Cyrus, or `None` where the test cannot be run.
pub fn cyrus() -> Option<Cyrus> {
    Cyrus::start()
}

impl Dovecot {
    /// As Debian's Dovecot is, or `None` where the test cannot be run.
    pub fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// With options, which are environment variables of `scripts/start-dovecot`:
    /// `CAPABILITY`, `MAILBOXES`, `OAUTH`, `OAUTH_URL`, `SHARING`, `USERS`, `EXTRA`.
    pub fn with(options: &[(&str, &str)]) -> Option<Self> {
        MailServer::start("start-dovecot", options).map(Self)
    }

    /// Takes the access tokens of an authorisation server, which it asks about each
    /// of them. Whoever signed in there has a mailbox here, of the same name.
    pub fn with_tokens_of(server: &AuthorizationServer) -> Option<Self> {
        Self::with(&[("OAUTH_URL", &server.issuer())])
    }

    /// Puts `count` messages of about `octets` octets into a user's INBOX, as
    /// files: fast enough for 100,000 of them.
    pub fn fill(&self, user: &str, count: usize, octets: usize) {
        let home = self.path().join("home").join(user);
        let maildir = home.join("Maildir");
        // Dovecot makes the folders and gives them to the right owner.
        self.imap(user).ok("SELECT INBOX");
        let owner = fs::metadata(&maildir).unwrap();
        for number in 1..=count {
            let message = super::messages::plain(number, octets);
            let lines = message.iter().filter(|octet| **octet == b'\n').count();
            let stored: Vec<u8> = message
                .iter()
                .copied()
                .filter(|octet| *octet != b'\r')
                .collect();
            let name = format!(
                "{}.M{number}P1.fill,S={},W={}:2,",
                1_700_000_000 + number,
                stored.len(),
                stored.len() + lines
            );
            let file = maildir.join("cur").join(name);
            fs::write(&file, stored).unwrap();
            std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }
}

impl Courier {
    /// As Courier is, or `None` where the test cannot be run.
    pub fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// With options of `scripts/start-courier`: `CAPABILITY`, `KEYWORDS`.
    pub fn with(options: &[(&str, &str)]) -> Option<Self> {
        MailServer::start("start-courier", options).map(Self)
    }
}

impl Cyrus {
    /// As Cyrus is, or `None` where the test cannot be run.
    pub fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// With options of `scripts/start-cyrus`: `EXTRA`, `OAUTH_KEY`.
    pub fn with(options: &[(&str, &str)]) -> Option<Self> {
        MailServer::start("start-cyrus", options).map(Self)
    }

    /// Takes, by JMAP, the access tokens of an authorisation server, which are for
    /// users without a domain from here on. Cyrus asks nobody, and 3.6 takes no
    /// token that says when it expires: it does not notice when one is revoked, or
    /// has ended.
    pub fn with_tokens_of(server: &AuthorizationServer) -> Option<Self> {
        server.set(serde_json::json!({"bare_tokens": true, "subject": "local"}));
        let key_file = server.key_file();
        Self::with(&[("OAUTH_KEY", key_file.to_str().unwrap())])
    }

    /// Puts `count` messages of about `octets` octets into a user's INBOX, as
    /// files: fast enough for 100,000 of them.
    pub fn fill(&self, user: &str, count: usize, octets: usize) {
        let filled = Command::new(scripts().join("fill-cyrus"))
            .arg(self.path())
            .args([user, &count.to_string(), &octets.to_string()])
            .status();
        assert!(filled.unwrap().success(), "fill-cyrus failed");
    }

    /// An access token for JMAP: Cyrus 3.6 refuses those that say when they
    /// expire.
    pub fn jmap_token(&self, user: &str) -> String {
        self.0.sign_claims(&format!(r#"{{"sub":"{user}"}}"#))
    }

    /// The URL of the JMAP session resource, on loopback and without TLS.
    pub fn jmap_url(&self) -> String {
        self.0.ports["JMAP_SESSION"].clone()
    }

    /// The same by TLS.
    pub fn jmap_https_url(&self) -> String {
        format!("https://localhost:{}/.well-known/jmap", self.https_port())
    }
}

impl Deref for Dovecot {
    type Target = MailServer;
    fn deref(&self) -> &MailServer {
        &self.0
    }
}

impl Deref for Courier {
    type Target = MailServer;
    fn deref(&self) -> &MailServer {
        &self.0
    }
}

impl Deref for Cyrus {
    type Target = MailServer;
    fn deref(&self) -> &MailServer {
        &self.0
    }
}

impl MailServer {
    fn start(script: &str, options: &[(&str, &str)]) -> Option<Self> {
        if !fetched() {
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("popgate-test-")
            .tempdir()
            .unwrap();
        let output = Command::new(scripts().join(script))
            .arg(dir.path())
            .env("OWNER", std::process::id().to_string())
            .envs(options.iter().copied())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{script} failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let ports = fs::read_to_string(dir.path().join("ports.env"))
            .unwrap()
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some(Self { dir, ports })
    }

    /// Where its state, its configuration and its log are.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn port(&self, name: &str) -> u16 {
        let port = self
            .ports
            .get(name)
            .unwrap_or_else(|| panic!("this server has no {name}"));
        port.parse().unwrap()
    }

    pub fn imap_port(&self) -> u16 {
        self.port("IMAP_PORT")
    }

    pub fn imaps_port(&self) -> u16 {
        self.port("IMAPS_PORT")
    }

    pub fn pop3_port(&self) -> u16 {
        self.port("POP3_PORT")
    }

    pub fn pop3s_port(&self) -> u16 {
        self.port("POP3S_PORT")
    }

    /// JMAP without TLS (Cyrus).
    pub fn http_port(&self) -> u16 {
        self.port("HTTP_PORT")
    }

    /// JMAP by TLS (Cyrus).
    pub fn https_port(&self) -> u16 {
        self.port("HTTPS_PORT")
    }

    /// The authority that its certificate (for localhost and 127.0.0.1) is of.
    pub fn ca_file(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// For `--upstream`: implicit TLS.
    pub fn imaps_url(&self) -> String {
        format!("imaps://localhost:{}", self.imaps_port())
    }

    /// For `--upstream`: STARTTLS.
    pub fn starttls_url(&self) -> String {
        format!("imap+starttls://localhost:{}", self.imap_port())
    }

    /// For `--upstream`: no TLS.
    pub fn plain_url(&self) -> String {
        format!("imap+plain://127.0.0.1:{}", self.imap_port())
    }

    /// A session of this user, with the password `pw-NAME`.
    pub fn imap(&self, user: &str) -> ImapClient {
        ImapClient::login(self.imap_port(), user, &format!("pw-{user}"))
    }

    /// Appends a message (CRLF line ends) to a mailbox.
    pub fn append(&self, user: &str, mailbox: &str, message: &[u8]) {
        self.imap(user).append(mailbox, message);
    }

    /// All that a mailbox holds, in the order of UIDs.
    pub fn mailbox(&self, user: &str, mailbox: &str) -> Vec<Stored> {
        self.imap(user).dump(mailbox)
    }

    /// All that a user's mailboxes hold.
    pub fn contents(&self, user: &str) -> Contents {
        Contents::of(&mut self.imap(user))
    }

    /// A session of this user with the server's own POP3, in the clear.
    pub fn pop3(&self, user: &str) -> Pop3 {
        let mut pop3 = Pop3::connect((Ipv4Addr::LOCALHOST, self.pop3_port()).into());
        pop3.login(user, &format!("pw-{user}"));
        pop3
    }

    /// Its log, as far as it was written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("dovecot.log")).unwrap_or_default()
    }

    /// An access token (Dovecot with `OAUTH`) that is good for `lifetime`.
    pub fn token(&self, user: &str, lifetime: Duration) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        self.sign(user, now - 60, now + lifetime.as_secs())
    }

    /// An access token that has expired.
    pub fn expired_token(&self, user: &str) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        self.sign(user, now - 120, now - 60)
    }

    fn sign(&self, user: &str, issued: u64, expires: u64) -> String {
        self.sign_claims(&format!(
            r#"{{"sub":"{user}","iat":{issued},"exp":{expires}}}"#
        ))
    }

    fn sign_claims(&self, claims: &str) -> String {
        let key = fs::read_to_string(self.path().join("oauth.key")).unwrap();
        let key = ring::hmac::Key::new(
            ring::hmac::HMAC_SHA256,
            &STANDARD.decode(key.trim_end()).unwrap(),
        );
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// Ends the server at once, as a crash would, and leaves its mail.
    pub fn kill(&self) {
        let stopped = Command::new(scripts().join("stop-server"))
            .args(["--now".as_ref(), self.path().as_os_str()])
            .status();
        assert!(stopped.unwrap().success(), "stop-server failed");
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = Command::new(scripts().join("stop-server"))
            .args(["--now".as_ref(), self.path().as_os_str()])
            .status();
    }
}

/// The folder of the project's scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

/// Whether servers and clients were fetched. Says so where not, past the test
/// harness's capture of output.
pub fn fetched() -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/stamp");
    if root.exists() {
        return true;
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(
        std::env::var_os(NO_SKIP).is_none(),
        "{test}: the mail servers are not there, and {NO_SKIP} is set: run scripts/fetch-servers"
    );
    let line =
        format!("SKIPPED: {test}: needs real mail servers; run ./test, which fetches them\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    false
}
