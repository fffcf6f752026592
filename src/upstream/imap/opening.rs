//! Opening a folder in one flight: what does not have to wait for an answer is
//! sent in one write, and all of it is heard afterwards.

use tokio::time::Instant;

use super::command::Command;
use super::connection::{Connection, Event, Resync, Tag};
use super::contents::{self, Asked, Contents, Hearing};
use super::disposal::may_write;
use super::folders::{Finder, list_all};
use super::known::Known;
use super::listing::Needs;
use super::login::Capabilities;
use super::mailbox::{Selected, Told, select_command};
use super::status::{Kind, Status};
use super::warm::Basis;
use crate::maildrop::{DeletePolicy, Policy};
use crate::upstream::UpstreamError;

/// A folder to be opened, and what is asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// As the server has it.
    pub name: String,
    /// By SELECT, not by EXAMINE.
    pub writes: bool,
    pub needs: Needs,
    /// The policy hides messages.
    pub hides: bool,
    /// The folder is another user's, or everybody's: what is hidden by a keyword
    /// there is hidden for others, not for this user.
    pub is_shared: bool,
    /// The most messages that it may hold.
    pub most: u32,
}

impl Question {
    /// `hides_by_store`: the store hides messages of the folder already.
    pub fn new(
        policy: &Policy,
        name: &str,
        is_shared: bool,
        hides_by_store: bool,
        needs: Needs,
        most: u32,
    ) -> Self {
        Self {
            name: name.to_owned(),
            writes: may_write(policy, hides_by_store, is_shared),
            needs,
            hides: policy.delete == DeletePolicy::Hide,
            is_shared,
            most,
        }
    }

    /// What its user may do there (RFC 4314): an INBOX is its user's own.
    fn rights(&self, capabilities: &Capabilities) -> Result<Option<Command>, UpstreamError> {
        match self.writes && self.name != "INBOX" && capabilities.has("ACL") {
            true => Command::new("MYRIGHTS").mailbox(&self.name).map(Some),
            false => Ok(None),
        }
    }
}

/// What was sent, and is to be answered.
#[derive(Debug)]
pub(super) struct Flight {
    question: Question,
    sent: Instant,
    lists: Vec<Tag>,
    rights: Option<Tag>,
    /// `None`: it waits until all else is answered.
    select: Option<Tag>,
    contents: Option<Asked>,
    /// `ENABLE QRESYNC`.
    enable: Option<Tag>,
    /// What `contents` brings up to date.
    basis: Option<Basis>,
    /// SELECT has a parameter that not all servers take.
    is_resync: bool,
}

impl Flight {
    /// Sends what opens the folder, and what `finder` has to know. What cannot be
    /// sent without waiting for an answer is left for later. `known` is the folder
    /// as it was.
    pub async fn send(
        connection: &mut Connection,
        capabilities: &Capabilities,
        question: Question,
        known: Option<Known>,
        finder: &Finder,
    ) -> Result<Self, UpstreamError> {
        let mut select = select_command(&question.name, question.writes)?;
        let mut flight = Self {
            sent: Instant::now(),
            lists: Vec::new(),
            rights: None,
            select: None,
            contents: None,
            enable: None,
            basis: None,
            is_resync: false,
            question,
        };
        let can_resync = capabilities.has("QRESYNC") && capabilities.has("ENABLE");
        if can_resync && connection.resync == Resync::Unasked {
            let enable = Command::new("ENABLE QRESYNC");
            flight.enable = Some(connection.send(enable).await?);
            connection.resync = Resync::Enabled;
        }
        for command in finder.commands(capabilities)? {
            flight.lists.push(connection.send(command).await?);
        }
        // While a literal waits for its leave, nobody listens to other answers.
        if !select.goes_unasked() {
            return Ok(flight);
        }
        if let Some(rights) = flight.question.rights(capabilities)? {
            flight.rights = Some(connection.send(rights).await?);
        }
        let needs = flight.question.needs;
        flight.basis = known.and_then(|known| Basis::new(known, needs, capabilities));
        let since = flight.basis.as_ref().and_then(|it| it.since(connection));
        if let Some((uid_validity, modseq)) = since {
            select = select.since(uid_validity, modseq);
            flight.is_resync = true;
        }
        flight.select = Some(connection.send(select).await?);
        // How the listing is asked for depends on EXISTS then.
        if capabilities.message_limit().is_none() {
            let basis = flight.basis.as_ref();
            let asked = contents::ask(connection, capabilities, needs, basis).await?;
            flight.contents = Some(asked);
        }
        Ok(flight)
    }

    /// What the answers are to.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// When it was sent.
    pub fn sent(&self) -> Instant {
        self.sent
    }

    /// Hears it out, and makes nothing of it.
    pub async fn forget(self, connection: &mut Connection) -> Result<(), UpstreamError> {
        let deadline = connection.deadline();
        let asked = self.contents.into_iter().flat_map(Asked::tags);
        let tags = self.lists.into_iter().chain(self.rights);
        let tags = tags.chain(self.select).chain(self.enable);
        for tag in tags.chain(asked) {
            connection.wait(tag, deadline, |_| Ok(())).await?;
        }
        Ok(())
    }

    /// Hears all but the listing. Where the folder is not opened the connection
    /// is of no more use: the rest of the answers is still to come.
    pub async fn hear(
        mut self,
        connection: &mut Connection,
        capabilities: &Capabilities,
        finder: &mut Finder,
    ) -> Result<Opened, UpstreamError> {
        let deadline = connection.deadline();
        let mut told = Told::default();
        let mut is_refused = false;
        if self.select.is_none() {
            for tag in std::mem::take(&mut self.lists) {
                let hear = |event| hear(event, finder, &mut told);
                let answer = connection.wait(tag, deadline, hear).await?;
                is_refused |= is_unknown(answer)?;
            }
        }
        let mut hear_all = |event| hear(event, finder, &mut told);
        if let Some(enable) = self.enable {
            let answer = connection.wait(enable, deadline, &mut hear_all).await?;
            if answer.kind != Kind::Ok {
                connection.resync = Resync::Refused;
            }
        }
        let answer = match self.select {
            Some(select) => connection.wait(select, deadline, &mut hear_all).await?,
            None => {
                if let Some(rights) = self.question.rights(capabilities)? {
                    connection.run(rights, &mut hear_all).await?;
                }
                let select = select_command(&self.question.name, self.question.writes)?;
                connection.run(select, &mut hear_all).await?
            }
        };
        let answer = match is_no_command(&answer) && self.is_resync {
            true => self.select_again(connection, finder, &mut told).await?,
            false => answer,
        };
        let question = self.question;
        let selected = told.selected(answer, &question.name)?;
        let asked = contents::Question {
            needs: question.needs,
            hidden: !question.is_shared && (question.hides || selected.hides),
            most: question.most,
        };
        let mut hearing = Hearing::new(&selected, asked)?;
        if let Some(basis) = self.basis {
            hearing = hearing.knowing(basis, &selected, &told.vanished);
        }
        let mut hear_all = |event| match event {
            Event::List(_) | Event::MyRights(_) => hear(event, finder, &mut told),
            other => hearing.hear(other),
        };
        for tag in self.lists {
            let answer = connection.wait(tag, deadline, &mut hear_all).await?;
            is_refused |= is_unknown(answer)?;
        }
        if let Some(rights) = self.rights {
            // Not to know them is no harm.
            connection.wait(rights, deadline, &mut hear_all).await?;
        }
        if is_refused {
            let listed = connection.run(list_all(), &mut hear_all).await?;
            listed.ok_or_error("LIST")?;
        }
        Ok(Opened {
            asked: self.sent,
            selected,
            rights: told.rights,
            listing: Listing::Due {
                hearing: Box::new(hearing),
                asked: self.contents,
            },
        })
    }

    /// Opens the folder without the parameter that the server does not take after
    /// all, and forgets what else was asked of it.
    async fn select_again(
        &mut self,
        connection: &mut Connection,
        finder: &mut Finder,
        told: &mut Told,
    ) -> Result<Status, UpstreamError> {
        connection.resync = Resync::Refused;
        self.basis = None;
        let deadline = connection.deadline();
        for tag in self.contents.take().into_iter().flat_map(Asked::tags) {
            let hear = |event| hear(event, finder, told);
            connection.wait(tag, deadline, hear).await?;
        }
        let rights = told.rights.take();
        *told = Told::default();
        told.rights = rights;
        let select = select_command(&self.question.name, self.question.writes)?;
        let hear = |event| hear(event, finder, told);
        connection.run(select, hear).await
    }
}

/// What is heard before the folder is open. A server may answer in any order.
fn hear(event: Event, finder: &mut Finder, told: &mut Told) -> Result<(), UpstreamError> {
    match event {
        Event::List(listed) => finder.hear(listed),
        other => {
            told.hear(other);
            Ok(())
        }
    }
}

/// Whether a server does not understand a command, by a BAD that is no throttle.
fn is_no_command(answer: &Status) -> bool {
    answer.kind == Kind::Bad && matches!(answer.refusal(""), UpstreamError::Protocol(_))
}

/// Whether a LIST is of a kind that the server does not know.
fn is_unknown(answer: Status) -> Result<bool, UpstreamError> {
    if answer.kind == Kind::Bad {
        return Ok(true);
    }
    answer.ok_or_error("LIST")?;
    Ok(false)
}

/// A folder that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    /// When it was asked for: what it shows is no older.
    pub asked: Instant,
    pub selected: Selected,
    /// What its user may do there, if that was asked and is known.
    pub rights: Option<String>,
    pub listing: Listing,
}

/// What is in a folder that was opened.
#[derive(Debug)]
pub(super) enum Listing {
    /// Its answer is still due, if it was `asked` for: until then the connection
    /// is for nothing else.
    Due {
        hearing: Box<Hearing>,
        asked: Option<Asked>,
    },
    Heard(Box<Contents>),
}

impl Listing {
    pub async fn contents(
        self,
        connection: &mut Connection,
        capabilities: &Capabilities,
    ) -> Result<Contents, UpstreamError> {
        match self {
            Self::Due { hearing, asked } => hearing.contents(connection, capabilities, asked).await,
            Self::Heard(contents) => Ok(*contents),
        }
    }
}
