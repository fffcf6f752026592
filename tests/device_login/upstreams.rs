//! Upstreams and a token endpoint that say yes and no as they are told, and keep a
//! record.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use popgate::maildrop::{
    Maildrop, MaildropBuilder, MessageIndex, Outcome, Policy, Portion, UniqueId, Update,
};
use popgate::oauth2;
use popgate::sasl::{Credentials, Mechanism};
use popgate::store::{FolderKey, MessageKey};
use popgate::upstream::{Body, Upstream, UpstreamError, UpstreamSession, realm};

use super::registration;

/// A message: its unique id and its text.
type Mail = (String, String);

/// A place where mailboxes are.
pub struct Place {
    name: String,
    realm: Option<Arc<str>>,
    opens_by_token: bool,
    /// What opens a mailbox: by user, passwords and tokens.
    keys: Mutex<HashMap<String, Vec<String>>>,
    mail: Mutex<HashMap<String, Vec<Mail>>>,
    record: Mutex<Vec<String>>,
    outage: Mutex<bool>,
}

impl Place {
    pub fn new(name: &str, url: Option<&str>, opens_by_token: bool) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            realm: url.map(realm),
            opens_by_token,
            keys: Mutex::default(),
            mail: Mutex::default(),
            record: Mutex::default(),
            outage: Mutex::default(),
        })
    }

    /// From now on only this opens somebody's mailbox.
    pub fn opens(&self, user: &str, keys: &[&str]) {
        let keys = keys.iter().map(|it| (*it).to_owned()).collect();
        self.keys.lock().unwrap().insert(user.to_owned(), keys);
    }

    /// Somebody has got mail.
    pub fn deliver(&self, user: &str, id: &str, text: &str) {
        let mut mail = self.mail.lock().unwrap();
        let mail = mail.entry(user.to_owned()).or_default();
        mail.push((id.to_owned(), text.to_owned()));
    }

    pub fn ids(&self, user: &str) -> Vec<String> {
        let mail = self.mail.lock().unwrap();
        let mail = mail.get(user).into_iter().flatten();
        mail.map(|(id, _)| id.clone()).collect()
    }

    pub fn fails(&self, fails: bool) {
        *self.outage.lock().unwrap() = fails;
    }

    /// Every login that was tried, with what.
    pub fn logins(&self) -> Vec<String> {
        self.record.lock().unwrap().clone()
    }
}

#[async_trait]
impl Upstream for Place {
    async fn login(
        &self,
        credentials: Credentials,
        _client: IpAddr,
        policy: Arc<Policy>,
    ) -> Result<Box<dyn UpstreamSession>, UpstreamError> {
        let secret = match &credentials {
            Credentials::Password { password, .. } => password.reveal().to_owned(),
            Credentials::Bearer { token, .. } => format!("token {}", token.reveal()),
        };
        let user = credentials.user();
        let line = match credentials.authorized_as() {
            Some(other) => format!("{user} as {other}: {secret}"),
            None => format!("{user}: {secret}"),
        };
        self.record.lock().unwrap().push(line);
        if *self.outage.lock().unwrap() {
            return Err(UpstreamError::temporary("an outage"));
        }
        let keys = self.keys.lock().unwrap();
        if !keys.get(user).is_some_and(|keys| keys.contains(&secret)) {
            return Err(UpstreamError::Authentication);
        }
        let owner = match (&policy.shared, self.opens_by_token) {
            (Some(owner), true) => owner.as_str(),
            _ => credentials.mailbox(),
        };
        let mail = self.mail.lock().unwrap().get(owner).cloned();
        Ok(Box::new(Session {
            owner: owner.to_owned(),
            mail: mail.unwrap_or_default(),
            folders: policy.folders.iter().map(ToString::to_string).collect(),
        }))
    }

    fn accepts(&self, _mechanism: Mechanism) -> bool {
        true
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn realm(&self) -> Option<&str> {
        self.realm.as_deref()
    }

    fn opens_by_name(&self) -> bool {
        !self.opens_by_token
    }
}

struct Session {
    owner: String,
    mail: Vec<Mail>,
    folders: Vec<String>,
}

struct Text(Option<Bytes>);

#[async_trait]
impl Body for Text {
    fn announced(&self) -> Option<u64> {
        None
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        Ok(self.0.take())
    }

    async fn abandon(&mut self) {}
}

#[async_trait]
impl UpstreamSession for Session {
    async fn folders(&mut self) -> Result<Vec<String>, UpstreamError> {
        Ok(self.folders.clone())
    }

    async fn snapshot(&mut self) -> Result<Maildrop, UpstreamError> {
        let mut maildrop = MaildropBuilder::with_capacity(self.mail.len());
        for (id, text) in &self.mail {
            let id = UniqueId::of(id.clone());
            maildrop.push(text.len() as u64, &id).unwrap();
        }
        Ok(maildrop.build().unwrap())
    }

    async fn retrieve(
        &mut self,
        message: MessageIndex,
        _portion: Portion,
    ) -> Result<Box<dyn Body + Send + '_>, UpstreamError> {
        let text = self.mail[message].1.clone();
        Ok(Box::new(Text(Some(text.into()))))
    }

    fn kept_as(&self, _message: MessageIndex) -> Option<(FolderKey, MessageKey)> {
        None
    }

    async fn delivered(&mut self, _message: MessageIndex, _octets: u64) {}

    async fn update(&mut self, update: &Update) -> Result<Outcome, UpstreamError> {
        Ok(Outcome {
            removed: update.delete().to_vec(),
            ..Outcome::default()
        })
    }

    async fn close(&mut self) {
        let _ = &self.owner;
    }
}

/// A token endpoint (RFC 6749 §6).
pub struct TokenServer {
    url: url::Url,
    /// Status and body of each answer.
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicUsize>,
}

impl TokenServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let refusal = (400, r#"{"error":"invalid_grant"}"#.to_owned());
        let answer = Arc::new(Mutex::new(refusal));
        let asked = Arc::new(AtomicUsize::new(0));
        let (says, counts) = (Arc::clone(&answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                counts.fetch_add(1, Ordering::SeqCst);
                let answer = says.lock().unwrap().clone();
                let _ = respond(&stream, &answer);
            }
        });
        Self {
            url: format!("http://127.0.0.1:{port}/token").parse().unwrap(),
            answer,
            asked,
        }
    }

    /// From now on it gives this access token.
    pub fn gives(&self, access: &str) {
        let body = format!(
            r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":3600,"refresh_token":"refresh-2"}}"#
        );
        *self.answer.lock().unwrap() = (200, body);
    }

    /// From now on the grant is no good.
    pub fn refuses(&self) {
        *self.answer.lock().unwrap() = (400, r#"{"error":"invalid_grant"}"#.to_owned());
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn client(&self) -> oauth2::Client {
        oauth2::Client::new(registration(self.url.clone())).unwrap()
    }
}

/// A service that judges passwords by HTTP.
pub struct Judging {
    pub url: url::Url,
    /// Headers of each answer.
    answer: Arc<Mutex<String>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Judging {
    pub fn start(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(Mutex::new(answer.to_owned()));
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let (says, heard) = (Arc::clone(&answer), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Ok(head) = read_request(&stream) else {
                    continue;
                };
                heard.lock().unwrap().push(head);
                let headers = says.lock().unwrap().clone();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
                );
            }
        });
        Self {
            url: format!("http://127.0.0.1:{port}/auth").parse().unwrap(),
            answer,
            requests,
        }
    }

    pub fn answers(&self, headers: &str) {
        *self.answer.lock().unwrap() = headers.to_owned();
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Reads one request, and answers it.
fn respond(stream: &TcpStream, (status, body): &(u16, String)) -> std::io::Result<()> {
    read_request(stream)?;
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Reads a request; its head, in lower case.
fn read_request(stream: &TcpStream) -> std::io::Result<String> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut octets) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.to_ascii_lowercase();
        if let Some(length) = line.strip_prefix("content-length:") {
            octets = length.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    reader.read_exact(&mut vec![0; octets])?;
    Ok(head)
}
