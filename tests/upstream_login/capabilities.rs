//! What a server says that it can do, and what else it says meanwhile.

use super::*;

#[tokio::test]
async fn capabilities_come_in_many_ways() {
    for (greeting, capabilities) in [
        ("* OK ready", "IMAP4rev1 AUTH=PLAIN UIDPLUS"),
        ("* OK", "IMAP4rev1 AUTH=PLAIN UIDPLUS"),
        (
            "* ok [capability imap4rev1 auth=plain uidplus] x",
            "IMAP4rev1 UIDPLUS AUTH=PLAIN",
        ),
        (
            "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN odd\"(token) UIDPLUS] x",
            "IMAP4rev1 AUTH=PLAIN UIDPLUS",
        ),
        (
            "* OK [CAPABILITY IMAP4rev2 AUTH=PLAIN] rev2",
            "IMAP4rev2 AUTH=PLAIN UIDPLUS ESEARCH",
        ),
        (
            "* OK ready",
            "IMAP4rev2 AUTH=PLAIN SASL-IR MOVE UIDPLUS ESEARCH",
        ),
        (
            "* OK [ALERT] caf\u{e9} \u{4f60}",
            "AUTH=PLAIN  IMAP4rev1 x(y UIDPLUS ",
        ),
        ("* OK [UIDVALIDITY 1] [CAPABILITY", "IMAP4rev1 UIDPLUS"),
    ] {
        let rev2 = capabilities.contains("rev2");
        let builder = one_message().greeting(greeting).capabilities(capabilities);
        let server = match rev2 {
            // It has them without saying so.
            true => builder.announcing("SASL-IR MOVE UIDPLUS ESEARCH").start(),
            false => builder.start(),
        };
        works(&server).await;
    }
}

#[tokio::test]
async fn capabilities_may_be_told_during_the_login() {
    let told = "* CAPABILITY IMAP4rev1 UIDPLUS MOVE\r\n";
    for command in COMMANDS {
        let server = answering(command, move |_| {
            Answer::SendThenUsual(told.as_bytes().to_vec())
        });
        server.world().inbox().append(messages::plain(1, 300));
        works(&server).await;
        assert_eq!(server.commands_starting("CAPABILITY").len(), 0);
    }
    let server = one_message().start();
    works(&server).await;
    assert_eq!(server.commands_starting("CAPABILITY").len(), 1);
}

#[tokio::test]
async fn a_trusting_server_hears_of_the_client_before_the_login() {
    let server = one_message().start();
    let trusting = Config {
        send_client_address: true,
        ..config(server.port(), Security::Cleartext, &Authority::new())
    };
    login(&Imap::new(trusting, None), alice()).await.unwrap();
    let sent: Vec<String> = server
        .commands()
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    assert!(
        sent[0].starts_with("ID (") && sent[0].contains("\"192.0.2.7\""),
        "{sent:?}"
    );
    assert!(sent[1].starts_with("AUTHENTICATE PLAIN"), "{sent:?}");
    works(&server).await;
    assert_eq!(server.commands_starting("ID").len(), 1);
}

#[tokio::test]
async fn untagged_news_at_any_time_is_no_answer() {
    let news = "* 23 EXISTS\r\n* 5 RECENT\r\n* OK [ALERT] caf\u{e9} {5}\r\n* NO [X] careful\r\n\
        * BAD so what\r\n* XYZZY (a \"b\") {5}\r\nP1 NO\r\n* NAMESPACE NIL NIL NIL\r\n\
        * ID (\"name\" NIL)\r\n* STATUS \"x\" (MESSAGES 3)\r\n* VANISHED (EARLIER) 1:3\r\n\
        * ENABLED X\r\n* LIST () NIL \"x\"\r\n* lsub () \"/\" {1}\r\nx\r\n* FLAGS ()\r\n\
        * ESEARCH (TAG \"P77\") UID COUNT 3\r\n* SEARCH\r\n* 5 XMETA {3}\r\nP1 \r\n";
    let server = one_message()
        .greeting("* OK hello")
        .on("CAPABILITY", move |_, _| Answer::SendThenUsual(news.into()))
        .on("AUTHENTICATE", move |_, _| {
            Answer::SendThenUsual(news.into())
        })
        .on("LIST", move |_, _| Answer::SendThenUsual(news.into()))
        .on("SELECT", move |_, _| Answer::SendThenUsual(news.into()))
        .start();
    works(&server).await;
}
