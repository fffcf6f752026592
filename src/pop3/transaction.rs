//! TRANSACTION state (RFC 1939 §5): the maildrop is open.

use super::capability::{State, capabilities};
use super::command::{Command, MessageNumber};
use super::lines::{Lines, Listed, push_decimal};
use super::response::{Refusal, Response, ResponseCode};
use super::session::{self, BadCommands, Front, Input, Session, Step, Terms};
use super::update::UpdateState;
use crate::maildrop::{Maildrop, Message, MessageIndex, Portion, Update};

/// A maildrop and the marks on it. Marks exist nowhere else, and mean nothing
/// before QUIT.
#[derive(Debug)]
pub struct Transaction {
    front: Front,
    bad_commands: BadCommands,
    maildrop: Maildrop,
    terms: Terms,
    /// The messages that were sent whole, by index; empty while none was, or
    /// where that does not matter.
    retrieved: Vec<bool>,
    /// By index; empty while nothing was ever marked.
    marks: Vec<bool>,
    /// Messages without a mark.
    count: usize,
    /// Their octets. No number of sizes that upstreams claim overflows this.
    octets: u128,
    /// The message on its way to the client.
    delivering: Option<(MessageIndex, Portion)>,
}

impl Transaction {
    pub(super) fn new(
        front: Front,
        bad_commands: BadCommands,
        maildrop: Maildrop,
        terms: Terms,
    ) -> Self {
        let mut transaction = Self {
            front,
            bad_commands,
            maildrop,
            terms,
            retrieved: Vec::new(),
            marks: Vec::new(),
            count: 0,
            octets: 0,
            delivering: None,
        };
        transaction.unmark_all();
        transaction
    }

    pub(super) fn maildrop(&self) -> &Maildrop {
        &self.maildrop
    }

    /// The answer to the login.
    pub(super) fn welcome(&self) -> Response {
        Response::ok(self.summary())
    }

    pub(super) fn handle(mut self, input: Input<'_>) -> (Session, Step) {
        let step = match (self.delivering.take(), input) {
            (None, Input::Line(line)) => match Command::parse(line) {
                Ok(Command::Quit) => return self.quit(),
                Ok(command) => self.command(command),
                Err(error) => self.bad_commands.answer(Response::err(error.text())),
            },
            (None, Input::LineTooLong) => self.bad_commands.answer(session::line_too_long()),
            (Some((index, portion)), Input::Delivered { octets }) => {
                if let (Portion::Whole, Some(octets)) = (portion, octets) {
                    self.learn_octets(index, octets);
                    if self.terms.updates_always {
                        set(&mut self.retrieved, index, self.maildrop.len());
                    }
                }
                Step::Nothing
            }
            (Some(_), Input::NotDelivered(refusal)) => Step::Reply(refusal.into()),
            _ => session::internal_error(),
        };
        (Session::Transaction(self), step)
    }

    fn command(&mut self, command: Command<'_>) -> Step {
        let answer = match command {
            Command::Stat => Ok(Response::ok(format!("{} {}", self.count, self.octets))),
            Command::List(None) => return self.listing(Listed::Octets),
            Command::Uidl(None) => return self.listing(Listed::UniqueIds),
            Command::List(Some(number)) => self
                .message(number)
                .map(|message| Response::ok(format!("{} {}", message.index + 1, message.octets))),
            Command::Uidl(Some(number)) => self.message(number).map(|message| {
                Response::ok(format!("{} {}", message.index + 1, message.unique_id))
            }),
            Command::Retr(number) => return self.deliver(number, Portion::Whole),
            Command::Top(number, lines) => return self.deliver(number, Portion::Top { lines }),
            Command::Dele(number) => self.mark(number),
            Command::Noop => Ok(Response::ok("")),
            Command::Rset => {
                self.unmark_all();
                Ok(Response::ok(self.summary()))
            }
            Command::Capa => {
                let lines = Lines::made(capabilities(&self.front, State::Transaction(self.terms)));
                return Step::Lines(Response::ok("capabilities"), lines);
            }
            Command::Lang(range) => return session::language(range),
            Command::User(_)
            | Command::Pass(_)
            | Command::Apop
            | Command::Auth { .. }
            | Command::AuthList
            | Command::Stls
            | Command::Utf8 => {
                return self.bad_commands.answer(Response::err("only before login"));
            }
            Command::Quit => Ok(Response::ok("")),
        };
        Step::Reply(answer.unwrap_or_else(Response::from))
    }

    /// The gate: the only way from a number that a client sent to a message.
    /// Numbers count from 1 and never change, whatever is marked.
    fn message(&self, number: MessageNumber) -> Result<Message<'_>, Refusal> {
        let message = number
            .get()
            .checked_sub(1)
            .and_then(|index| MessageIndex::try_from(index).ok())
            .and_then(|index| self.maildrop.get(index))
            .ok_or_else(|| Refusal::new(None, "no such message"))?;
        if self.is_marked(message.index) {
            return Err(Refusal::new(None, "the message is deleted"));
        }
        Ok(message)
    }

    fn is_marked(&self, index: MessageIndex) -> bool {
        self.marks.get(index).copied().unwrap_or(false)
    }

    fn mark(&mut self, number: MessageNumber) -> Result<Response, Refusal> {
        if self.terms.deletion_refused {
            let text = "messages cannot be deleted here";
            return Err(Refusal::new(Some(ResponseCode::SysPerm), text));
        }
        let Message { index, octets, .. } = self.message(number)?;
        set(&mut self.marks, index, self.maildrop.len());
        self.count -= 1;
        self.octets -= u128::from(octets);
        Ok(Response::ok(format!("message {} deleted", index + 1)))
    }

    fn unmark_all(&mut self) {
        self.marks = Vec::new();
        self.count = self.maildrop.len();
        self.octets = self
            .maildrop
            .iter()
            .map(|message| u128::from(message.octets))
            .sum();
    }

    fn learn_octets(&mut self, index: MessageIndex, octets: u64) {
        let Some(message) = self.maildrop.get(index) else {
            return;
        };
        self.octets = self.octets - u128::from(message.octets) + u128::from(octets);
        self.maildrop.learn_octets(index, octets);
    }

    fn deliver(&mut self, number: MessageNumber, portion: Portion) -> Step {
        match self.message(number) {
            Ok(Message { index, octets, .. }) => {
                self.delivering = Some((index, portion));
                Step::Deliver {
                    index,
                    octets,
                    portion,
                }
            }
            Err(refusal) => Step::Reply(refusal.into()),
        }
    }

    fn summary(&self) -> String {
        let Self { count, octets, .. } = self;
        let messages = if *count == 1 { "message" } else { "messages" };
        format!("{count} {messages} ({octets} octets)")
    }

    fn listing(&self, of: Listed) -> Step {
        Step::Lines(Response::ok(self.summary()), Lines::listing(of))
    }

    /// Appends lines of a listing from the message at `next`; true when there
    /// are no more. RFC 1939 §5, §7: what is marked is left out.
    pub(super) fn write_listing(
        &self,
        of: Listed,
        next: &mut MessageIndex,
        out: &mut Vec<u8>,
        about: usize,
    ) -> bool {
        // At least one line, so that a listing always comes to its end.
        let enough = out.len().saturating_add(about.max(1));
        while let Some(message) = self.maildrop.get(*next) {
            if out.len() >= enough {
                return false;
            }
            *next += 1;
            if self.is_marked(message.index) {
                continue;
            }
            push_decimal(*next as u64, out);
            out.push(b' ');
            match of {
                Listed::Octets => push_decimal(message.octets, out),
                Listed::UniqueIds => out.extend_from_slice(message.unique_id.as_bytes()),
            }
            out.extend_from_slice(b"\r\n");
        }
        true
    }

    /// Enters UPDATE state (RFC 1939 §6). Without marks there is nothing to do
    /// upstream.
    fn quit(self) -> (Session, Step) {
        let update = Update::with_retrieved(indices(&self.marks), indices(&self.retrieved));
        let idle = update.delete().is_empty() && !self.terms.updates_always;
        let due = (!idle).then(|| update.delete().len());
        let state = UpdateState::new(self.maildrop, due);
        let step = if idle {
            Step::Close(Response::ok("bye"))
        } else {
            Step::Update(update)
        };
        (Session::Update(state), step)
    }
}

/// Sets the flag of one of `count` messages.
fn set(flags: &mut Vec<bool>, index: MessageIndex, count: usize) {
    flags.resize(count, false);
    if let Some(flag) = flags.get_mut(index) {
        *flag = true;
    }
}

/// The messages whose flag is set.
fn indices(flags: &[bool]) -> Vec<MessageIndex> {
    let flags = flags.iter().enumerate();
    flags
        .filter_map(|(index, &flag)| flag.then_some(index))
        .collect()
}
