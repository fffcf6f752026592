//! From the names of folders as people write them to mailboxes as the server
//! has them.

use super::command::Command;
use super::connection::{Connection, Event};
use super::login::Capabilities;
use super::special_use;
use super::status::Kind;
use super::untagged::{Listed, Namespace, Namespaces};
use super::utf7;
use crate::maildrop::{FolderName, Policy, SpecialUse};
use crate::upstream::{Reason, UpstreamError};

/// How the server arranges its mailboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    namespaces: Namespaces,
    /// Between levels, where there are levels.
    delimiter: Option<String>,
}

/// What is looked for: a mailbox with one of these names, or for one of these
/// uses; the first that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Search {
    exact: Vec<String>,
    uses: Vec<SpecialUse>,
}

/// Searches, and what of the answers matters to them.
#[derive(Debug)]
pub(super) struct Finder {
    searches: Vec<Search>,
    listed: Vec<Listed>,
    /// How the mailboxes are arranged, where that was asked for: what is another
    /// user's is then not taken for ones own Trash.
    layout: Option<Layout>,
}

/// Mailboxes that are kept of all answers to LIST.
const MOST_LISTED: usize = 1000;

impl Layout {
    /// Asks the server: NAMESPACE (RFC 2342) where it knows that, and LIST for
    /// the delimiter (RFC 3501 §6.3.8).
    pub async fn ask(
        connection: &mut Connection,
        capabilities: &Capabilities,
    ) -> Result<Self, UpstreamError> {
        let mut layout = Self::default();
        let mut root = None;
        let mut hear = |event| {
            match event {
                Event::Namespace(namespaces) => layout.namespaces = namespaces,
                Event::List(listed) if root.is_none() => root = Some(listed.delimiter),
                _ => {}
            }
            Ok(())
        };
        let deadline = connection.deadline();
        let namespace = match capabilities.has("NAMESPACE") {
            true => Some(connection.send(Command::new("NAMESPACE")).await?),
            false => None,
        };
        let list = connection.send(Command::new("LIST \"\" \"\"")).await?;
        if let Some(namespace) = namespace {
            // Whatever it answers: there is a way without.
            connection.wait(namespace, deadline, &mut hear).await?;
        }
        let listed = connection.wait(list, deadline, &mut hear).await?;
        listed.ok_or_error("LIST")?;
        layout.delimiter = match layout.namespaces.personal.first() {
            Some(personal) => personal.delimiter.clone(),
            None => root.flatten(),
        };
        layout.delimiter = layout.delimiter.filter(|it| !it.is_empty());
        Ok(layout)
    }

    /// What ones own mailboxes may begin with.
    fn prefixes(&self) -> Vec<String> {
        let personal = &self.namespaces.personal;
        match &self.delimiter {
            Some(delimiter) if personal.is_empty() => vec![format!("INBOX{delimiter}")],
            _ => personal.iter().map(|it| it.prefix.clone()).collect(),
        }
    }
}

impl Layout {
    /// Whether a mailbox is another user's, or everybody's (RFC 2342 §5): as the
    /// longest prefix says that its name begins with.
    pub fn is_of_others(&self, name: &str) -> bool {
        let Namespaces {
            personal,
            others,
            shared,
        } = &self.namespaces;
        let longest = |namespaces: &mut dyn Iterator<Item = &Namespace>| {
            let within = namespaces.filter(|it| is_within(name, it));
            within.map(|it| it.prefix.len()).max()
        };
        let own = longest(&mut personal.iter());
        // The inbox is ones own, whatever is said.
        !name.eq_ignore_ascii_case("INBOX") && longest(&mut others.iter().chain(shared)) > own
    }
}

/// Whether a name lies in a namespace. That a namespace's own root lies there is
/// not told by its prefix, which ends in the delimiter.
fn is_within(name: &str, namespace: &Namespace) -> bool {
    let root = namespace.delimiter.as_deref();
    let root = root.and_then(|it| namespace.prefix.strip_suffix(it));
    name.starts_with(&namespace.prefix) || root.is_some_and(|root| root == name)
}

/// A name as it was written, and with the server's delimiter between its levels.
fn forms(name: &FolderName, delimiter: Option<&str>) -> Vec<String> {
    let as_written = utf7::encode(name.as_str());
    let Some(delimiter) = delimiter else {
        return vec![as_written];
    };
    let levels: Vec<String> = name.levels().map(utf7::encode).collect();
    vec![as_written, levels.join(delimiter)]
}

/// Adds what is not yet there.
fn add(candidates: &mut Vec<String>, candidate: String) {
    if !candidates.contains(&candidate) {
        candidates.push(candidate);
    }
}

impl Search {
    /// For the mailbox with this use. At Gmail what is archived is in All Mail
    /// and nowhere else.
    pub fn of_use(special_use: SpecialUse, capabilities: &Capabilities) -> Self {
        let mut uses = vec![special_use];
        if special_use == SpecialUse::Archive && capabilities.has("X-GM-EXT-1") {
            uses.push(SpecialUse::All);
        }
        Self {
            exact: Vec::new(),
            uses,
        }
    }

    /// For ones own mailbox of this name.
    pub fn of_name(name: &FolderName, layout: &Layout, capabilities: &Capabilities) -> Self {
        if name.is_inbox() {
            return Self {
                exact: vec!["INBOX".to_owned()],
                uses: Vec::new(),
            };
        }
        let mut search = match name.special_use() {
            Some(special_use) => Self::of_use(special_use, capabilities),
            None => Self::default(),
        };
        let forms = forms(name, layout.delimiter.as_deref());
        for prefix in std::iter::once(String::new()).chain(layout.prefixes()) {
            for form in &forms {
                add(&mut search.exact, format!("{prefix}{form}"));
            }
        }
        search
    }

    /// For a mailbox of another user, who may be known here without the domain.
    pub fn of_other_user(
        user: &str,
        name: &FolderName,
        layout: &Layout,
    ) -> Result<Self, UpstreamError> {
        let namespaces = &layout.namespaces;
        let mut search = Self::default();
        let local = user.split_once('@').map_or(user, |(local, _)| local);
        let mut is_refused = false;
        for namespace in namespaces.others.iter().chain(&namespaces.shared) {
            let delimiter = namespace.delimiter.as_deref().filter(|it| !it.is_empty());
            for user in [user, local] {
                let is_level = !user.is_empty()
                    && !user.contains(|c: char| c.is_control() || matches!(c, '*' | '%' | '/'))
                    && delimiter.is_none_or(|it| !user.contains(it));
                if !is_level {
                    is_refused = true;
                    continue;
                }
                let base = format!("{}{}", namespace.prefix, utf7::encode(user));
                if name.is_inbox() {
                    add(&mut search.exact, base.clone());
                }
                if let Some(delimiter) = delimiter {
                    for form in forms(name, Some(delimiter)) {
                        add(&mut search.exact, format!("{base}{delimiter}{form}"));
                    }
                }
            }
        }
        if !search.exact.is_empty() {
            return Ok(search);
        }
        Err(UpstreamError::Misconfigured(match is_refused {
            true => Reason::quoting("shared: the upstream can have no such user", user),
            false => "shared: the upstream shows no mailboxes of other users (NAMESPACE)".into(),
        }))
    }

    fn wants(&self, listed: &Listed) -> bool {
        self.exact.iter().any(|it| is_same(it, &listed.name))
            || self
                .uses
                .iter()
                .any(|special_use| special_use::may_be(listed, *special_use))
    }

    fn find<'a>(&self, listed: &'a [Listed], layout: Option<&Layout>) -> Option<&'a Listed> {
        let named = |name: &String| {
            let mut usable = listed.iter().filter(|it| it.is_selectable);
            usable.find(|it| is_same(name, &it.name))
        };
        let is_own = |it: &&Listed| !layout.is_some_and(|layout| layout.is_of_others(&it.name));
        let own = listed.iter().filter(is_own);
        let used = |special_use: &SpecialUse| special_use::find(own.clone(), *special_use);
        let found = self.exact.iter().find_map(named);
        found.or_else(|| self.uses.iter().find_map(used))
    }
}

/// INBOX is INBOX in any case of letters, in front of other levels as well
/// (RFC 3501 §5.1).
fn is_same(one: &str, other: &str) -> bool {
    let is_inbox = |name: &str| {
        let start = name.get(..5);
        start.is_some_and(|start| start.eq_ignore_ascii_case("INBOX"))
            && !name[5..].starts_with(|c: char| c.is_ascii_alphanumeric())
    };
    one == other || (is_inbox(one) && is_inbox(other) && one[5..] == other[5..])
}

/// The name of a mailbox, the same for the same mailbox.
fn real_name(name: &str) -> &str {
    if name.eq_ignore_ascii_case("INBOX") {
        "INBOX"
    } else {
        name
    }
}

impl Finder {
    pub fn new(searches: Vec<Search>) -> Self {
        Self {
            searches,
            listed: Vec::new(),
            layout: None,
        }
    }

    /// From now on what is another user's is told from ones own.
    pub fn know(&mut self, layout: &Layout) {
        self.layout = Some(layout.clone());
    }

    /// Whether something was found by its use that may be another user's.
    pub fn is_doubtful(&self) -> bool {
        let mut found = self.searches.iter().filter_map(|search| {
            let found = search.find(&self.listed, self.layout.as_ref())?;
            let by_use = !search.exact.iter().any(|name| is_same(name, &found.name));
            by_use.then_some(found)
        });
        self.layout.is_none() && found.any(special_use::may_be_of_others)
    }

    /// The commands to send at once, each a LIST.
    pub fn commands(&self, capabilities: &Capabilities) -> Result<Vec<Command>, UpstreamError> {
        let mut names: Vec<&str> = Vec::new();
        let mut uses: Vec<SpecialUse> = Vec::new();
        for search in &self.searches {
            let fresh = search.exact.iter().map(String::as_str);
            names.extend(fresh.filter(|it| *it != "INBOX"));
            uses.extend(&search.uses);
        }
        names.sort_unstable();
        names.dedup();
        uses.sort_unstable_by_key(|it| it.role());
        uses.dedup();
        let mut commands = Vec::new();
        if !uses.is_empty() && capabilities.has("SPECIAL-USE") {
            commands.push(Command::new("LIST (SPECIAL-USE) \"\" \"*\""));
        }
        for special_use in uses {
            for pattern in special_use::patterns(special_use) {
                commands.push(Command::new("LIST \"\"").word(pattern));
            }
        }
        for name in names {
            commands.push(Command::new("LIST \"\"").mailbox(name)?);
        }
        Ok(commands)
    }

    /// Keeps a listed mailbox that matters. Of thousands few do.
    pub fn hear(&mut self, listed: Listed) -> Result<(), UpstreamError> {
        if self.searches.iter().any(|search| search.wants(&listed)) {
            if self.listed.len() >= MOST_LISTED {
                return Err(UpstreamError::protocol("too many mailboxes of one name"));
            }
            self.listed.push(listed);
        }
        Ok(())
    }

    /// What the search at this place has found.
    pub fn found(&self, search: usize) -> Option<&str> {
        let search = self.searches.get(search)?;
        match search.exact.as_slice() {
            [inbox] if inbox == "INBOX" => Some("INBOX"),
            _ => {
                let found = search.find(&self.listed, self.layout.as_ref())?;
                Some(real_name(&found.name))
            }
        }
    }

    /// The names that the search at this place looks for.
    fn candidates(&self, search: usize) -> &[String] {
        self.searches
            .get(search)
            .map_or(&[], |search| search.exact.as_slice())
    }

    /// Sends the commands and hears their answers.
    pub async fn run(
        &mut self,
        connection: &mut Connection,
        capabilities: &Capabilities,
    ) -> Result<(), UpstreamError> {
        let deadline = connection.deadline();
        let mut tags = Vec::new();
        for command in self.commands(capabilities)? {
            tags.push(connection.send(command).await?);
        }
        let mut hear = |event| match event {
            Event::List(listed) => self.hear(listed),
            _ => Ok(()),
        };
        let mut no_selection = false;
        for tag in tags {
            let answer = connection.wait(tag, deadline, &mut hear).await?;
            no_selection |= answer.kind == Kind::Bad;
            if answer.kind != Kind::Bad {
                answer.ok_or_error("LIST")?;
            }
        }
        if no_selection {
            let answer = connection.run(list_all(), &mut hear).await?;
            answer.ok_or_error("LIST")?;
        }
        Ok(())
    }
}

/// For a server that announces special uses, but not the extended LIST to ask
/// for them (RFC 6154 §2): they are in the answer to the plain one.
pub(super) fn list_all() -> Command {
    Command::new("LIST \"\" \"*\"")
}

/// The mailboxes that the policy names, in its order, each once. `layout` is
/// what was asked for on the way, if it was.
pub(super) async fn resolve(
    connection: &mut Connection,
    capabilities: &Capabilities,
    policy: &Policy,
    layout: &mut Option<Layout>,
) -> Result<Vec<String>, UpstreamError> {
    if policy.shared.is_none() && policy.folders.iter().all(FolderName::is_inbox) {
        return Ok(vec!["INBOX".to_owned()]);
    }
    let layout = match layout {
        Some(layout) => layout,
        None => layout.insert(Layout::ask(connection, capabilities).await?),
    };
    let mut searches = Vec::with_capacity(policy.folders.len());
    for folder in &policy.folders {
        searches.push(match &policy.shared {
            Some(user) => Search::of_other_user(user, folder, layout)?,
            None => Search::of_name(folder, layout, capabilities),
        });
    }
    let mut finder = Finder::new(searches);
    finder.know(layout);
    finder.run(connection, capabilities).await?;
    let mut names = Vec::with_capacity(policy.folders.len());
    for (place, folder) in policy.folders.iter().enumerate() {
        let mut name = finder.found(place).map(str::to_owned);
        if name.is_none() && policy.shared.is_some() {
            name = probe(connection, finder.candidates(place)).await?;
        }
        let Some(name) = name else {
            let what = "the upstream has no such folder, or it holds no messages";
            let reason = Reason::quoting(what, folder.as_str());
            return Err(UpstreamError::NoFolder(reason));
        };
        add(&mut names, name);
    }
    Ok(names)
}

/// The first of these mailboxes that can be asked for its STATUS (RFC 3501
/// §6.3.10): where Dovecot keeps no list of who shares what with whom
/// (`acl_shared_dict`), LIST does not name what SELECT opens.
async fn probe(
    connection: &mut Connection,
    candidates: &[String],
) -> Result<Option<String>, UpstreamError> {
    let deadline = connection.deadline();
    let mut tags = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let status = Command::new("STATUS").mailbox(candidate)?;
        tags.push(connection.send(status.items("UIDVALIDITY")).await?);
    }
    let mut found = None;
    for (tag, candidate) in tags.into_iter().zip(candidates) {
        let answer = connection.wait(tag, deadline, |_| Ok(())).await?;
        if answer.kind == Kind::Ok {
            found.get_or_insert_with(|| candidate.clone());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
