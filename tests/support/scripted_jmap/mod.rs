//! A JMAP server that does as a test says. Left alone it behaves well, with an
//! account in memory; a test overrides what it answers to any request or
//! method, and reads afterwards what was asked for.

mod account;
mod methods;
mod wire;

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use serde_json::{Value, json};

use super::PATIENCE;
use super::certificates::Identity;
pub use account::{Account, Email, INBOX, Mailbox, SHARED, TRASH};
pub use wire::{End, Framing, Reply, Request};

/// The session resource's path.
pub const SESSION: &str = "/jmap/session";
/// The API's path.
pub const API: &str = "/jmap/api";
/// What the paths of downloads begin with.
pub const DOWNLOAD: &str = "/jmap/download/";

pub const CORE: &str = "urn:ietf:params:jmap:core";
pub const MAIL: &str = "urn:ietf:params:jmap:mail";
pub const BLOB: &str = "urn:ietf:params:jmap:blob";

/// What a test wants done instead of the usual.
pub enum Answer {
    /// The usual.
    Usual,
    /// This.
    Send(Reply),
    /// The usual, changed.
    Change(Box<dyn FnOnce(Reply) -> Reply>),
    /// Nothing is answered, nor done: a reset.
    Reset,
    /// What was asked for is done, and the answer is lost: a reset.
    DoThenReset,
    /// Nothing at all for as long as the client stays.
    Hang,
}

type OnRequest = Box<dyn Fn(&Request, &mut Account) -> Answer + Send + Sync>;
type OnAnswer = Box<dyn Fn(&Value, &mut Value) + Send + Sync>;
type OnMethod = Box<dyn Fn(&Value, &mut Account) -> Option<(String, Value)> + Send + Sync>;

/// Prepares a [`ScriptedJmap`].
pub struct Builder {
    account: Account,
    on_request: Vec<OnRequest>,
    on_method: Vec<(String, OnMethod)>,
    on_answer: Vec<(String, OnAnswer)>,
    tls: Option<Identity>,
}

/// The server. It ends, and its connections with it, when this is dropped.
pub struct ScriptedJmap {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    on_request: Vec<OnRequest>,
    on_method: Vec<(String, OnMethod)>,
    on_answer: Vec<(String, OnAnswer)>,
    tls: Option<Arc<ServerConfig>>,
    account: Mutex<Account>,
    journal: Mutex<Vec<Request>>,
    sockets: Mutex<Vec<(usize, TcpStream)>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    stopped: AtomicBool,
    _identity: Option<Identity>,
}

impl ScriptedJmap {
    /// A server with an empty inbox and a Trash. Any user may log in with the
    /// password `pw-NAME` or the token `tok-NAME`, and sees the same account.
    pub fn builder() -> Builder {
        Builder {
            account: Account::new(),
            on_request: Vec::new(),
            on_method: Vec::new(),
            on_answer: Vec::new(),
            tls: None,
        }
    }

    /// A well-behaved server with these messages in the inbox.
    pub fn with_messages(messages: &[&[u8]]) -> Self {
        Self::builder().messages(messages).start()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `--upstream`: the session resource, without TLS.
    pub fn url(&self) -> String {
        format!("http://{}{SESSION}", self.address)
    }

    /// For `--upstream`: the session resource, by TLS.
    pub fn https_url(&self) -> String {
        format!("https://localhost:{}{SESSION}", self.address.port())
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.journal.lock().unwrap().clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.journal.lock().unwrap().clear();
    }

    /// The calls of this method so far: their arguments.
    pub fn calls(&self, method: &str) -> Vec<Value> {
        let calls = self.requests().into_iter().flat_map(|it| it.calls());
        calls
            .filter(|(name, _)| name == method)
            .map(|(_, arguments)| arguments)
            .collect()
    }

    /// How many requests there were whose path begins so.
    pub fn count(&self, path: &str) -> usize {
        let requests = self.requests();
        requests
            .iter()
            .filter(|it| it.path.starts_with(path))
            .count()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until no connection is open.
    pub fn wait_until_closed(&self) {
        self.wait_until_open(0);
    }

    /// Waits until no more connections are open than this.
    pub fn wait_until_open(&self, most: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.shared.open.load(Ordering::SeqCst) > most {
            assert!(Instant::now() < deadline, "a connection stays open");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What it holds now, to look at or to change.
    pub fn account(&self) -> MutexGuard<'_, Account> {
        self.shared.account.lock().unwrap()
    }

    /// The ids of the Emails in a mailbox now.
    pub fn ids(&self, mailbox: &str) -> Vec<String> {
        let account = self.account();
        let there = account.emails.iter().filter(|email| email.is_in(mailbox));
        there.map(|email| email.id.clone()).collect()
    }
}

impl Drop for ScriptedJmap {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        for (_, socket) in self.shared.sockets.lock().unwrap().iter() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Builder {
    /// Puts messages into the inbox.
    pub fn messages(mut self, messages: &[&[u8]]) -> Self {
        for message in messages {
            self.account.deliver(message);
        }
        self
    }

    /// Changes what the account holds and what the server can do.
    pub fn account(mut self, change: impl FnOnce(&mut Account)) -> Self {
        change(&mut self.account);
        self
    }

    /// Asked for each request; the first that is not content with the usual
    /// counts.
    pub fn on_request(
        mut self,
        answer: impl Fn(&Request, &mut Account) -> Answer + Send + Sync + 'static,
    ) -> Self {
        self.on_request.push(Box::new(answer));
        self
    }

    /// Asked for each call of a method, with its arguments, references
    /// resolved. Answers with a name (the method's, or `error`) and arguments.
    pub fn on_method(
        mut self,
        method: &str,
        answer: impl Fn(&Value, &mut Account) -> Option<(String, Value)> + Send + Sync + 'static,
    ) -> Self {
        self.on_method.push((method.to_owned(), Box::new(answer)));
        self
    }

    /// Changes what a method answers to arguments, where it does not fail.
    pub fn on_answer(
        mut self,
        method: &str,
        change: impl Fn(&Value, &mut Value) + Send + Sync + 'static,
    ) -> Self {
        self.on_answer.push((method.to_owned(), Box::new(change)));
        self
    }

    /// A method that always fails so.
    pub fn failing(self, method: &str, kind: &'static str) -> Self {
        self.on_method(method, move |_, _| {
            Some(("error".to_owned(), json!({ "type": kind })))
        })
    }

    /// By TLS.
    pub fn tls(mut self, identity: Identity) -> Self {
        self.tls = Some(identity);
        self
    }

    pub fn start(self) -> ScriptedJmap {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            on_request: self.on_request,
            on_method: self.on_method,
            on_answer: self.on_answer,
            tls: self.tls.as_ref().map(Identity::server_config),
            account: Mutex::new(self.account),
            journal: Mutex::default(),
            sockets: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            _identity: self.tls,
        });
        let acceptor = Arc::clone(&shared);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if acceptor.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                let number = acceptor.connections.fetch_add(1, Ordering::SeqCst);
                acceptor.open.fetch_add(1, Ordering::SeqCst);
                let handle = socket.try_clone().unwrap();
                acceptor.sockets.lock().unwrap().push((number, handle));
                let shared = Arc::clone(&acceptor);
                std::thread::spawn(move || {
                    wire::serve(&shared, socket, number);
                    shared
                        .sockets
                        .lock()
                        .unwrap()
                        .retain(|(it, _)| *it != number);
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        ScriptedJmap { address, shared }
    }
}
