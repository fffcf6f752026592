//! The usual course: what a well-behaved IMAP server answers (RFC 3501, and
//! UIDPLUS, MOVE, SASL-IR, ESEARCH, SPECIAL-USE where they are announced).

use std::fmt::Write as _;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::items::{fetch_item, search};
use super::mailbox::{Mailbox, Message, in_set};
use super::wire::{Command, Connection};
use super::{Answer, Shared, World};

/// What a connection knows between commands.
#[derive(Default)]
struct Session {
    authenticated: bool,
    selected: Option<Selected>,
    encrypted: bool,
}

struct Selected {
    mailbox: String,
    writable: bool,
    /// UIDs by message number, as this client was told.
    uids: Vec<u32>,
}

pub(super) fn serve(shared: &Arc<Shared>, socket: TcpStream, number: usize) -> io::Result<()> {
    let mut connection = Connection::new(shared, socket, number)?;
    let mut session = Session {
        encrypted: shared.implicit_tls,
        ..Session::default()
    };
    let greeting = match &shared.greeting {
        Some(line) => format!("{line}\r\n"),
        None => format!("* OK [CAPABILITY {}] ready\r\n", shared.capabilities),
    };
    session.authenticated = greeting.starts_with("* PREAUTH");
    let beginning = Command {
        tag: "*".to_owned(),
        name: "GREETING".to_owned(),
        arguments: String::new(),
        connection: number,
        nth: 0,
        followed: false,
    };
    let answer = shared.ask(&beginning);
    if !connection.answer(&answer)? {
        return Ok(());
    }
    if matches!(answer, Answer::Usual | Answer::SendThenUsual(_)) {
        connection.send(greeting.as_bytes())?;
    }
    while let Some(command) = connection.read_command()? {
        let answer = shared.ask(&command);
        if !connection.answer(&answer)? {
            return Ok(());
        }
        if matches!(
            answer,
            Answer::Usual | Answer::SendThenUsual(_) | Answer::UsualThenClose
        ) {
            if command.name == "STARTTLS" && shared.tls.is_some() && !session.encrypted {
                connection.send(command.ok("begin TLS").as_bytes())?;
                connection = connection.start_tls()?;
                session = Session {
                    encrypted: true,
                    ..Session::default()
                };
                continue;
            }
            if command.name == "IDLE" && session.authenticated && shared.announces("IDLE") {
                let news = || match shared.tells_nothing {
                    true => String::new(),
                    false => session.news(shared),
                };
                if !connection.idle(news)? {
                    return Ok(());
                }
                connection.send(command.ok("idled").as_bytes())?;
                continue;
            }
            let reply = session.usual(&mut connection, &command)?;
            connection.send(&reply)?;
            if command.name == "LOGOUT" {
                return Ok(());
            }
        }
        if matches!(answer, Answer::UsualThenClose) {
            return Ok(());
        }
    }
    Ok(())
}

impl Session {
    fn usual(&mut self, connection: &mut Connection<'_>, command: &Command) -> io::Result<Vec<u8>> {
        let shared = Arc::clone(connection.shared);
        let words = command.words();
        let needs = match command.name.as_str() {
            "UID EXPUNGE" => Some("UIDPLUS"),
            "UID MOVE" | "MOVE" => Some("MOVE"),
            "ID" => Some("ID"),
            "ENABLE" => Some("ENABLE"),
            "NAMESPACE" => Some("NAMESPACE"),
            "UNSELECT" => Some("UNSELECT"),
            _ => None,
        };
        if needs.is_some_and(|capability| !shared.announces(capability)) {
            return Ok(command.bad("unknown command").into_bytes());
        }
        let text = match command.name.as_str() {
            "CAPABILITY" => {
                format!(
                    "* CAPABILITY {}\r\n{}",
                    shared.capabilities,
                    command.ok("done")
                )
            }
            "ID" => format!("* ID NIL\r\n{}", command.ok("done")),
            "LOGOUT" => format!("* BYE until next time\r\n{}", command.ok("done")),
            "LOGIN" => self.login(&shared, command, &words),
            "AUTHENTICATE" => self.authenticate(connection, command, &words)?,
            "NOOP" | "CHECK" => self.news(&shared) + &command.ok("done"),
            _ if !self.authenticated => command.bad("log in first"),
            "ENABLE" => format!("* ENABLED\r\n{}", command.ok("done")),
            "NAMESPACE" => {
                format!(
                    "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n{}",
                    command.ok("done")
                )
            }
            "LIST" => list(&shared.world.lock().unwrap(), command),
            "STATUS" => status(&mut shared.world.lock().unwrap(), command, &words),
            "CREATE" => {
                let mut world = shared.world.lock().unwrap();
                world.mailboxes.push(Mailbox::new(&words[0], None));
                command.ok("done")
            }
            "SELECT" | "EXAMINE" => self.select(&mut shared.world.lock().unwrap(), command, &words),
            _ => return Ok(self.selected_state(&shared, command, &words)),
        };
        Ok(text.into_bytes())
    }

    fn login(&mut self, shared: &Shared, command: &Command, words: &[String]) -> String {
        if shared.announces("LOGINDISABLED") {
            return command.no("[PRIVACYREQUIRED] LOGIN is disabled");
        }
        match words {
            [user, password] => self.finish(shared, command, *password == format!("pw-{user}")),
            _ => command.bad("LOGIN takes two arguments"),
        }
    }

    fn finish(&mut self, shared: &Shared, command: &Command, good: bool) -> String {
        self.authenticated = good;
        if good && shared.tells_at_login {
            command.ok(&format!("[CAPABILITY {}] logged in", shared.capabilities))
        } else if good {
            command.ok("logged in")
        } else {
            command.no("[AUTHENTICATIONFAILED] Authentication failed.")
        }
    }

    fn authenticate(
        &mut self,
        connection: &mut Connection<'_>,
        command: &Command,
        words: &[String],
    ) -> io::Result<String> {
        let mechanism = words[0].to_ascii_uppercase();
        if !connection.shared.announces(&format!("AUTH={mechanism}")) {
            return Ok(command.no("unsupported mechanism"));
        }
        let response = match words.get(1) {
            Some(_) if !connection.shared.announces("SASL-IR") => {
                return Ok(command.bad("no initial response without SASL-IR"));
            }
            Some(initial) if initial == "=" => String::new(),
            Some(initial) => initial.clone(),
            None => connection.ask_client("")?,
        };
        if response == "*" {
            return Ok(command.bad("cancelled"));
        }
        let Ok(decoded) = STANDARD.decode(&response) else {
            return Ok(command.bad("no base64"));
        };
        let decoded = String::from_utf8_lossy(&decoded).into_owned();
        let good = match mechanism.as_str() {
            "PLAIN" => {
                let parts: Vec<&str> = decoded.split('\0').collect();
                matches!(parts[..], [_, user, password] if password == format!("pw-{user}"))
            }
            "XOAUTH2" | "OAUTHBEARER" => bearer_is_good(&decoded),
            _ => false,
        };
        if !good && mechanism != "PLAIN" {
            // RFC 7628 §3.2.2: the reason first, which the client answers.
            connection.ask_client(&STANDARD.encode(r#"{"status":"invalid_token"}"#))?;
        }
        let shared = connection.shared;
        Ok(self.finish(shared, command, good))
    }

    fn select(&mut self, world: &mut World, command: &Command, words: &[String]) -> String {
        self.selected = None;
        let keywords = world.keywords;
        let Some(mailbox) = world.mailbox(&words[0]) else {
            return command.no("[NONEXISTENT] no such mailbox");
        };
        let writable = command.name == "SELECT";
        let flags = "\\Answered \\Flagged \\Deleted \\Seen \\Draft";
        let permanent = match (writable, keywords) {
            (false, _) => String::new(),
            (true, false) => flags.to_owned(),
            (true, true) => format!("{flags} \\*"),
        };
        let uids: Vec<u32> = mailbox.messages.iter().map(|message| message.uid).collect();
        let reply = format!(
            "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n\
             * OK [PERMANENTFLAGS ({permanent})] limited\r\n* {} EXISTS\r\n* 0 RECENT\r\n\
             * OK [UIDVALIDITY {}] valid\r\n* OK [UIDNEXT {}] predicted\r\n{}",
            uids.len(),
            mailbox.uid_validity,
            mailbox.uid_next,
            command.ok(if writable {
                "[READ-WRITE] done"
            } else {
                "[READ-ONLY] done"
            })
        );
        self.selected = Some(Selected {
            mailbox: mailbox.name.clone(),
            writable,
            uids,
        });
        reply
    }

    /// Untagged responses about what changed since the client was last told.
    fn news(&mut self, shared: &Shared) -> String {
        let Some(selected) = &mut self.selected else {
            return String::new();
        };
        let mut world = shared.world.lock().unwrap();
        world
            .mailbox(&selected.mailbox)
            .map(|mailbox| selected.news(mailbox))
            .unwrap_or_default()
    }

    fn selected_state(&mut self, shared: &Shared, command: &Command, words: &[String]) -> Vec<u8> {
        let Some(selected) = &mut self.selected else {
            return command
                .bad("unknown command, or no mailbox is selected")
                .into_bytes();
        };
        let mut world = shared.world.lock().unwrap();
        let name = selected.mailbox.clone();
        let Some(mailbox) = world.mailbox(&name) else {
            return b"* BYE the mailbox is gone\r\n".to_vec();
        };
        let writes = ["UID STORE", "UID EXPUNGE", "UID MOVE", "EXPUNGE"];
        if !selected.writable && writes.contains(&command.name.as_str()) {
            return command.no("[READ-ONLY] opened by EXAMINE").into_bytes();
        }
        let text = match command.name.as_str() {
            "UID FETCH" | "FETCH" => return selected.fetch(mailbox, command, words),
            "UID SEARCH" => search(mailbox, command, shared.announces("ESEARCH")),
            "UID STORE" => selected.store(mailbox, command, words),
            "UID EXPUNGE" => selected.expunge(mailbox, command, Some(&words[0])),
            "EXPUNGE" => selected.expunge(mailbox, command, None),
            "UID COPY" | "UID MOVE" => transfer(selected, &mut world, command, words),
            "CLOSE" | "UNSELECT" => {
                if command.name == "CLOSE" && selected.writable {
                    mailbox.messages.retain(|message| !message.is_deleted());
                }
                self.selected = None;
                command.ok("done")
            }
            _ => command.bad("unknown command"),
        };
        text.into_bytes()
    }
}

impl Selected {
    fn news(&mut self, mailbox: &Mailbox) -> String {
        let mut news = String::new();
        let there = |uid: u32| mailbox.messages.iter().any(|message| message.uid == uid);
        for at in (0..self.uids.len()).rev() {
            if !there(self.uids[at]) {
                self.uids.remove(at);
                let _ = write!(news, "* {} EXPUNGE\r\n", at + 1);
            }
        }
        let before = self.uids.len();
        self.uids = mailbox.messages.iter().map(|message| message.uid).collect();
        if self.uids.len() > before {
            let _ = write!(news, "* {} EXISTS\r\n", self.uids.len());
        }
        news
    }

    /// The messages of a set of UIDs or, for commands without `UID`, numbers.
    fn chosen(&self, mailbox: &Mailbox, command: &Command, set: &str) -> Vec<(usize, u32)> {
        let by_uid = command.name.starts_with("UID ");
        let last = self.uids.last().copied().unwrap_or(0);
        let count = u32::try_from(self.uids.len()).unwrap();
        let numbered = self.uids.iter().enumerate().map(|(at, uid)| (at + 1, *uid));
        let fits = |(number, uid): &(usize, u32)| {
            if by_uid {
                in_set(set, *uid, last)
            } else {
                in_set(set, u32::try_from(*number).unwrap(), count)
            }
        };
        // A long listing must not search the mailbox for each of its messages.
        let known: std::collections::HashSet<u32> =
            mailbox.messages.iter().map(|message| message.uid).collect();
        numbered
            .filter(fits)
            .filter(|(_, uid)| known.contains(uid))
            .collect()
    }

    fn fetch(&mut self, mailbox: &mut Mailbox, command: &Command, words: &[String]) -> Vec<u8> {
        if words.len() != 2 {
            return command.bad("FETCH takes a set and items").into_bytes();
        }
        let items = Command {
            arguments: words[1].trim_matches(['(', ')']).to_owned(),
            ..command.clone()
        };
        let mut items = items.words();
        if command.name.starts_with("UID") && !items.iter().any(|item| item == "UID") {
            items.insert(0, "UID".to_owned());
        }
        let mut reply = Vec::new();
        let chosen = self.chosen(mailbox, command, &words[0]);
        let mut messages = mailbox.messages.iter_mut().peekable();
        for (number, uid) in chosen {
            while messages.next_if(|message| message.uid < uid).is_some() {}
            let Some(message) = messages.next() else {
                break;
            };
            reply.extend_from_slice(format!("* {number} FETCH (").as_bytes());
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    reply.push(b' ');
                }
                if !fetch_item(&mut reply, message, item, self.writable) {
                    return command.bad("unknown item").into_bytes();
                }
            }
            reply.extend_from_slice(b")\r\n");
        }
        reply.extend_from_slice(command.ok("done").as_bytes());
        reply
    }

    fn store(&mut self, mailbox: &mut Mailbox, command: &Command, words: &[String]) -> String {
        let [set, action, flags] = words else {
            return command.bad("STORE takes three arguments");
        };
        let action = action.to_ascii_uppercase();
        let flags: Vec<&str> = flags.trim_matches(['(', ')']).split_whitespace().collect();
        let mut reply = String::new();
        for (number, uid) in self.chosen(mailbox, command, set) {
            let Some(message) = mailbox.message(uid) else {
                continue;
            };
            if action.starts_with("FLAGS") {
                message.flags.clear();
            }
            for flag in &flags {
                message.set_flag(flag, !action.starts_with('-'));
            }
            if !action.ends_with(".SILENT") {
                let flags = message.flags.join(" ");
                let _ = write!(reply, "* {number} FETCH (UID {uid} FLAGS ({flags}))\r\n");
            }
        }
        reply + &command.ok("done")
    }

    fn expunge(&mut self, mailbox: &mut Mailbox, command: &Command, set: Option<&str>) -> String {
        let last = self.uids.last().copied().unwrap_or(0);
        mailbox.messages.retain(|message| {
            !message.is_deleted() || set.is_some_and(|set| !in_set(set, message.uid, last))
        });
        self.news(mailbox) + &command.ok("done")
    }
}

fn transfer(
    selected: &mut Selected,
    world: &mut World,
    command: &Command,
    words: &[String],
) -> String {
    let [set, target] = words else {
        return command.bad("two arguments");
    };
    if world.mailbox(target).is_none() {
        return command.no("[TRYCREATE] no such mailbox");
    }
    let moves = command.name == "UID MOVE";
    let name = selected.mailbox.clone();
    let (mut from, mut to) = (Vec::new(), Vec::new());
    if let Some(source) = world.mailbox(&name) {
        from.extend(
            selected
                .chosen(source, command, set)
                .into_iter()
                .map(|(_, uid)| uid),
        );
    }
    for uid in &from {
        let source = world.mailbox(&name);
        let message =
            source.and_then(|source| source.message(*uid).map(|message| Message::clone(message)));
        if let (Some(message), Some(target)) = (message, world.mailbox(target)) {
            to.push(target.receive(message));
        }
        if moves && let Some(source) = world.mailbox(&name) {
            source.remove(*uid);
        }
    }
    let set = |uids: &[u32]| {
        uids.iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    let validity = world
        .mailbox(target)
        .map_or(0, |target| target.uid_validity);
    let code = if from.is_empty() {
        String::new()
    } else {
        format!("[COPYUID {validity} {} {}] ", set(&from), set(&to))
    };
    let news = world
        .mailbox(&name)
        .map(|source| selected.news(source))
        .unwrap_or_default();
    if moves {
        format!("* OK {code}moved\r\n{news}{}", command.ok("done"))
    } else {
        command.ok(&format!("{code}done"))
    }
}

fn list(world: &World, command: &Command) -> String {
    // The root, for its delimiter (RFC 3501 §6.3.8).
    if command.arguments.ends_with("\"\" \"\"") {
        return format!("* LIST (\\Noselect) \"/\" \"\"\r\n{}", command.ok("done"));
    }
    let mut reply = String::new();
    for mailbox in &world.mailboxes {
        let use_ = mailbox
            .special_use
            .map(|name| format!(" {name}"))
            .unwrap_or_default();
        let _ = write!(
            reply,
            "* LIST (\\HasNoChildren{use_}) \"/\" \"{}\"\r\n",
            mailbox.name
        );
    }
    reply + &command.ok("done")
}

fn status(world: &mut World, command: &Command, words: &[String]) -> String {
    let Some(mailbox) = world.mailbox(&words[0]) else {
        return command.no("[NONEXISTENT] no such mailbox");
    };
    format!(
        "* STATUS \"{}\" (MESSAGES {} UIDNEXT {} UIDVALIDITY {})\r\n{}",
        mailbox.name,
        mailbox.messages.len(),
        mailbox.uid_next,
        mailbox.uid_validity,
        command.ok("done")
    )
}

/// `n,a=USER,^A…auth=Bearer TOKEN^A^A` or `user=USER^Aauth=Bearer TOKEN^A^A`.
fn bearer_is_good(response: &str) -> bool {
    let user = response
        .strip_prefix("user=")
        .and_then(|rest| rest.split('\u{1}').next())
        .or_else(|| response.split(',').find_map(|part| part.strip_prefix("a=")));
    let token = response
        .split('\u{1}')
        .find_map(|part| part.strip_prefix("auth=Bearer "));
    matches!((user, token), (Some(user), Some(token)) if token == format!("tok-{user}"))
}
