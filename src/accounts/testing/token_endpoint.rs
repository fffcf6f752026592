//! A token endpoint that says when it was asked, and what it thinks of it: refresh
//! tokens are good once, and a second use ends the grant.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::super::{Entry, Provider};
use crate::oauth2::{Client, ClientProof, Endpoints, Grant, Registration, Tokens};

/// See the module.
#[derive(Clone)]
pub struct TokenEndpoint {
    url: String,
    state: Arc<Mutex<State>>,
    gate: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    asked: usize,
    now: usize,
    together: usize,
    given: usize,
    live: Option<String>,
    is_revoked: bool,
    rotates: bool,
    answers: VecDeque<(u16, String)>,
    /// Writes the next tokens.
    words: Option<fn(&str, &str) -> String>,
}

/// Of access tokens, in seconds.
const LIFETIME: i64 = 3600;
/// Nobody has to wait.
const OPEN: usize = 1_000;

impl TokenEndpoint {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            url: format!("http://{}/token", listener.local_addr().unwrap()),
            state: Arc::new(Mutex::new(State {
                rotates: true,
                ..State::default()
            })),
            gate: Arc::new(Semaphore::new(OPEN)),
        };
        let serving = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().answer(stream));
            }
        });
        endpoint
    }

    /// A provider of this name whose tokens come from here.
    pub fn provider(&self, name: &str, grant: Grant) -> Arc<Provider> {
        let roots = rustls::RootCertStore::empty();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let registration = Registration {
            grant,
            endpoints: Endpoints {
                authorization: None,
                token: Some(self.url.parse().unwrap()),
                device: None,
                userinfo: None,
                issuer: None,
            },
            client_id: "popgate".to_owned(),
            client_proof: ClientProof::Secret("secret".into()),
            scopes: vec!["mail".to_owned()],
            authorization_parameters: Vec::new(),
            tls: Arc::new(tls),
        };
        Arc::new(Provider {
            name: name.to_owned(),
            title: name.to_owned(),
            upstream: "imaps://mail.example.org".to_owned(),
            entry: Entry::OAuth(Client::new(registration).unwrap()),
        })
    }

    /// What somebody gets who signs in: it ends at once, or as tokens do here.
    pub fn sign_in(&self, ends_at_once: bool) -> Tokens {
        let mut state = self.state();
        let (access, refresh) = state.give();
        state.is_revoked = false;
        let lifetime = if ends_at_once { 0 } else { LIFETIME };
        Tokens {
            access: access.as_str().into(),
            expires_at: super::now() + lifetime,
            refresh: Some(refresh.as_str().into()),
            identity: None,
        }
    }

    /// The next request is answered so.
    pub fn answers(&self, status: u16, body: &str) {
        self.state().answers.push_back((status, body.to_owned()));
    }

    /// The next tokens, access and refresh, are given in these words.
    pub fn gives(&self, words: fn(&str, &str) -> String) {
        self.state().words = Some(words);
    }

    /// The grant is no longer good.
    pub fn revoke(&self) {
        self.state().is_revoked = true;
    }

    /// One refresh token is for all times.
    pub fn never_rotates(&self) {
        self.state().rotates = false;
    }

    /// Requests so far.
    pub fn asked(&self) -> usize {
        self.state().asked
    }

    /// The most requests at once.
    pub fn together(&self) -> usize {
        self.state().together
    }

    /// Whether the grant is still good.
    pub fn is_live(&self) -> bool {
        let state = self.state();
        !state.is_revoked && state.live.is_some()
    }

    /// Requests wait, until the gate is opened.
    pub async fn shut(&self) {
        self.gate.acquire_many(OPEN as u32).await.unwrap().forget();
    }

    pub fn open(&self) {
        self.gate.add_permits(OPEN);
    }

    /// Waits until so many requests have come.
    pub async fn wait_for(&self, asked: usize) {
        while self.asked() < asked {
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(self, mut stream: TcpStream) {
        let Some(form) = form(&mut stream).await else {
            return;
        };
        {
            let mut state = self.state();
            state.asked += 1;
            state.now += 1;
            state.together = state.together.max(state.now);
        }
        drop(self.gate.acquire().await.unwrap());
        let (status, body) = {
            let mut state = self.state();
            state.now -= 1;
            let answer = state.answers.pop_front();
            answer.unwrap_or_else(|| state.judge(&form))
        };
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

impl State {
    fn give(&mut self) -> (String, String) {
        self.given += 1;
        if self.rotates || self.live.is_none() {
            self.live = Some(format!("refresh-{}", self.given));
        }
        let refresh = self.live.clone().unwrap_or_default();
        (format!("access-{}", self.given), refresh)
    }

    fn judge(&mut self, form: &[(String, String)]) -> (u16, String) {
        let field = |name: &str| {
            form.iter()
                .find(|(it, _)| it == name)
                .map(|(_, it)| it.as_str())
        };
        if field("grant_type") == Some("refresh_token") {
            // Replayed: somebody may have stolen it.
            self.is_revoked |= field("refresh_token") != self.live.as_deref();
            if self.is_revoked {
                return (400, r#"{"error":"invalid_grant"}"#.to_owned());
            }
        }
        let (access, refresh) = self.give();
        let words = self.words.take().unwrap_or(usual);
        (200, words(&access, &refresh))
    }
}

fn usual(access: &str, refresh: &str) -> String {
    format!(
        r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":{LIFETIME},"refresh_token":"{refresh}"}}"#
    )
}

/// The form that was posted.
async fn form(stream: &mut TcpStream) -> Option<Vec<(String, String)>> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let value = value.trim().parse::<usize>().ok()?;
                name.eq_ignore_ascii_case("content-length").then_some(value)
            });
            if body.len() >= length.unwrap_or(0) {
                return Some(
                    url::form_urlencoded::parse(body.as_bytes())
                        .into_owned()
                        .collect(),
                );
            }
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}
