//! What clients do, and what is fetched ahead of them.

use super::*;

/// The first window.
const FIRST: u64 = 256 * 1024;

fn server(all: &[Vec<u8>]) -> ScriptedImap {
    ScriptedImap::builder().messages(all).start()
}

#[test]
fn in_order_each_message_is_fetched_once_and_before_it_is_asked_for() {
    let all = mails(200, 3000);
    let server = server(&all);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open();
    assert_retrieved(&mut session, &all, [0]);
    wait_for_fetches(&server, 33);
    assert_retrieved(&mut session, &all, 1..200);
    assert_eq!(fetches(&server), 200);
    let octets: usize = all[1..].iter().map(Vec::len).sum();
    assert_eq!(rig.used(), octets as u64);
    run(session.close());
    assert_eq!(rig.wasted(), 0);
    assert_eq!(server.connections(), 1);
}

#[test]
fn backwards_too() {
    let all = mails(100, 3000);
    let server = server(&all);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open();
    assert_retrieved(&mut session, &all, [99, 98]);
    wait_for_fetches(&server, 30);
    assert_retrieved(&mut session, &all, (0..98).rev());
    assert_eq!(fetches(&server), 100);
    assert_eq!(rig.wasted(), 0);
}

#[test]
fn from_the_middle_after_others() {
    let all = mails(100, 3000);
    let server = server(&all);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open();
    assert_retrieved(&mut session, &all, (0..3).chain(50..100));
    assert!(rig.wasted() <= 2 * FIRST, "{}", rig.wasted());
    assert_eq!(server.connections(), 1);
    let behind: usize = all[52..].iter().map(Vec::len).sum();
    assert!(rig.used() >= behind as u64, "{}", rig.used());
}

#[test]
fn without_an_order_it_stops() {
    let orders: [Vec<usize>; 4] = [
        (0..100).step_by(2).collect(),
        (0..100).step_by(7).collect(),
        (0..100).map(|it| it * 37 % 100).collect(),
        (0..100).map(|it| it / 2).collect(),
    ];
    for order in orders {
        let all = mails(100, 3000);
        let server = server(&all);
        let rig = Rig::new(&server.plain_url());
        let mut session = rig.open();
        assert_retrieved(&mut session, &all, order.iter().copied());
        run(session.close());
        assert!(rig.wasted() <= 2 * FIRST, "{order:?}: {}", rig.wasted());
        assert!(fetches(&server) <= order.len() + 64, "{order:?}");
        assert_eq!(server.connections(), 1, "{order:?}");
    }
}

#[test]
fn gaps_now_and_then_do_not_stop_it() {
    let all = mails(300, 1000);
    let server = server(&all);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open();
    let order: Vec<usize> = (0..300).filter(|it| it % 50 != 49).collect();
    let octets: usize = order.iter().map(|it| all[*it].len()).sum();
    assert_retrieved(&mut session, &all, order);
    // Where a gap has ended what was on its way, one message is waited for.
    assert!(rig.used() >= octets as u64 - 7 * 1500, "{}", rig.used());
    assert!(rig.wasted() <= 6 * 1500, "{}", rig.wasted());
    assert_eq!(server.connections(), 1);
}

#[test]
fn delete_each_and_quit() {
    let all = mails(60, 3000);
    let server = server(&all);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open_under(&expunging());
    assert_retrieved(&mut session, &all, 0..60);
    quit(session, (0..60).collect());
    assert!(server.uids("INBOX").is_empty());
    assert_eq!((rig.wasted(), server.connections()), (0, 1));
}

#[test]
fn one_of_many_is_read_and_deleted() {
    let all = mails(60, 3000);
    let server = server(&all);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open_under(&expunging());
    assert_retrieved(&mut session, &all, [0]);
    quit(session, vec![0]);
    assert_eq!(server.uids("INBOX"), (2..=60).collect::<Vec<_>>());
    assert!(rig.wasted() <= FIRST, "{}", rig.wasted());
    assert_eq!(server.connections(), 1);
}

#[test]
fn tops_in_order_fetch_headers_alone() {
    let all = mails(100, 30_000);
    let server = server(&all);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open();
    let top = Portion::Top { lines: 0 };
    let header = |message: usize| {
        let end = memchr::memmem::find(&all[message], b"\r\n\r\n").unwrap();
        &all[message][..end + 4]
    };
    for message in 0..100 {
        let octets = try_portion(&mut session, message, top).unwrap();
        assert!(octets == header(message), "message {message}");
        if message == 1 {
            wait_for_fetches(&server, 17);
        }
    }
    assert_eq!(fetches(&server), 100);
    assert_eq!(
        server
            .commands_starting("UID FETCH")
            .iter()
            .filter(|it| it.contains("[]"))
            .count(),
        0
    );
    // Then some of them are read.
    assert_retrieved(&mut session, &all, [7, 20, 21, 22]);
    assert_eq!(server.connections(), 1);
}

#[test]
fn the_top_and_the_whole_of_each_do_not_cross_each_other() {
    let all = mails(50, 3000);
    let server = server(&all);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open();
    for message in 0..50 {
        try_portion(&mut session, message, Portion::Top { lines: 0 }).unwrap();
        assert_retrieved(&mut session, &all, [message]);
    }
    assert!(fetches(&server) <= 100 + 32);
    assert!(rig.wasted() <= 32 * 1024, "{}", rig.wasted());
    assert_eq!(server.connections(), 1);
}

#[test]
fn some_lines_of_each() {
    // Some fit into the first part, others do not.
    let mut all = mails(20, 3000);
    all.extend(mails(20, 40_000));
    let server = server(&all);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open();
    for (message, mail) in all.iter().enumerate() {
        let octets = try_portion(&mut session, message, Portion::Top { lines: 3 }).unwrap();
        assert!(octets.len() > 300, "message {message}");
        assert!(mail.starts_with(&octets), "message {message}");
    }
}

#[test]
fn large_messages_are_not_fetched_ahead() {
    let all = [mails(2, 3000), mails(2, 1_500_000), mails(3, 3000)].concat();
    let server = server(&all);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open();
    assert_retrieved(&mut session, &all, 0..7);
    let ahead = [1, 5, 6].map(|message: usize| all[message].len() as u64);
    assert!(
        rig.used() <= ahead.iter().sum::<u64>() + 3100,
        "{}",
        rig.used()
    );
    assert_eq!(fetches(&server), 7);
}

#[test]
fn switched_off_nothing_is_fetched_ahead() {
    let all = mails(10, 3000);
    let server = server(&all);
    let rig = Rig::with(&server.plain_url(), |config| {
        config.economy.read_ahead = ReadAhead::OFF;
    });
    let mut session = rig.open();
    for message in 0..5 {
        assert_retrieved(&mut session, &all, [message]);
    }
    run(session.close());
    server.wait_until_closed();
    assert_eq!(fetches(&server), 5);
    assert_eq!((rig.used(), rig.wasted()), (0, 0));
}

#[test]
fn the_process_has_a_budget_and_gets_it_back() {
    let all = mails(20, 3000);
    let server = server(&all);
    let rig = Rig::with(&server.plain_url(), |config| {
        config.economy.read_ahead.process = 33_000; // Ten of them.
    });
    let ahead_of = |session: &mut Session, before: usize, count: usize| {
        assert_retrieved(session, &all, [0]);
        wait_for_fetches(&server, before + count);
        assert_eq!(fetches(&server), before + count);
    };
    let mut first = rig.open();
    ahead_of(&mut first, 0, 11);
    // Nothing is left for another.
    let mut second = rig.open();
    ahead_of(&mut second, 11, 1);
    // However the first one ends.
    drop(first);
    let mut third = rig.open();
    ahead_of(&mut third, 12, 11);
    run(third.close());
    drop(third);
    assert_retrieved(&mut second, &all, 1..20);
    drop(second);
    let mut fourth = rig.open();
    ahead_of(&mut fourth, 23 + 19, 11);
}

#[test]
fn marking_each_as_read_goes_before() {
    let all = mails(10, 3000);
    let server = server(&all);
    let rig = Rig::new(&server.plain_url());
    let mut session = rig.open_under(&Policy {
        seen: popgate::maildrop::SeenPolicy::OnRetr,
        ..Policy::default()
    });
    assert_retrieved(&mut session, &all, 0..5);
    assert_eq!(fetches(&server), 5);
    let seen = |uid| {
        server
            .world()
            .inbox()
            .message(uid)
            .unwrap()
            .has_flag("\\Seen")
    };
    assert_eq!((1..=10).filter(|uid| seen(*uid)).count(), 5);
}

#[test]
fn what_is_fetched_ahead_is_not_marked() {
    let all = mails(10, 3000);
    let server = server(&all);
    let mut session = Rig::new(&server.plain_url()).open_under(&expunging());
    assert_retrieved(&mut session, &all, [0]);
    wait_for_fetches(&server, 10);
    run(session.close());
    let mut world = server.world();
    assert!(world.inbox().messages.iter().all(|it| it.flags.is_empty()));
}
