//! The tests' own authorisation server: `scripts/authorization-server`, which
//! says what it can do.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use super::PATIENCE;
use super::servers::{fetched, scripts};

/// A running authorisation server. Anybody signs in as anybody. It ends when this
/// is dropped.
pub struct AuthorizationServer {
    dir: TempDir,
    port: u16,
}

/// A confidential client that it knows.
pub const CLIENT_ID: &str = "popgate";
/// Its secret.
pub const CLIENT_SECRET: &str = "popgate-secret";
/// A public client that it knows.
pub const PUBLIC_CLIENT_ID: &str = "popgate-public";

/// One request that it has seen.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The first part of the path: `token`, `userinfo`, ...
    pub endpoint: String,
    /// `grant_type`, or empty.
    pub grant: String,
    /// What it answered, where it did.
    pub status: Option<u64>,
    /// `error` of that, or empty.
    pub error: String,
    /// Whose tokens it was about, or empty.
    pub user: String,
    /// All that is known.
    pub all: Value,
}

impl AuthorizationServer {
    /// A new one, or `None` where the test cannot be run.
    pub fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// With options, which are environment variables of
    /// `scripts/start-authorization-server`: `PORT`, `KEY`.
    pub fn with(options: &[(&str, &str)]) -> Option<Self> {
        if !fetched() {
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("popgate-test-")
            .tempdir()
            .unwrap();
        let output = Command::new(scripts().join("start-authorization-server"))
            .arg(dir.path())
            .env("OWNER", std::process::id().to_string())
            .envs(options.iter().copied())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "start-authorization-server failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let ports = std::fs::read_to_string(dir.path().join("ports.env")).unwrap();
        let port = ports
            .lines()
            .find_map(|line| line.strip_prefix("HTTP_PORT="))
            .and_then(|port| port.parse().ok())
            .unwrap();
        Some(Self { dir, port })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its issuer, without a slash at the end.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The URL of one of its endpoints (`token`, `authorize`, ...).
    pub fn url(&self, endpoint: &str) -> Url {
        format!("{}/{endpoint}", self.issuer()).parse().unwrap()
    }

    /// The file with the key (HS256, base64) that signs its access tokens: `KEY` of a
    /// Cyrus or Dovecot that is to take them.
    pub fn key_file(&self) -> PathBuf {
        self.dir.path().join("oauth.key")
    }

    /// Changes settings; the script has them all.
    pub fn set(&self, settings: Value) {
        self.control("POST", "settings", &settings);
    }

    /// How long access tokens are good, in seconds.
    pub fn set_lifetime(&self, seconds: i64) {
        self.set(json!({"access_lifetime": seconds}));
    }

    /// Whoever signs in, it says that it was this one.
    pub fn claim(&self, identity: &str) {
        self.set(json!({"identity": identity}));
    }

    /// The next answer, or several, go wrong: the script has the kinds.
    pub fn fault(&self, fault: Value) {
        self.control("POST", "faults", &fault);
    }

    /// The next refresh is answered with this error of RFC 6749.
    pub fn refuse_refresh(&self, error: &str, times: i64) {
        self.fault(json!({"grant": "refresh_token", "error": error, "times": times}));
    }

    /// No more faults.
    pub fn mend(&self) {
        self.control("DELETE", "faults", &Value::Null);
    }

    /// A client more: `{client_id, secret, public_key, key_id, grants,
    /// redirect_uris}`.
    pub fn add_client(&self, client: Value) {
        self.control("POST", "clients", &client);
    }

    /// Takes away all that was ever granted for a user.
    pub fn revoke(&self, user: &str) {
        self.control("POST", "revoke", &json!({"user": user}));
    }

    /// Somebody types the code of a device and signs in.
    pub fn approve(&self, user_code: &str, user: &str) {
        let approval = json!({"user_code": user_code, "user": user});
        self.control("POST", "approve", &approval);
    }

    /// Somebody types the code of a device and refuses.
    pub fn deny(&self, user_code: &str) {
        self.control("POST", "approve", &json!({"user_code": user_code}));
    }

    /// An access token, past everything else.
    pub fn access_token(&self, user: &str) -> String {
        let answer = self.control("POST", "token", &json!({"user": user}));
        answer["token"].as_str().unwrap().to_owned()
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        let answer = self.control("GET", "requests", &Value::Null);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let requests = answer.as_array().unwrap().iter();
        requests
            .map(|it| Asked {
                endpoint: text(&it["endpoint"]),
                grant: text(&it["grant"]),
                status: it["status"].as_u64(),
                error: text(&it["error"]),
                user: text(&it["user"]),
                all: it.clone(),
            })
            .collect()
    }

    /// How often it was asked for tokens by this grant.
    pub fn count(&self, grant: &str) -> usize {
        self.asked().iter().filter(|it| it.grant == grant).count()
    }

    /// How often it was asked for new tokens by a refresh token.
    pub fn refreshes(&self) -> usize {
        self.count("refresh_token")
    }

    /// Forgets what it was asked.
    pub fn forget_requests(&self) {
        self.control("DELETE", "requests", &Value::Null);
    }

    /// How often a refresh token came a second time, which revoked its grant.
    pub fn replays(&self) -> u64 {
        self.grants()["replays"].as_u64().unwrap()
    }

    /// The most refreshes of one grant that were under way at once.
    pub fn together(&self) -> u64 {
        self.grants()["together"].as_u64().unwrap()
    }

    /// Refresh tokens of a user that are good.
    pub fn live(&self, user: &str) -> u64 {
        self.grants()["live"][user].as_u64().unwrap_or_default()
    }

    fn grants(&self) -> Value {
        self.control("GET", "grants", &Value::Null)
    }

    /// Every token, code and secret that it ever gave out, or that it was shown.
    pub fn issued(&self) -> Vec<String> {
        let answer = self.control("GET", "issued", &Value::Null);
        let issued = answer.as_array().unwrap().iter();
        issued.map(|it| it.as_str().unwrap().to_owned()).collect()
    }

    /// Signs in as a browser would that was sent to `url`; returns the URL that it
    /// would be sent back to.
    pub fn sign_in(&self, url: &Url, user: &str) -> Url {
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("login_as", user);
        self.redirected(&url)
    }

    /// The same, where the person refuses.
    pub fn refuse_sign_in(&self, url: &Url) -> Url {
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("deny", "1");
        self.redirected(&url)
    }

    fn redirected(&self, url: &Url) -> Url {
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let (head, body) = self.request("GET", &target, "");
        let location = head
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .unwrap_or_else(|| panic!("no redirect:\n{head}\n{body}"));
        location.trim().parse().unwrap()
    }

    fn control(&self, method: &str, what: &str, given: &Value) -> Value {
        let body = match given {
            Value::Null => String::new(),
            given => given.to_string(),
        };
        let (head, body) = self.request(method, &format!("/control/{what}"), &body);
        assert!(
            head.starts_with("HTTP/1.0 200 ") || head.starts_with("HTTP/1.1 200 "),
            "{body}"
        );
        serde_json::from_str(&body).unwrap()
    }

    fn request(&self, method: &str, target: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

impl Drop for AuthorizationServer {
    fn drop(&mut self) {
        let _ = Command::new(scripts().join("stop-server"))
            .args(["--now".as_ref(), self.dir.path().as_os_str()])
            .status();
    }
}
