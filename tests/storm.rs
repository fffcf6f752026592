//! Many users at once, at random, over connections that break at random: nobody
//! reads another's mail, half a message never looks whole, a password is never
//! blamed for an outage, and only what was deleted and confirmed is gone.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use support::{Action, Direction, Dovecot, Fault, FaultProxy, Gateway, Place, Pop3, messages};

const USERS: usize = 24;
const MESSAGES: usize = 12;
const SESSIONS: usize = 12;

/// Numbers that are the same in each run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn size(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll(sides as u64)).unwrap()
    }
}

fn name(user: usize) -> String {
    format!("user{user:02}")
}

/// A message that says whose it is and which.
fn message(user: usize, number: usize) -> Vec<u8> {
    let octets = [300, 20_000, 200_000][number % 3];
    let mut message = format!("X-Canary: {} {number} ;\r\n", name(user)).into_bytes();
    message.extend_from_slice(&messages::plain(number, octets));
    message
}

/// The number that a message of this user gives itself.
fn number(user: usize, message: &[u8]) -> usize {
    let text = String::from_utf8_lossy(message);
    let canary = text.lines().find(|line| line.starts_with("X-Canary: "));
    let words: Vec<&str> = canary.unwrap_or_default().split(' ').collect();
    assert_eq!(
        words.get(1).copied(),
        Some(name(user).as_str()),
        "another's mail"
    );
    words[2].parse().unwrap()
}

/// Half of the connections break somewhere.
fn weather(connection: usize) -> Vec<Fault> {
    let mut dice = Dice(0x9e37_79b9 + 7919 * connection as u64);
    for _ in 0..5 {
        dice.roll(2);
    }
    if dice.roll(2) == 0 {
        return Vec::new();
    }
    let action = [Action::Cut, Action::Reset][dice.size(2)];
    let (direction, reach) = match dice.roll(3) {
        0 => (Direction::ToServer, 600),
        _ => (Direction::ToClient, 60_000),
    };
    vec![Fault::At(
        direction,
        Place::Behind(dice.roll(reach)),
        action,
    )]
}

/// What became of a user's messages, as far as the client knows.
#[derive(Default)]
struct Fate {
    /// Deleted, and QUIT was answered +OK.
    gone: BTreeSet<usize>,
    /// Deleted, QUIT was sent, and what came back was not +OK.
    open: BTreeSet<usize>,
    /// Sessions that came to TRANSACTION state, and messages read whole.
    opened: usize,
    read: usize,
}

/// One session at random.
fn session(user: usize, gateway: &Gateway, dice: &mut Dice, fate: &mut Fate) -> Option<()> {
    let mut client = gateway.pop3();
    let ask = |client: &mut Pop3, command: &str| -> Option<String> {
        client.try_send(format!("{command}\r\n").as_bytes()).ok()?;
        let line = client.try_line().ok()??;
        let line = String::from_utf8(line).unwrap();
        assert!(!line.contains("[AUTH]"), "{command}: {line}");
        Some(line)
    };
    ask(&mut client, &format!("USER {}", name(user)))?;
    let login = ask(&mut client, &format!("PASS pw-{}", name(user)))?;
    if !login.starts_with("+OK") {
        assert!(
            login.contains("[SYS/TEMP]") || login.contains("[IN-USE]"),
            "{login}"
        );
        return None;
    }
    fate.opened += 1;
    let stat = ask(&mut client, "STAT")?;
    let count: usize = stat.split(' ').nth(1).unwrap().parse().unwrap();
    let mut marked = BTreeSet::new();
    for _ in 0..dice.roll(8) {
        if count == 0 {
            break;
        }
        let at = 1 + dice.size(count);
        if !ask(&mut client, &format!("RETR {at}"))?.starts_with("+OK") {
            continue;
        }
        let octets = client.try_multiline().ok()?;
        let number = number(user, &octets);
        assert!(
            octets == message(user, number),
            "{} {number} is not whole",
            name(user)
        );
        fate.read += 1;
        if dice.roll(3) == 0 && ask(&mut client, &format!("DELE {at}"))?.starts_with("+OK") {
            marked.insert(number);
        }
    }
    if dice.roll(3) == 0 {
        // Gone without QUIT: nothing may be deleted.
        return None;
    }
    fate.open.extend(&marked);
    if ask(&mut client, "QUIT")?.starts_with("+OK") {
        for number in marked {
            fate.open.remove(&number);
            fate.gone.insert(number);
        }
    }
    Some(())
}

#[test]
fn many_users_in_bad_weather() {
    let users: Vec<String> = (0..USERS)
        .map(|user| format!("{0}:{{PLAIN}}pw-{0}", name(user)))
        .collect();
    let Some(dovecot) = Dovecot::with(&[("USERS", &users.join("\n"))]) else {
        return;
    };
    for user in 0..USERS {
        let mut imap = dovecot.imap(&name(user));
        for number in 1..=MESSAGES {
            imap.append("INBOX", &message(user, number));
        }
    }
    let proxy = FaultProxy::to_port(dovecot.imap_port(), weather);
    let gateway = Gateway::in_front_of(
        &proxy.plain_url(),
        &["--allow-cleartext", "--delete", "expunge"],
    );
    let fates: Vec<Fate> = std::thread::scope(|scope| {
        let run = |user: usize| {
            let gateway = &gateway;
            move || {
                let mut dice = Dice(0xdead_beef + 104_729 * user as u64);
                let mut fate = Fate::default();
                for _ in 0..SESSIONS {
                    let _ = session(user, gateway, &mut dice, &mut fate);
                }
                fate
            }
        };
        let threads: Vec<_> = (0..USERS).map(|user| scope.spawn(run(user))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(proxy.acted() > USERS as u64, "the weather was fine");
    let total = |count: fn(&Fate) -> usize| fates.iter().map(count).sum::<usize>();
    assert!(total(|fate| fate.opened) > USERS, "nobody got through");
    assert!(total(|fate| fate.read) > USERS, "nobody read anything");
    assert!(
        total(|fate| fate.gone.len()) > USERS / 2,
        "nothing was deleted"
    );
    for (user, fate) in fates.iter().enumerate() {
        let held: BTreeMap<usize, _> = dovecot
            .mailbox(&name(user), "INBOX")
            .into_iter()
            .map(|stored| (number(user, &stored.octets), stored))
            .collect();
        for number in 1..=MESSAGES {
            let who = format!("{} {number}", name(user));
            match held.get(&number) {
                Some(_) if fate.gone.contains(&number) => panic!("{who} was confirmed gone"),
                Some(stored) => assert!(stored.octets == message(user, number), "{who}"),
                None => assert!(
                    fate.gone.contains(&number) || fate.open.contains(&number),
                    "{who} is gone, and nobody asked for it"
                ),
            }
        }
    }
}
