//! An IMAP server that does as a test says. Left alone it behaves well, with a
//! mailbox in memory; a test overrides what it answers to any command, and
//! reads afterwards what was on the wire.

mod commands;
mod items;
mod mailbox;
mod wire;

use std::io::Write as _;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::PATIENCE;
use super::certificates::Identity;
pub use mailbox::{Mailbox, Message, in_set};
pub use wire::Command;

/// What a well-equipped server announces.
pub const CAPABILITIES: &str = "IMAP4rev1 SASL-IR LITERAL+ AUTH=PLAIN AUTH=XOAUTH2 \
     AUTH=OAUTHBEARER ID ENABLE UIDPLUS MOVE ESEARCH SPECIAL-USE UNSELECT NAMESPACE";

/// What a test wants done instead of the usual.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The usual.
    Usual,
    /// These octets, and nothing else.
    Send(Vec<u8>),
    /// These octets, in writes of so many.
    Slices(Vec<u8>, usize),
    /// These octets, then the usual.
    SendThenUsual(Vec<u8>),
    /// The usual, then an orderly end.
    UsualThenClose,
    /// These octets, then an orderly end (FIN).
    Close(Vec<u8>),
    /// These octets, then a reset (RST).
    Reset(Vec<u8>),
    /// These octets, then silence for as long as the client stays.
    Hang(Vec<u8>),
    /// These octets over and over, with a pause behind each time, for as long as
    /// the client stays.
    Endless(Vec<u8>, Duration),
}

impl Answer {
    /// Text to send.
    pub fn send(text: impl Into<String>) -> Self {
        Self::Send(text.into().into_bytes())
    }
}

type Handler = Box<dyn Fn(&Command, &mut World) -> Answer + Send + Sync>;

/// Prepares a [`ScriptedImap`].
pub struct Builder {
    capabilities: String,
    greeting: Option<String>,
    tells_at_login: bool,
    world: World,
    handlers: Vec<(String, Handler)>,
    tls: Option<(Identity, bool)>,
    idles_after: Duration,
    tells_nothing: bool,
}

/// What the server holds, for all of its connections.
pub struct World {
    /// Mailboxes by name; INBOX is the first.
    pub mailboxes: Vec<Mailbox>,
    /// Whether keywords can be set that last.
    pub keywords: bool,
}

impl World {
    pub fn mailbox(&mut self, name: &str) -> Option<&mut Mailbox> {
        self.mailboxes
            .iter_mut()
            .find(|mailbox| mailbox.is_called(name))
    }

    pub fn inbox(&mut self) -> &mut Mailbox {
        &mut self.mailboxes[0]
    }
}

/// The server. It ends, and its connections with it, when this is dropped.
pub struct ScriptedImap {
    address: SocketAddr,
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    capabilities: String,
    greeting: Option<String>,
    tells_at_login: bool,
    idles_after: Duration,
    tells_nothing: bool,
    handlers: Vec<(String, Handler)>,
    tls: Option<Arc<ServerConfig>>,
    implicit_tls: bool,
    world: Mutex<World>,
    journal: Mutex<Vec<(usize, String)>>,
    sockets: Mutex<Vec<(usize, TcpStream)>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    stopped: AtomicBool,
    _identity: Option<Identity>,
}

impl ScriptedImap {
    /// A server with an empty INBOX and a Trash. Any user may log in with the
    /// password `pw-NAME` or the token `tok-NAME`.
    pub fn builder() -> Builder {
        Builder {
            capabilities: CAPABILITIES.to_owned(),
            greeting: None,
            tells_at_login: false,
            world: World {
                mailboxes: vec![
                    Mailbox::new("INBOX", None),
                    Mailbox::new("Trash", Some("\\Trash")),
                ],
                keywords: true,
            },
            handlers: Vec::new(),
            tls: None,
            idles_after: Duration::ZERO,
            tells_nothing: false,
        }
    }

    /// A well-behaved server with these messages in INBOX, UIDs 1, 2, 3, ….
    pub fn with_messages(messages: &[&[u8]]) -> Self {
        Self::builder().messages(messages).start()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// For `--upstream`: no TLS.
    pub fn plain_url(&self) -> String {
        format!("imap+plain://127.0.0.1:{}", self.port())
    }

    /// For `--upstream`: STARTTLS.
    pub fn starttls_url(&self) -> String {
        format!("imap+starttls://localhost:{}", self.port())
    }

    /// For `--upstream`: implicit TLS.
    pub fn imaps_url(&self) -> String {
        format!("imaps://localhost:{}", self.port())
    }

    /// Every command line so far, as it came but for its tag, with literals in
    /// place (`LOGIN {5}␍␊alice …`), and the connection it came on (from 0).
    /// Answers to continuations are lines that begin with `+ `.
    pub fn commands(&self) -> Vec<(usize, String)> {
        self.shared.journal.lock().unwrap().clone()
    }

    /// The lines that begin so, in order.
    pub fn commands_starting(&self, start: &str) -> Vec<String> {
        let commands = self.commands().into_iter().map(|(_, line)| line);
        commands.filter(|line| line.starts_with(start)).collect()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Says this on every connection, whatever is under way there.
    pub fn interject(&self, octets: &[u8]) {
        for (_, socket) in self.shared.sockets.lock().unwrap().iter() {
            let _ = (&*socket).write_all(octets);
        }
    }

    /// Ends every connection, as a server does that is restarted.
    pub fn hang_up(&self) {
        for (_, socket) in self.shared.sockets.lock().unwrap().iter() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Waits until no connection is open.
    pub fn wait_until_closed(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.open_connections() > 0 {
            assert!(Instant::now() < deadline, "a connection stays open");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What it holds now, to look at or to change.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock().unwrap()
    }

    /// The UIDs that a mailbox holds now.
    pub fn uids(&self, mailbox: &str) -> Vec<u32> {
        let mut world = self.world();
        world
            .mailbox(mailbox)
            .unwrap()
            .messages
            .iter()
            .map(|message| message.uid)
            .collect()
    }
}

impl Drop for ScriptedImap {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for (_, socket) in self.shared.sockets.lock().unwrap().iter() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Builder {
    /// What CAPABILITY says; a command that needs more is answered by BAD.
    pub fn capabilities(mut self, capabilities: &str) -> Self {
        capabilities.clone_into(&mut self.capabilities);
        self
    }

    /// All of [`CAPABILITIES`] but these.
    pub fn without(mut self, capabilities: &[&str]) -> Self {
        let keep = |name: &&str| !capabilities.contains(name);
        self.capabilities = self
            .capabilities
            .split_whitespace()
            .filter(keep)
            .collect::<Vec<_>>()
            .join(" ");
        self
    }

    /// More capabilities (`LOGINDISABLED`, `STARTTLS`).
    pub fn announcing(mut self, capabilities: &str) -> Self {
        self.capabilities = format!("{} {capabilities}", self.capabilities);
        self
    }

    /// The first line, without its CRLF.
    pub fn greeting(mut self, line: &str) -> Self {
        self.greeting = Some(line.to_owned());
        self
    }

    /// The answer to a login tells the capabilities.
    pub fn telling_at_login(mut self) -> Self {
        self.tells_at_login = true;
        self
    }

    /// How long a client that is to idle waits for leave.
    pub fn idling_after(mut self, wait: Duration) -> Self {
        self.idles_after = wait;
        self
    }

    /// Who idles is told of nothing.
    pub fn tells_nothing(mut self) -> Self {
        self.tells_nothing = true;
        self
    }

    /// Adds messages to INBOX.
    pub fn messages(mut self, messages: &[impl AsRef<[u8]>]) -> Self {
        for message in messages {
            self.world.inbox().append(message.as_ref());
        }
        self
    }

    /// Changes what the server holds.
    pub fn world(mut self, change: impl FnOnce(&mut World)) -> Self {
        change(&mut self.world);
        self
    }

    /// Speaks TLS from the first octet.
    pub fn implicit_tls(mut self, identity: Identity) -> Self {
        self.tls = Some((identity, true));
        self
    }

    /// Offers STARTTLS.
    pub fn starttls(mut self, identity: Identity) -> Self {
        self.tls = Some((identity, false));
        self.announcing("STARTTLS")
    }

    /// Overrides the answer to commands that begin with `command` in upper case
    /// (`"UID FETCH"`, `"SELECT"`; `""` is every command, `"GREETING"` the
    /// beginning of a connection). The first override that fits is asked; it
    /// may leave things to the usual course by [`Answer::Usual`].
    pub fn on(
        mut self,
        command: &str,
        handler: impl Fn(&Command, &mut World) -> Answer + Send + Sync + 'static,
    ) -> Self {
        self.handlers.push((command.to_owned(), Box::new(handler)));
        self
    }

    pub fn start(self) -> ScriptedImap {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (identity, implicit_tls) = match self.tls {
            Some((identity, implicit)) => (Some(identity), implicit),
            None => (None, false),
        };
        let shared = Arc::new(Shared {
            capabilities: self.capabilities,
            greeting: self.greeting,
            tells_at_login: self.tells_at_login,
            handlers: self.handlers,
            idles_after: self.idles_after,
            tells_nothing: self.tells_nothing,
            tls: identity.as_ref().map(Identity::server_config),
            implicit_tls,
            world: Mutex::new(self.world),
            journal: Mutex::default(),
            sockets: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            _identity: identity,
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accepting.accept(&listener));
        ScriptedImap { address, shared }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for socket in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let Ok(socket) = socket else { continue };
            let number = self.connections.fetch_add(1, Ordering::SeqCst);
            self.open.fetch_add(1, Ordering::SeqCst);
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                // Any error is the client's end of the connection.
                let _ = commands::serve(&shared, socket, number);
                shared.forget(number);
                shared.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    /// Lets go of the second descriptor of a connection's socket, by which the
    /// end of the server would end it: it would keep a reset from going out.
    fn forget(&self, connection: usize) {
        self.sockets
            .lock()
            .unwrap()
            .retain(|(number, _)| *number != connection);
    }

    /// What a test wants done about a command.
    fn ask(&self, command: &Command) -> Answer {
        let fits =
            |(start, _): &&(String, Handler)| command.name_and_arguments().starts_with(start);
        match self.handlers.iter().find(fits) {
            Some((_, handler)) => handler(command, &mut self.world.lock().unwrap()),
            None => Answer::Usual,
        }
    }

    fn announces(&self, capability: &str) -> bool {
        self.capabilities
            .split_whitespace()
            .any(|name| name.eq_ignore_ascii_case(capability))
    }
}
