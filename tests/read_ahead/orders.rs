//! Servers that answer many commands in an order of their own (RFC 3501 §5.5).

use std::collections::BTreeMap;
use std::sync::Mutex;

use support::Answer;

use super::*;

/// A server that takes `at_a_time` commands for text on the first connection
/// before it answers, and then says what `answers` makes of them. `count`
/// commands come.
fn grouping(
    all: &[Vec<u8>],
    at_a_time: usize,
    answers: impl Fn(&mut World, &[(u32, Command)]) -> Vec<u8> + Send + Sync + 'static,
) -> ScriptedImap {
    let waiting: Mutex<BTreeMap<usize, Vec<(u32, Command)>>> = Mutex::default();
    let last = u32::try_from(all.len()).unwrap();
    ScriptedImap::builder()
        .messages(all)
        .on("UID FETCH", move |command, world| {
            let Some(uid) = text_of(command) else {
                return Answer::Usual;
            };
            if command.connection > 0 {
                return Answer::Usual;
            }
            let mut waiting = waiting.lock().unwrap();
            let waiting = waiting.entry(command.connection).or_default();
            waiting.push((uid, command.clone()));
            if waiting.len() < at_a_time && uid != last {
                return Answer::Send(Vec::new());
            }
            let taken = std::mem::take(waiting);
            Answer::Send(answers(world, &taken))
        })
        .start()
}

fn ends(commands: &[(u32, Command)]) -> Vec<u8> {
    let ends: String = commands.iter().map(|(_, it)| it.ok("done")).collect();
    ends.into_bytes()
}

fn texts<'a>(world: &mut World, commands: impl Iterator<Item = &'a (u32, Command)>) -> Vec<u8> {
    commands.flat_map(|(uid, _)| fetched(world, *uid)).collect()
}

#[test]
fn text_of_several_before_any_command_ends() {
    // Dovecot does that, four at a time.
    for (at_a_time, octets) in [(2, 3000), (4, 3000), (4, 50_000), (4, 200_000), (32, 3000)] {
        let all = mails(64, octets);
        let server = grouping(
            &all,
            at_a_time.min(1 + 256 * 1024 / octets),
            |world, commands| [texts(world, commands.iter()), ends(commands)].concat(),
        );
        let rig = Rig::new(&server.plain_url());
        let mut session = rig.open();
        assert_retrieved(&mut session, &all, 0..64);
        assert_eq!((fetches(&server), server.connections()), (64, 1));
        assert_eq!(rig.wasted(), 0);
    }
}

#[test]
fn the_last_one_first() {
    for at_a_time in [2, 3, 4, 16] {
        let all = mails(64, 3000);
        let server = grouping(&all, at_a_time, |world, commands| {
            let each = commands.iter().rev().map(|(uid, command)| {
                [fetched(world, *uid), command.ok("done").into_bytes()].concat()
            });
            each.collect::<Vec<_>>().concat()
        });
        let rig = Rig::new(&server.plain_url());
        let mut session = rig.open();
        assert_retrieved(&mut session, &all, 0..64);
        assert_eq!((fetches(&server), server.connections()), (64, 1));
        assert_eq!(rig.wasted(), 0);
    }
}

#[test]
fn ends_in_another_order_than_text() {
    let all = mails(40, 3000);
    let server = grouping(&all, 4, |world, commands| {
        let ends: String = commands.iter().rev().map(|(_, it)| it.ok("done")).collect();
        [texts(world, commands.iter()), ends.into_bytes()].concat()
    });
    let mut session = Rig::new(&server.plain_url()).open();
    assert_retrieved(&mut session, &all, 0..40);
    assert_eq!((fetches(&server), server.connections()), (40, 1));
}

#[test]
fn more_at_once_than_is_kept_is_fetched_again() {
    let all = mails(20, 150_000);
    let listed_as_small = |server: &ScriptedImap| {
        for message in &mut server.world().inbox().messages {
            message.claimed_size = Some(3000);
        }
    };
    let waiting: Mutex<Option<Vec<(u32, Command)>>> = Mutex::new(Some(Vec::new()));
    let server = ScriptedImap::builder()
        .messages(&all)
        .on("UID FETCH", move |command, world| {
            let Some(uid) = text_of(command) else {
                return Answer::Usual;
            };
            let mut waiting = waiting.lock().unwrap();
            let Some(group) = &mut *waiting else {
                return Answer::Usual;
            };
            group.push((uid, command.clone()));
            if uid < 20 {
                return Answer::Send(Vec::new());
            }
            let answer = [texts(world, group.iter()), ends(group)].concat();
            *waiting = None;
            Answer::Send(answer)
        })
        .start();
    listed_as_small(&server);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open();
    assert_retrieved(&mut session, &all, 0..20);
    assert_eq!(server.connections(), 1);
    // Seven fit; nothing is kept beyond that, and nothing fetched ahead again.
    let octets = |count: usize| (count * 151_000) as u64;
    assert!(rig.used() <= octets(7), "{}", rig.used());
    assert!(rig.wasted() <= octets(19), "{}", rig.wasted());
    assert!(
        (30..=40).contains(&fetches(&server)),
        "{}",
        fetches(&server)
    );
}

#[test]
fn uids_behind_the_text() {
    let behind = |world: &mut World, uid: u32| {
        let message = world.inbox().message(uid).unwrap();
        let start = format!("* {uid} FETCH (BODY[] {{{}}}\r\n", message.octets.len());
        let end = format!(" UID {uid})\r\n");
        [start.as_bytes(), &message.octets, end.as_bytes()].concat()
    };
    // In order; then the other way round, where nothing says whose text it is.
    for (at_a_time, connections) in [(1, 1), (3, 2)] {
        let all = mails(40, 3000);
        let server = grouping(&all, at_a_time, move |world, commands| {
            let each = commands.iter().rev().map(|(uid, command)| {
                [behind(world, *uid), command.ok("done").into_bytes()].concat()
            });
            each.collect::<Vec<_>>().concat()
        });
        let mut session = Rig::new(&server.plain_url()).open();
        assert_retrieved(&mut session, &all, 0..40);
        assert_eq!(server.connections(), connections);
    }
}

#[test]
fn news_between_any_two_answers() {
    let all = mails(40, 3000);
    let server = grouping(&all, 2, |world, commands| {
        let mut sent = b"* 41 EXISTS\r\n".to_vec();
        for (uid, _) in commands {
            sent.extend(fetched(world, *uid));
            sent.extend(b"* 41 EXPUNGE\r\n* 40 EXISTS\r\n");
            sent.extend(format!("* {uid} FETCH (UID {uid} FLAGS (\\Seen))\r\n").into_bytes());
        }
        [sent, b"* OK still here\r\n".to_vec(), ends(commands)].concat()
    });
    let mut session = Rig::new(&server.plain_url()).open();
    assert_retrieved(&mut session, &all, 0..40);
    assert_eq!((fetches(&server), server.connections()), (40, 1));
}
