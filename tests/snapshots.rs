//! What popgate keeps of mailboxes from one login to the next may be of any age,
//! damaged, torn, gone or somebody else's: a client is shown what is there now,
//! each time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use support::{Cyrus, Dovecot, Gateway, MailServer, PATIENCE, Pop3, messages};
use tempfile::TempDir;

/// As in `src/store/snapshots.rs`.
const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshots");
const BLOCKS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("snapshot_blocks");

const USERS: [&str; 2] = ["alice", "bob"];

/// What happens to the cache, a file of the state folder that is given.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path));

/// A server with two mailboxes, and popgate's state for it.
struct Site<'a> {
    server: &'a MailServer,
    upstream: String,
    config: &'static str,
    state: TempDir,
    delivered: usize,
}

impl<'a> Site<'a> {
    fn new(server: &'a MailServer, upstream: String, config: &'static str) -> Self {
        let mut site = Self {
            server,
            upstream,
            config,
            state: tempfile::tempdir().unwrap(),
            delivered: 0,
        };
        for user in USERS {
            let mut imap = server.imap(user);
            imap.ok("SELECT INBOX");
            imap.empty_all();
        }
        site.deliver("alice", 40);
        // The same UIDs, and other sizes.
        site.deliver("bob", 40);
        site
    }

    fn cache(&self) -> PathBuf {
        self.state.path().join("cache.redb")
    }

    fn deliver(&mut self, user: &str, count: usize) {
        let mut imap = self.server.imap(user);
        for _ in 0..count {
            self.delivered += 1;
            let number = self.delivered;
            let (hour, minute) = (number / 60, number % 60);
            let time = format!("01-Jan-2026 {hour:02}:{minute:02}:00 +0000");
            imap.append_at("INBOX", &time, &messages::plain(number, 600 + 7 * number));
        }
    }

    /// Something arrives and something goes, as other clients have it.
    fn change(&mut self, round: usize) {
        for user in USERS {
            let there = self.server.mailbox(user, "INBOX");
            let gone = there[(round * 7) % there.len()].uid;
            let mut imap = self.server.imap(user);
            match round % 4 {
                // As many as before.
                0 => {
                    imap.expunge("INBOX", &gone.to_string());
                    self.deliver(user, 1);
                }
                // The last one, so that UIDNEXT alone tells of it.
                1 => {
                    let last = there.last().unwrap().uid;
                    imap.expunge("INBOX", &last.to_string());
                }
                2 => self.deliver(user, 2),
                _ => {}
            }
        }
    }

    fn popgate(&self, state: Option<&Path>) -> Gateway {
        let state = state.map(|state| format!("state = \"{}\"", state.display()));
        let text = format!(
            "pop3 = \"127.0.0.1:0\"\nallow_cleartext = true\nupstream = \"{}\"\n{}\n{}\n",
            self.upstream,
            state.unwrap_or_default(),
            self.config
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("popgate.toml");
        fs::write(&file, text).unwrap();
        Gateway::start_expecting(1, &["--config".as_ref(), file.as_os_str()])
    }

    /// Each user's maildrop is what the server has, and what a popgate lists that
    /// never saw it before.
    fn assert_right(&self, popgate: &Gateway, what: &str) {
        let cold = self.popgate(None);
        for user in USERS {
            let stored = self.server.mailbox(user, "INBOX");
            let mut pop3 = login(popgate, user);
            let sizes: Vec<usize> = stored.iter().map(|it| it.octets.len()).collect();
            assert_eq!(pop3.sizes(), sizes, "{what}: {user}");
            let (ids, stat) = (pop3.lines("UIDL"), pop3.expect_ok("STAT"));
            for number in [1, stored.len() / 2, stored.len()] {
                let message = &stored[number - 1].octets;
                assert!(pop3.retrieve(number) == *message, "{what}: {user} {number}");
            }
            pop3.quit();
            let mut pop3 = login(&cold, user);
            assert_eq!(ids, pop3.lines("UIDL"), "{what}: {user}");
            assert_eq!(stat, pop3.expect_ok("STAT"), "{what}: {user}");
        }
    }

    /// Two logins of each user, and the end, in order or as by a crash.
    fn round(&mut self, round: usize, what: &str) {
        eprintln!("round {round}: {what}");
        self.change(round);
        let mut popgate = self.popgate(Some(self.state.path()));
        self.assert_right(&popgate, what);
        self.change(round + 1);
        self.assert_right(&popgate, &format!("{what}, then as usual"));
        if round % 5 == 4 {
            popgate.kill();
        } else {
            popgate.terminate();
            assert!(popgate.wait().success());
        }
    }
}

/// Logs in, once the session before has noticed that it is over.
fn login(popgate: &Gateway, user: &str) -> Pop3 {
    let began = Instant::now();
    loop {
        let mut pop3 = popgate.pop3();
        pop3.expect_ok(&format!("USER {user}"));
        let reply = pop3.command(&format!("PASS pw-{user}"));
        if reply.starts_with("+OK") {
            return pop3;
        }
        assert!(
            reply.starts_with("-ERR [IN-USE]") && began.elapsed() < PATIENCE,
            "{user}: {reply}"
        );
    }
}

/// The rows of snapshots and their blocks; none where there are no such tables.
type Kept = (Vec<(u64, Vec<u8>)>, Vec<((u64, u32), Vec<u8>)>);

fn kept(cache: &Path) -> Kept {
    let database = Database::open(cache).unwrap();
    let transaction = database.begin_read().unwrap();
    let mut kept = Kept::default();
    match transaction.open_table(ROWS) {
        Ok(rows) => {
            for row in rows.iter().unwrap() {
                let (at, octets) = row.unwrap();
                kept.0.push((at.value(), octets.value().to_vec()));
            }
        }
        Err(TableError::TableDoesNotExist(_)) => return kept,
        Err(error) => panic!("{error}"),
    }
    for row in transaction.open_table(BLOCKS).unwrap().iter().unwrap() {
        let (at, octets) = row.unwrap();
        kept.1.push((at.value(), octets.value().to_vec()));
    }
    kept
}

/// Puts these in the place of what is there, in a file that is whole.
fn put(cache: &Path, (rows, blocks): &Kept) {
    let database = Database::open(cache).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(ROWS).unwrap();
        table.retain(|_, _| false).unwrap();
        for (at, octets) in rows {
            table.insert(at, octets.as_slice()).unwrap();
        }
        let mut table = transaction.open_table(BLOCKS).unwrap();
        table.retain(|_, _| false).unwrap();
        for (at, octets) in blocks {
            table.insert(at, octets.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn alter(cache: &Path, change: impl FnOnce(&mut Kept)) {
    let mut kept = kept(cache);
    change(&mut kept);
    put(cache, &kept);
}

fn alter_octets(cache: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut octets = fs::read(cache).unwrap();
    change(&mut octets);
    fs::write(cache, octets).unwrap();
}

fn change_an_octet_of_each<At>(rows: &mut [(At, Vec<u8>)], place: usize) {
    for (_, octets) in rows {
        let length = octets.len().max(1);
        if let Some(octet) = octets.get_mut(place % length) {
            *octet ^= 0x11;
        }
    }
}

fn whatever_becomes_of_the_cache(server: &MailServer, upstream: String, config: &'static str) {
    let mut site = Site::new(server, upstream, config);
    site.round(0, "nothing is known yet");
    // As it was long ago.
    let old = fs::read(site.cache()).unwrap();
    let old_rows = kept(&site.cache());
    let damages: &[Damage<'_>] = &[
        ("nothing", &|_| {}),
        ("each changed", &|cache| {
            alter(cache, |kept| {
                change_an_octet_of_each(&mut kept.0, 1000);
                change_an_octet_of_each(&mut kept.1, 1000);
            });
        }),
        ("blocks changed", &|cache| {
            alter(cache, |kept| change_an_octet_of_each(&mut kept.1, 0));
        }),
        ("blocks cut", &|cache| {
            alter(cache, |kept| {
                for (_, octets) in &mut kept.1 {
                    octets.pop();
                }
            });
        }),
        ("blocks gone", &|cache| alter(cache, |kept| kept.1.clear())),
        ("accounts changed places", &|cache| {
            alter(cache, |kept| {
                kept.0.iter_mut().for_each(|(at, _)| *at ^= 1);
                kept.1.iter_mut().for_each(|((at, _), _)| *at ^= 1);
            });
        }),
        ("blocks of the other account", &|cache| {
            alter(cache, |kept| {
                kept.1.iter_mut().for_each(|((at, _), _)| *at ^= 1);
            });
        }),
        ("rows of long ago", &|cache| {
            alter(cache, |kept| kept.0.clone_from(&old_rows.0));
        }),
        ("blocks of long ago", &|cache| {
            alter(cache, |kept| kept.1.clone_from(&old_rows.1));
        }),
        ("all of long ago", &|cache| put(cache, &old_rows)),
        ("the file of long ago", &|cache| {
            fs::write(cache, &old).unwrap()
        }),
        ("the file cut", &|cache| {
            alter_octets(cache, |octets| octets.truncate(octets.len() / 2));
        }),
        ("the file empty", &|cache| fs::write(cache, "").unwrap()),
        ("the file gone", &|cache| fs::remove_file(cache).unwrap()),
        ("the file changed all over", &|cache| {
            alter_octets(cache, |octets| {
                octets.iter_mut().step_by(97).for_each(|it| *it ^= 0x40);
            });
        }),
        ("zeros in the file", &|cache| {
            alter_octets(cache, |octets| {
                let middle = octets.len() / 2;
                octets[middle..].fill(0);
            });
        }),
    ];
    let mut round = 1;
    for (what, damage) in damages {
        damage(&site.cache());
        site.round(round, what);
        round += 1;
    }
    // One octet after the other, from the head of the file to its end.
    for part in 0..8 {
        alter_octets(&site.cache(), |octets| {
            let place = octets.len() / 8 * part + 100 * part;
            octets[place] ^= 0x08;
        });
        site.round(round, &format!("an octet in part {part}"));
        round += 1;
    }
}

#[test]
fn by_imap() {
    let Some(dovecot) = Dovecot::start() else {
        return;
    };
    whatever_becomes_of_the_cache(&dovecot, dovecot.plain_url(), "");
}

/// More is kept of each message than its UID and size.
#[test]
fn by_imap_with_ids_of_messages() {
    let Some(dovecot) = Dovecot::start() else {
        return;
    };
    whatever_becomes_of_the_cache(&dovecot, dovecot.plain_url(), "unique_ids = \"%g\"");
}

#[test]
fn by_jmap() {
    let Some(cyrus) = Cyrus::start() else {
        return;
    };
    whatever_becomes_of_the_cache(&cyrus, cyrus.jmap_url(), "");
}
