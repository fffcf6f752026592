//! The file that `export` writes and `import --from-file` reads.

use std::fs;

use super::old_server::{Manner, OldServer};
use super::support::ScriptedImap;
use super::{Uidl, message};

#[test]
fn what_one_gateway_exports_another_one_imports() {
    let all: Vec<Vec<u8>> = (1..=5).map(|n| message(&format!("m{n}"), n * 7)).collect();
    let texts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let first = ScriptedImap::with_messages(&texts);
    let old: Vec<(Vec<u8>, &str)> = vec![
        (all[3].clone(), "old-4"),
        (all[0].clone(), "old-1"),
        (all[1].clone(), "old-2"),
    ];
    let old = OldServer::start(&old, Manner::default());
    let before = Uidl::new(&first.plain_url());
    let report = before.imported(&old.url(), &[]);
    assert_eq!(report["unmatched_new"], serde_json::json!([3, 5]));
    let served = before.served();
    // The old server's order, then what is new.
    assert_eq!(served[..3], ["old-4", "old-1", "old-2"]);
    assert_eq!(served.len(), 5);

    // A window is for clients: the ids outside it travel, too.
    let window = before.state.path().join("window.toml");
    fs::write(&window, "max_messages = 2\n").unwrap();
    let window = ["--config", window.to_str().unwrap()];
    let all_of_it = before.run(&[&["export", "--user", "alice"], &window[..]].concat(), "");
    assert!(all_of_it.out.ends_with("end 5\n"), "{}", all_of_it.out);

    // Another server, where the mail lies in another order.
    let mut moved = texts.clone();
    moved.reverse();
    let second = ScriptedImap::with_messages(&moved);
    let after = Uidl::new(&second.plain_url());
    let file = after.state.path().join("ids");
    let file = file.to_str().unwrap();
    let exported = before.run(&["export", "--user", "alice", "--output", file], "");
    assert_eq!(exported.code, 0, "{}", exported.err);
    assert!(exported.out.is_empty());
    let from_file = ["import", "--user", "alice", "--from-file", file];
    let imported = after.run(&from_file, "");
    assert_eq!(imported.code, 0, "{}{}", imported.out, imported.err);
    assert!(
        imported.out.contains("5 unique ids frozen"),
        "{}",
        imported.out
    );
    assert_eq!(after.served(), served);

    // Cut off, it is refused, from the standard input, too.
    let text = fs::read_to_string(file).unwrap();
    let cut = &text[..text.rfind("end").unwrap()];
    let third = Uidl::new(&second.plain_url());
    let piped = ["import", "--user", "alice", "--from-file", "-"];
    let refused = third.run(&piped, cut);
    assert_eq!(refused.code, 78);
    assert!(refused.err.contains("cut off"), "{}", refused.err);
    assert_eq!(third.run(&piped, &text).code, 0);
    assert_eq!(third.served(), served);
    for server in [&first, &second] {
        for verb in ["SELECT", "UID STORE", "UID MOVE", "UID EXPUNGE", "APPEND"] {
            assert_eq!(server.commands_starting(verb), [""; 0]);
        }
    }
}
