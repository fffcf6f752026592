//! Webhooks and commands that work, fail, hang and lie.

use std::fs;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

fn message() -> Message {
    Message {
        event: Event::SignInNeeded,
        address: "alice@example.org".to_owned(),
        delegate: None,
        provider: "mail".to_owned(),
        since: 1_700_000_000,
        reason: "revoked".to_owned(),
        sign_in: None,
    }
}

fn command(script: &str) -> Alarm {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Alarm {
        command: Some(command),
        ..Alarm::default()
    }
}

/// A server that answers so, one request after the other, and what it was sent.
async fn webhook(answers: &'static [&'static str]) -> (Alarm, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?key=canary", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut seen = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                stream.read_buf(&mut request).await.unwrap();
            }
            seen.push(String::from_utf8(request).unwrap());
            let answer =
                format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        seen
    });
    let alarm = Alarm {
        webhook: Some(url.parse().unwrap()),
        ..Alarm::default()
    };
    (alarm, serving)
}

#[tokio::test]
async fn a_webhook_gets_json() {
    let (alarm, serving) = webhook(&["204 No Content"]).await;
    assert!(alarm.tell(&message()).await.is_known());
    let seen = serving.await.unwrap();
    let (head, body) = seen[0].split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /hook?key=canary HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("content-type: application/json"), "{head}");
    let json: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = serde_json::json!({
        "event": "sign-in-needed",
        "address": "alice@example.org",
        "provider": "mail",
        "since": 1_700_000_000,
        "reason": "revoked",
    });
    assert_eq!(json, expected);
}

#[tokio::test]
async fn a_webhook_that_is_busy_is_tried_again() {
    let (alarm, serving) = webhook(&["503 Busy", "200 OK"]).await;
    assert!(alarm.tell(&message()).await.is_known());
    assert_eq!(serving.await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_webhook_that_refuses_or_sends_elsewhere_is_not() {
    for answer in [
        &["403 Forbidden"],
        &["302 Found\r\nLocation: http://127.0.0.1:9/"],
    ] {
        let (alarm, serving) = webhook(answer).await;
        assert!(!alarm.tell(&message()).await.is_known());
        assert_eq!(serving.await.unwrap().len(), 1);
    }
}

#[test]
fn what_accounts_are_called_goes_nowhere_in_the_clear() {
    for (url, may) in [
        ("https://hooks.example.org/x", true),
        ("http://127.0.0.1:8080/x", true),
        ("http://[::1]/x", true),
        ("http://localhost/x", true),
        ("http://hooks.example.org/x", false),
        ("http://127.0.0.1.example.org/x", false),
        ("http://192.168.0.1/x", false),
        ("ftp://127.0.0.1/x", false),
    ] {
        assert_eq!(may_be_told(&url.parse().unwrap()), may, "{url}");
    }
}

#[tokio::test]
async fn a_command_gets_json_and_little_else() {
    let folder = tempfile::tempdir().unwrap();
    let (json, environment) = (
        folder.path().join("json"),
        folder.path().join("environment"),
    );
    let script = format!("cat >{}; env >{}", json.display(), environment.display());
    assert!(command(&script).tell(&message()).await.is_known());
    let json = fs::read_to_string(json).unwrap();
    assert_eq!(json, serde_json::to_string(&message()).unwrap());
    // The shell adds some of its own.
    let allowed = ["PWD", "SHLVL", "_", "OLDPWD"];
    for line in fs::read_to_string(environment).unwrap().lines() {
        let name = line.split('=').next().unwrap();
        let is_allowed = ENVIRONMENT.contains(&name) || allowed.contains(&name);
        assert!(is_allowed, "{line}");
    }
}

#[tokio::test]
async fn a_command_that_fails_or_is_not_there_has_told_nobody() {
    for alarm in [
        command("exit 3"),
        command("kill -9 $$"),
        Alarm {
            command: Some(vec!["/nowhere/hook".to_owned()]),
            ..Alarm::default()
        },
    ] {
        assert!(!alarm.tell(&message()).await.is_known());
    }
    // It need not read what it is told.
    assert!(command("exec true").tell(&message()).await.is_known());
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let alarm = Alarm {
        patience: Duration::from_millis(300),
        ..command(&format!(
            "sleep 600 & echo $! >{}; trap '' TERM; wait; wait",
            file.display()
        ))
    };
    assert!(!alarm.tell(&message()).await.is_known());
    let pid = fs::read_to_string(file).unwrap();
    let state = format!("/proc/{}/stat", pid.trim());
    // Gone, or dead and not yet waited for by whoever inherits it.
    while let Ok(stat) = fs::read_to_string(&state) {
        if stat.contains(") Z ") {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn one_that_knows_is_enough() {
    let (hook, serving) = webhook(&["200 OK"]).await;
    let alarm = Alarm {
        command: command("exit 1").command,
        ..hook
    };
    assert!(alarm.tell(&message()).await.is_known());
    serving.await.unwrap();
    assert!(!Alarm::default().tell(&message()).await.is_known());
    assert!(!Alarm::default().is_set());
}

#[tokio::test]
async fn each_call_has_an_outcome_of_its_own() {
    let (webhook, serving) = webhook(&["403 Forbidden"]).await;
    let alarm = Alarm {
        webhook: webhook.webhook,
        ..command("exec true")
    };
    let called = alarm.tell(&message()).await;
    let expected = Called {
        webhook: Some(false),
        command: Some(true),
    };
    assert_eq!(called, expected);
    assert!(called.is_known());
    serving.await.unwrap();
}
