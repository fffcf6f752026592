//! What a guesser gets, and what he does to others.

use popgate::accounts::Home;
use popgate::server::policies::Judge;

use super::{Setup, WRONG, World, judged};

#[test]
fn answers_do_not_tell_who_exists() {
    let world = World::with(Setup {
        policies: judged(Judge::Accounts, Home::Gateway),
        ..Setup::default()
    });
    world.enrolled("alice@example.org", "access-1");
    world.enrolled("closed@example.org", "access-1");
    world.change("closed@example.org", |account| account.disabled = true);
    world.device(
        "chosen@example.org",
        Home::Gateway,
        Some("correct horse battery"),
        |_, _| {},
    );
    world.account("admin", Home::Gateway, |_, account| account.master = true);
    let users = [
        "alice@example.org",
        "closed@example.org",
        "chosen@example.org",
        "nobody@example.org",
        "admin",
        "alice@example.org*admin",
        "nobody@example.org*admin",
        "alice@example.org*nobody",
        "alice@example.org+Junk",
        "nobody@example.org+Junk",
    ];
    let answers: Vec<String> = std::thread::scope(|scope| {
        let refused = users.map(|user| scope.spawn(|| world.refused(user, "wrong")));
        refused.into_iter().map(|it| it.join().unwrap()).collect()
    });
    for (user, answer) in users.iter().zip(answers) {
        assert_eq!(answer, WRONG, "{user}");
    }
    assert!(world.own.logins().is_empty() && world.other.logins().is_empty());
}

#[test]
fn the_owner_logs_in_during_a_flood() {
    let world = World::new();
    world.other.opens("alice@example.org", &["token access-1"]);
    let generated = world.enrolled("alice@example.org", "access-1");
    let chosen = "correct horse battery";
    let home = Home::Provider("mail".to_owned());
    world.device(
        "carol@example.org",
        home,
        Some(chosen),
        |accounts, account| {
            super::set_tokens(accounts, account, "access-1", 3600);
        },
    );
    world.other.opens("carol@example.org", &["token access-1"]);
    // She is known from before.
    world.login("carol@example.org", chosen).unwrap().quit();
    let mut guessers = Vec::new();
    for number in 0..120 {
        let mut guesser = world.connect();
        let user = ["alice@example.org", "carol@example.org"][number % 2];
        guesser.send(&format!("USER {user}"));
        guesser.send(&format!("PASS guess {number}"));
        guessers.push(guesser);
    }
    world.login("alice@example.org", &generated).unwrap().quit();
    world.login("carol@example.org", chosen).unwrap().quit();
    // The guessers learn nothing: where too many passwords are being compared, theirs
    // is not.
    for mut guesser in guessers {
        assert!(guesser.line().starts_with("+OK"));
        let told = guesser.line();
        assert!(
            told == WRONG || told.starts_with("-ERR [SYS/TEMP]"),
            "{told}"
        );
    }
}

#[test]
fn guessers_make_room_where_there_is_none() {
    let world = World::with(Setup {
        connections: Some(20),
        ..Setup::default()
    });
    world.other.opens("alice@example.org", &["token access-1"]);
    let password = world.enrolled("alice@example.org", "access-1");
    let quiet = world.connect();
    let mut guessers = Vec::new();
    for number in 0..19 {
        let mut guesser = world.connect();
        guesser.send("USER alice@example.org");
        guesser.send(&format!("PASS guess {number}"));
        guessers.push(guesser);
    }
    world.wait_for("popgate_logins_total{result=\"refused\"}", "19");
    world.wait_for("popgate_logins_held_up", "19");
    world.login("alice@example.org", &password).unwrap().quit();
    world.wait_for("popgate_sessions_total{reason=\"crowded\"}", "1");
    // Who has not guessed is left alone.
    quiet.quit();
}
