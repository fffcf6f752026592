//! From the folders of a policy to a maildrop: each is opened and listed wholly,
//! or there is none.

use std::sync::Arc;

use tokio::time::Instant;

use super::contents::Contents;
use super::disposal::Circumstances;
use super::early::PATIENCE;
use super::folders::{Finder, Layout, Search};
use super::known::Known;
use super::listing::{Details, Entry, Needs};
use super::login::Capabilities;
use super::mailbox;
use super::opening::{Flight, Listing, Question};
use super::session::{Folder, ImapSession, Messages, lost, message_key, unkept};
use crate::maildrop::{
    DeletePolicy, Ingredient, Ingredients, Maildrop, MessageIndex, Policy, SpecialUse,
    UniqueIdFormat,
};
use crate::store::{FolderKey, Kept};
use crate::upstream::assembly::{self, Assembled, Assembly, Candidate};
use crate::upstream::snapshots::Snapshots;
use crate::upstream::{UpstreamError, calendar};

/// What the policies move messages to, as searches of a [`Finder`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Targets {
    delete: Option<usize>,
    trash: Option<usize>,
}

impl ImapSession {
    /// Opens the folders and lists them.
    pub(super) async fn open_folders(&mut self) -> Result<Maildrop, UpstreamError> {
        self.find_folders().await?;
        self.look_for_early().await?;
        let was_early = self.early.is_some();
        let opened = self.list_folders().await;
        match opened {
            Ok(_) if was_early => self.shared.sent_early_to_good_effect(),
            // It makes sense of the first of what was sent early, not of the rest.
            Err(UpstreamError::Protocol(_)) if was_early => {
                self.early = None;
                self.begin_anew().await?;
                self.find_folders().await?;
                let opened = self.list_folders().await;
                if opened.is_ok() {
                    self.shared.send_nothing_early();
                }
                return opened;
            }
            Err(_) if was_early && self.connection.as_ref().is_none_or(|it| it.has_failed()) => {
                self.shared.send_nothing_early();
            }
            _ => {}
        }
        opened
    }

    async fn list_folders(&mut self) -> Result<Maildrop, UpstreamError> {
        let policy = Arc::clone(&self.policy);
        let needs = needs(&policy, &self.capabilities)?;
        let (mut finder, targets) = self.finder().await?;
        let mut kept = Vec::with_capacity(self.names.len());
        for name in &self.names {
            kept.push(match &self.store {
                Some(store) => {
                    let folder = store.folder(&self.folder_key(name)).await;
                    folder.map_err(unkept)?
                }
                None => Kept::default(),
            });
        }
        let mut assembly: Option<Assembly<'_>> = None;
        let mut listed = Messages::default();
        // By folder: the row behind its last.
        let mut ends: Vec<u32> = Vec::with_capacity(kept.len());
        let mut marked: Vec<(usize, Vec<u32>)> = Vec::new();
        for (place, kept) in kept.iter().enumerate() {
            let most = self.config.limits.messages;
            let most = most.saturating_sub(ends.last().copied().unwrap_or(0));
            let contents = self
                .open_folder(place, kept, needs, most, (&mut finder, targets))
                .await?;
            let count = contents.entries.len();
            let fresh =
                || Assembly::new(&policy, UniqueIdFormat::default(), calendar::now(), count);
            let assembly = assembly.get_or_insert_with(fresh);
            if let Some(folder) = self.folders.get(place) {
                if forgets_frozen(kept, folder.uid_validity) {
                    tracing::warn!(
                        user = %folder.key.account,
                        folder = %folder.name,
                        "UIDVALIDITY CHANGED: the unique ids that were imported are of no use now, and clients download everything again; import them once more"
                    );
                }
                assembly.folder(&folder.name, kept);
                let unfinished = self.assemble(folder, contents, assembly, &mut listed)?;
                if !unfinished.is_empty() {
                    marked.push((place, unfinished));
                }
            }
            ends.push(u32::try_from(listed.uids.len()).unwrap_or(u32::MAX));
        }
        let assembled = assembly.ok_or_else(lost)?.finish()?;
        let maildrop = self.arrange(assembled, listed, &ends)?;
        self.recall(&kept);
        for (place, uids) in marked {
            if let Err(error) = self.unmark(place, &uids).await {
                tracing::warn!(upstream = %self.config.name, %error, "messages stay marked \\Deleted");
            }
        }
        Ok(maildrop)
    }

    /// Sees to it that what was sent early is answered. A server that has lost it
    /// is gone to anew, the plain way.
    async fn look_for_early(&mut self) -> Result<(), UpstreamError> {
        let (Some(_), Some(connection)) = (&self.early, &mut self.connection) else {
            return Ok(());
        };
        match connection.is_answered_by(Instant::now() + PATIENCE).await {
            Ok(true) => Ok(()),
            // Or it makes no sense of it (Cyrus).
            Ok(false) | Err(UpstreamError::Protocol(_)) => {
                self.shared.send_nothing_early();
                self.early = None;
                self.connection = None;
                self.connected().await.map(drop)
            }
            Err(error) => {
                self.shared.send_nothing_early();
                Err(error)
            }
        }
    }

    /// What finds the mailboxes that the policies move messages to.
    async fn finder(&mut self) -> Result<(Finder, Targets), UpstreamError> {
        if self.layout.is_none() && needs_layout(&self.policy) {
            let connection = self.connection.as_mut().ok_or_else(lost)?;
            self.layout = Some(Layout::ask(connection, &self.capabilities).await?);
        }
        let layout = self.layout.as_ref();
        Ok(finder(&self.policy, &self.capabilities, layout))
    }

    /// Opens a folder, decides what happens to its messages, and lists it.
    async fn open_folder(
        &mut self,
        place: usize,
        kept: &Kept,
        needs: Needs,
        most: u32,
        (finder, targets): (&mut Finder, Targets),
    ) -> Result<Contents, UpstreamError> {
        let name = self.names.get(place).cloned().unwrap_or_default();
        if let Some(contents) = self.open_unasked(&name, needs) {
            return Ok(contents);
        }
        self.seen = None;
        let key = self.folder_key(&name);
        let policy = Arc::clone(&self.policy);
        let connection = self.connection.as_mut().ok_or_else(lost)?;
        let capabilities = &self.capabilities;
        // By its configuration, or because its user named it so.
        let layout = self.layout.as_ref();
        let is_shared =
            policy.shared.is_some() || layout.is_some_and(|layout| layout.is_of_others(&name));
        let hides_by_store = !kept.hidden.is_empty();
        let question = Question::new(&policy, &name, is_shared, hides_by_store, needs, most);
        let opens_to_write = question.writes;
        // What is found beside the first is there for all.
        let nothing = &mut Finder::new(Vec::new());
        let beside = if place == 0 { &mut *finder } else { nothing };
        // What was sent behind the login was sent before the maildrop was locked: a
        // session of ours that held it then may have removed messages since.
        let holds = |flight: &Flight| {
            *flight.question() == question && !self.shared.has_changed(&key, flight.sent())
        };
        let flight = match self.early.take() {
            Some(flight) if holds(&flight) => *flight,
            other => {
                if let Some(flight) = other {
                    flight.forget(connection).await?;
                }
                let known = known(&self.snapshots, &key).await;
                Flight::send(connection, capabilities, question, known, beside).await?
            }
        };
        let opened = flight.hear(connection, capabilities, beside).await?;
        let mut listing = opened.listing;
        if place == 0 && finder.is_doubtful() {
            // Nothing else may be on its way then.
            let contents = listing.contents(connection, capabilities).await?;
            listing = Listing::Heard(Box::new(contents));
            let layout = match &mut self.layout {
                Some(layout) => layout,
                none => none.insert(Layout::ask(connection, capabilities).await?),
            };
            finder.know(layout);
        }
        let selected = &opened.selected;
        let uid_validity = selected.uid_validity;
        let hides_by_store = kept
            .hidden
            .iter()
            .any(|key| key.starts_with(&uid_validity.to_be_bytes()));
        let decision = Circumstances {
            capabilities,
            policy: &policy,
            name: &name,
            selected,
            rights: opened.rights.as_deref(),
            has_store: self.has_store,
            is_shared,
            hides_by_store,
        }
        .decide(
            targets.delete.and_then(|it| finder.found(it)),
            targets.trash.and_then(|it| finder.found(it)),
        )?;
        let mut contents = listing.contents(connection, capabilities).await?;
        let known = contents.known.take();
        let kept = known.map(|known| self.snapshots.keep(&key, known.snapshot()));
        let is_opened_again = opens_to_write && !decision.writes;
        if is_opened_again {
            // Nothing will be written after all.
            let selected = mailbox::select(connection, &name, false).await?;
            if selected.uid_validity != uid_validity {
                return Err(UpstreamError::temporary(
                    "UIDVALIDITY changed while opening",
                ));
            }
        }
        self.metrics.openings.get_or_create(&contents.how).inc();
        self.selected = Some(place);
        self.shared.listed(&key, opened.asked);
        self.folders.push(Folder {
            name,
            key,
            uid_validity,
            writes: decision.writes,
            disposal: decision.disposal,
            expiry: decision.expiry,
        });
        // What came before it was opened again is not told once more.
        if !is_opened_again {
            self.see(&contents, kept.as_ref(), opened.asked);
        }
        Ok(contents)
    }

    /// Messages of a folder have left: the next opening need not find that out.
    pub(super) async fn strike(&self, folder: &Folder, gone: &[u32]) {
        let gone: Vec<_> = gone.iter().map(|uid| *uid..=*uid).collect();
        let known = known(&self.snapshots, &folder.key).await;
        let known = known.filter(|it| it.point.uid_validity == folder.uid_validity);
        let left =
            known.and_then(|known| known.with(&[], &Details::new(0, Needs::default()), &gone));
        if let Some(left) = left {
            self.snapshots.keep(&folder.key, left.snapshot());
        }
    }

    /// Adds what is shown of a folder to the maildrop. Returns messages that
    /// carry `\Deleted` and are shown all the same, because an update of ours did
    /// not come to its end.
    fn assemble(
        &self,
        folder: &Folder,
        contents: Contents,
        assembly: &mut Assembly<'_>,
        listed: &mut Messages,
    ) -> Result<Vec<u32>, UpstreamError> {
        let uid_validity = folder.uid_validity;
        let unfinished = self.shared.unfinished(&folder.key, uid_validity);
        let learned = self.shared.learned(&folder.key, uid_validity);
        let mut marked = Vec::new();
        listed.uids.reserve_exact(contents.entries.len());
        listed.octets.reserve_exact(contents.entries.len());
        for entry in contents.entries {
            let Entry { uid, place, octets } = entry;
            let mut is_hidden = contents.hidden.contains(uid);
            if !is_hidden && contents.deleted.contains(uid) {
                match unfinished.contains(&uid) {
                    true => marked.push(uid),
                    false => is_hidden = true,
                }
            }
            let row = u32::try_from(listed.uids.len()).unwrap_or(u32::MAX);
            if !is_hidden {
                listed.uids.push(uid);
                listed.octets.push(octets);
            }
            assembly.message(&Candidate {
                row,
                octets: learned.get(&uid).copied().unwrap_or(octets),
                is_hidden,
                received: contents.details.arrival(place),
                key: &message_key(uid_validity, uid),
                known: Ingredients {
                    uid: Some(uid),
                    uid_validity: Some(uid_validity),
                    guid: contents.details.guid(place),
                    email_id: contents.details.email_id(place),
                    gmail_id: contents.details.gmail_id(place),
                    blob_id: None,
                },
            })?;
        }
        Ok(marked)
    }

    /// Brings what was listed into the order of the maildrop.
    fn arrange(
        &mut self,
        assembled: Assembled,
        listed: Messages,
        ends: &[u32],
    ) -> Result<Maildrop, UpstreamError> {
        let Assembled { maildrop, rows } = assembled;
        let in_order =
            rows.len() == listed.uids.len() && (0..).zip(&rows).all(|(at, row)| at == *row);
        self.messages = if in_order {
            listed
        } else {
            let known = rows.iter().filter_map(|row| {
                let row = *row as usize;
                Some((*listed.uids.get(row)?, *listed.octets.get(row)?))
            });
            let (uids, octets) = known.unzip();
            Messages {
                uids,
                octets,
                ..Messages::default()
            }
        };
        if ends.len() > 1 {
            let folder = |row: &u32| ends.partition_point(|end| end <= row);
            let folders = rows.iter().map(|row| u16::try_from(folder(row)));
            let folders: Result<Vec<u16>, _> = folders.collect();
            self.messages.folders = folders.map_err(|_| {
                UpstreamError::Misconfigured("more folders than can be joined".into())
            })?;
        }
        Ok(maildrop)
    }

    /// Recalls when messages were first retrieved, where they can expire.
    fn recall(&mut self, kept: &[Kept]) {
        if self.policy.expire_after.is_none() {
            return;
        }
        let count = self.messages.uids.len();
        let retrieved = (0..count).filter_map(|message: MessageIndex| {
            let (place, uid) = self.place(message).ok()?;
            let key = message_key(self.folders.get(place)?.uid_validity, uid);
            let retrieved = kept.get(place)?.retrieved.get(key.as_slice())?;
            Some((message, *retrieved))
        });
        self.messages.retrieved = retrieved.collect();
    }
}

/// What is known of a folder from an earlier opening.
pub(super) async fn known(snapshots: &Snapshots, folder: &FolderKey) -> Option<Known> {
    Known::read(&*snapshots.get(folder).await?)
}

/// Whether it depends on how the server arranges its mailboxes what the policies
/// move messages to.
pub(super) fn needs_layout(policy: &Policy) -> bool {
    matches!(&policy.delete, DeletePolicy::Move(folder) if !folder.is_inbox())
}

/// What finds the mailboxes that the policies move messages to.
pub(super) fn finder(
    policy: &Policy,
    capabilities: &Capabilities,
    layout: Option<&Layout>,
) -> (Finder, Targets) {
    let mut searches = Vec::new();
    let delete = match &policy.delete {
        DeletePolicy::Trash | DeletePolicy::TrashIfThere => {
            Some(Search::of_use(SpecialUse::Trash, capabilities))
        }
        DeletePolicy::Archive => Some(Search::of_use(SpecialUse::Archive, capabilities)),
        DeletePolicy::Move(folder) => {
            let nothing_known = Layout::default();
            let layout = layout.unwrap_or(&nothing_known);
            Some(Search::of_name(folder, layout, capabilities))
        }
        DeletePolicy::Expunge | DeletePolicy::Seen | DeletePolicy::Hide | DeletePolicy::Refuse => {
            None
        }
    };
    let expires = policy.expire_after.is_some();
    let trash = expires.then(|| Search::of_use(SpecialUse::Trash, capabilities));
    let mut place = |search: Option<Search>| {
        searches.push(search?);
        Some(searches.len() - 1)
    };
    let targets = Targets {
        delete: place(delete),
        trash: place(trash),
    };
    (Finder::new(searches), targets)
}

/// What the listings have to ask for. What the capabilities rule out is refused.
pub(super) fn needs(policy: &Policy, capabilities: &Capabilities) -> Result<Needs, UpstreamError> {
    let mut needs = Needs {
        arrival: policy.needs_arrival(),
        ..Needs::default()
    };
    for ingredient in policy
        .unique_ids
        .iter()
        .flat_map(UniqueIdFormat::ingredients)
    {
        let possible = match ingredient {
            Ingredient::Uid | Ingredient::UidValidity => true,
            Ingredient::Guid | Ingredient::FileName | Ingredient::HeaderMd5 => {
                needs.guid = true;
                true
            }
            Ingredient::EmailId => {
                needs.email_id = true;
                capabilities.has("OBJECTID")
            }
            Ingredient::GmailId => {
                needs.gmail_id = true;
                capabilities.has("X-GM-EXT-1")
            }
            Ingredient::BlobId => false,
        };
        if !possible {
            return Err(assembly::unknown(ingredient));
        }
    }
    Ok(needs)
}

/// Whether unique ids are frozen, and all of them under another UIDVALIDITY.
fn forgets_frozen(kept: &Kept, uid_validity: u32) -> bool {
    let now = uid_validity.to_be_bytes();
    let mut keys = kept.frozen.keys().filter(|key| key.len() == 8).peekable();
    keys.peek().is_some() && !keys.any(|key| key.starts_with(&now))
}
