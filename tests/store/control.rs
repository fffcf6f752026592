//! The control socket.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use popgate::store::Access;

use super::support::PATIENCE;
use super::*;

fn socket(state: &Path) -> PathBuf {
    state.join("control.sock")
}

fn remote(state: &Path) -> Access {
    let access = Access::open(state).unwrap();
    assert!(matches!(access, Access::Remote(_)));
    access
}

/// One request as it is sent, and its answer.
fn ask(state: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket(state)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_command_uses_the_store_of_the_popgate_that_runs() {
    let (folder, kept) = filled();
    let mut gateway = serve(folder.path());
    let access = remote(folder.path());
    let key = inbox("älice@example.com");
    wait(async {
        assert_eq!(access.folder(&key).await.unwrap(), kept);
        // One of them is new.
        let ids: Vec<_> = (1999..2001).map(frozen).collect();
        assert_eq!(access.freeze(&key, ids).await.unwrap(), 1);
        assert_eq!(access.folder(&key).await.unwrap().frozen.len(), 2001);
        let nobody = access.folder(&inbox("nobody")).await.unwrap();
        assert_eq!(nobody, Kept::default());
    });
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(!socket(folder.path()).exists());

    // Without one, it uses the store itself.
    let access = Access::open(folder.path()).unwrap();
    assert!(matches!(access, Access::Local(_)));
    wait(async {
        assert_eq!(access.folder(&key).await.unwrap().frozen.len(), 2001);
        assert_eq!(access.freeze(&key, vec![frozen(1)]).await.unwrap(), 0);
    });
}

#[test]
fn a_hundred_thousand_ids_are_frozen_at_once() {
    let state = tempfile::tempdir().unwrap();
    let _gateway = serve(state.path());
    let access = remote(state.path());
    wait(async {
        let ids: Vec<_> = (0..100_000).map(frozen).collect();
        let new = access.freeze(&inbox("alice"), ids).await.unwrap();
        assert_eq!(new, 100_000);
        let kept = access.folder(&inbox("alice")).await.unwrap();
        assert_eq!(kept.frozen.len(), 100_000);
        assert_eq!(kept.frozen[&message(4711)].1, frozen(4711).unique_id);
    });
}

#[test]
fn what_is_no_request_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let mut gateway = serve(state.path());
    drop(remote(state.path()));
    let mode = fs::metadata(socket(state.path()))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let long = "x".repeat(80);
    let wrong = [
        String::new(),
        "{}".to_owned(),
        "garbage".to_owned(),
        "{\"operation\":\"hide\"}".to_owned(),
        "{\"operation\":\"folder\",\"account\":\"a\"}".to_owned(),
        "[".repeat(100_000),
        format!("{{\"operation\":\"freeze\",\"account\":\"a\",\"folder\":\"b\",\"ids\":[{{\"message\":\"AA==\",\"rank\":1,\"unique_id\":\"{long}\"}}]}}"),
        "{\"operation\":\"freeze\",\"account\":\"a\",\"folder\":\"b\",\"ids\":[{\"message\":\"?\",\"rank\":1,\"unique_id\":\"a\"}]}".to_owned(),
    ];
    for request in wrong {
        let answer = ask(state.path(), request.as_bytes());
        assert!(
            answer.starts_with("{\"error\":\""),
            "{request:.40}: {answer}"
        );
        assert_eq!(answer.lines().count(), 1, "{answer}");
    }
    // Connections that say nothing, and that go away, are nobody's trouble.
    drop(UnixStream::connect(socket(state.path())).unwrap());
    let answer = ask(
        state.path(),
        b"{\"operation\":\"folder\",\"account\":\"a\",\"folder\":\"b\"}",
    );
    assert!(answer.starts_with("{\"ok\":{\"hidden\":[]"), "{answer}");
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn two_popgates_do_not_share_a_state_folder() {
    let (folder, kept) = filled();
    let mut gateway = serve(folder.path());
    drop(remote(folder.path()));
    let mut second = Gateway::spawn(&[
        "--pop3",
        "127.0.0.1:0",
        "--upstream",
        UPSTREAM,
        "--state",
        folder.path().to_str().unwrap(),
    ]);
    assert_eq!(second.wait().code(), Some(1));
    let words = "another popgate is using the state folder";
    assert!(second.logs().contains(words), "{}", second.logs());
    // The first one goes on.
    assert_eq!(
        wait(remote(folder.path()).folder(&inbox("älice@example.com"))).unwrap(),
        kept
    );
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
}
