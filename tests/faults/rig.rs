//! Dovecot, a proxy whose connections break on demand, and popgate.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{
    Action, Direction, Dovecot, Fault, FaultProxy, Gateway, PATIENCE, Place, Pop3, Stored,
};

pub struct Rig {
    pub dovecot: Dovecot,
    pub proxy: FaultProxy,
    pub gateway: Gateway,
    armed: Armed,
}

type Armed = Arc<Mutex<Plan>>;

/// What happens to the connections from now on.
#[derive(Default)]
struct Plan {
    next: Option<Vec<Fault>>,
    later: Vec<Fault>,
}

impl Rig {
    /// With more arguments for popgate and options for `start-dovecot`.
    pub fn with(arguments: &[&str], options: &[(&str, &str)]) -> Option<Self> {
        let dovecot = Dovecot::with(options)?;
        let armed = Armed::default();
        let plan = Arc::clone(&armed);
        let proxy = FaultProxy::to_port(dovecot.imap_port(), move |_| {
            let mut plan = plan.lock().unwrap();
            plan.next.take().unwrap_or_else(|| plan.later.clone())
        });
        let gateway = start_gateway(&proxy, arguments);
        Some(Self {
            dovecot,
            proxy,
            gateway,
            armed,
        })
    }

    pub fn start(arguments: &[&str]) -> Option<Self> {
        Self::with(arguments, &[])
    }

    /// The next connection upstream has these faults, and only that one.
    pub fn arm(&self, faults: Vec<Fault>) {
        self.armed.lock().unwrap().next = Some(faults);
    }

    /// All connections have these faults, behind the one that is armed.
    pub fn later(&self, faults: Vec<Fault>) {
        self.armed.lock().unwrap().later = faults;
    }

    /// No more faults.
    pub fn disarm(&self) {
        *self.armed.lock().unwrap() = Plan::default();
    }

    /// A client of this user, logged in, in the clear.
    pub fn login(&self, user: &str) -> Pop3 {
        let mut client = self.gateway.pop3();
        client.login(user, &format!("pw-{user}"));
        client
    }

    /// Puts these messages, and no others, into a user's INBOX; the Trash is
    /// empty then.
    pub fn deliver(&self, user: &str, messages: &[Vec<u8>]) {
        let mut imap = self.dovecot.imap(user);
        for mailbox in ["INBOX", "Trash"] {
            if !imap.dump(mailbox).is_empty() {
                imap.expunge(mailbox, "1:*");
            }
        }
        for message in messages {
            imap.append("INBOX", message);
        }
    }

    pub fn inbox(&self, user: &str) -> Vec<Stored> {
        self.dovecot.mailbox(user, "INBOX")
    }

    /// Waits until so many sessions have ended.
    pub fn wait_until_ended(&self, sessions: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.gateway.logs().matches("session ended").count() < sessions {
            assert!(
                Instant::now() < deadline,
                "sessions do not end:\n{}",
                self.gateway.logs()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// popgate in front of the proxy, with a connection of its own for each session.
/// A configuration that is given has to see to that itself.
pub fn start_gateway(proxy: &FaultProxy, arguments: &[&str]) -> Gateway {
    let arguments = [&["--allow-cleartext"], arguments].concat();
    match arguments.contains(&"--config") {
        true => Gateway::in_front_of(&proxy.plain_url(), &arguments),
        false => Gateway::with_fresh_connections(&proxy.plain_url(), &arguments),
    }
}

/// A place in one direction of a connection.
pub type Spot = (Direction, Place);

/// In front of what popgate sends.
pub fn before_sent(octets: &'static str) -> Spot {
    (Direction::ToServer, Place::before(octets))
}

/// Behind what popgate sends.
pub fn after_sent(octets: &'static str) -> Spot {
    (Direction::ToServer, Place::after(octets))
}

/// In front of what Dovecot sends.
pub fn before_answer(octets: &'static str) -> Spot {
    (Direction::ToClient, Place::before(octets))
}

/// Behind what Dovecot sends.
pub fn after_answer(octets: &'static str) -> Spot {
    (Direction::ToClient, Place::after(octets))
}

/// The same at the n-th appearance.
pub fn nth(n: usize, (direction, place): Spot) -> Spot {
    let place = match place {
        Place::Pattern { octets, behind, .. } => Place::Pattern {
            octets,
            nth: n,
            behind,
        },
        behind @ Place::Behind(_) => behind,
    };
    (direction, place)
}

pub fn fault((direction, place): &Spot, action: Action) -> Fault {
    Fault::At(*direction, place.clone(), action)
}

/// Text for a place that is made at run time.
pub fn place_text(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}
