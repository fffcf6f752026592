//! Mailboxes by their names, level by level (RFC 8621 §2).

use std::collections::HashMap;

use super::mailbox_list::Mailbox;
use crate::maildrop::FolderName;

/// Mailboxes below their parents. Each has one parent at most, so a search from
/// the top comes to each once at most, and never into a circle.
pub(super) struct Tree {
    mailboxes: Vec<Mailbox>,
    /// By the parent's id; `None`: on the top level.
    children: HashMap<Option<Box<str>>, Vec<usize>>,
}

impl Tree {
    pub fn new(mailboxes: Vec<Mailbox>) -> Self {
        let mut children: HashMap<Option<Box<str>>, Vec<usize>> = HashMap::new();
        for (place, mailbox) in mailboxes.iter().enumerate() {
            let siblings = children.entry(mailbox.parent_id.clone()).or_default();
            siblings.push(place);
        }
        Self {
            mailboxes,
            children,
        }
    }

    /// The mailbox with a role.
    pub fn with_role(&self, role: &str) -> Option<&Mailbox> {
        self.mailboxes.iter().find(|it| it.has_role(role))
    }

    /// The inbox by its role; any other folder by its very name, or else by the
    /// role that it is the name of.
    pub fn find(&self, folder: &FolderName) -> Option<&Mailbox> {
        if folder.is_inbox() {
            return self.with_role("inbox");
        }
        let by_role = || self.with_role(folder.special_use()?.role());
        self.below(None, folder.as_str()).or_else(by_role)
    }

    /// The mailbox at this path below a parent. A name may hold `/` itself.
    fn below(&self, parent: Option<&str>, path: &str) -> Option<&Mailbox> {
        let children = self.children.get(&parent.map(Box::from))?;
        let children = || children.iter().filter_map(|it| self.mailboxes.get(*it));
        let named = children().find(|it| *it.name == *path);
        named.or_else(|| {
            children().find_map(|mailbox| {
                let rest = rest(mailbox, parent.is_none(), path)?;
                self.below(Some(&mailbox.id), rest)
            })
        })
    }
}

/// What is left of a path behind this mailbox's name.
fn rest<'a>(mailbox: &Mailbox, is_top: bool, path: &'a str) -> Option<&'a str> {
    if mailbox.name.is_empty() {
        return None;
    }
    let named = path.strip_prefix(&*mailbox.name);
    if let Some(rest) = named.and_then(|it| it.strip_prefix('/')) {
        return Some(rest);
    }
    // `INBOX/…` is below the inbox, whatever that is called.
    let (first, rest) = path.split_once('/')?;
    let is_inbox = is_top && mailbox.has_role("inbox") && first.eq_ignore_ascii_case("INBOX");
    is_inbox.then_some(rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tree(mailboxes: serde_json::Value) -> Tree {
        Tree::new(serde_json::from_value(mailboxes).unwrap())
    }

    fn found<'a>(tree: &'a Tree, folder: &str) -> Option<&'a str> {
        tree.find(&folder.parse().unwrap()).map(|it| &*it.id)
    }

    #[test]
    fn names_level_by_level_and_roles() {
        let tree = tree(json!([
            { "id": "i", "name": "Posteingang", "role": "inbox", "parentId": null },
            { "id": "s", "name": "Sub", "role": null, "parentId": "i" },
            { "id": "w", "name": "Work", "role": null, "parentId": null },
            { "id": "y", "name": "2024", "role": null, "parentId": "w" },
            { "id": "o", "name": "Workshop", "role": null, "parentId": null },
            { "id": "j", "name": "Spam", "role": "junk", "parentId": null },
            { "id": "d", "name": "drafts", "role": null, "parentId": null },
            { "id": "e", "name": "Entwürfe", "role": "drafts", "parentId": null },
            { "id": "a/b", "name": "a/b", "role": null, "parentId": null },
            { "id": "a", "name": "a", "role": null, "parentId": null },
            { "id": "c", "name": "c", "role": null, "parentId": "a/b" },
            { "id": "n", "name": "", "role": null, "parentId": null },
        ]));
        for (folder, id) in [
            ("inbox", Some("i")),
            ("INBOX/Sub", Some("s")),
            ("Posteingang", Some("i")),
            ("Posteingang/Sub", Some("s")),
            ("Sub", None),
            ("Work", Some("w")),
            ("work", None),
            ("Work/2024", Some("y")),
            ("Work/2023", None),
            ("junk", Some("j")),
            ("drafts", Some("d")),
            ("Drafts", Some("e")),
            ("Entwürfe", Some("e")),
            ("a/b", Some("a/b")),
            ("a/b/c", Some("c")),
            ("archive", None),
        ] {
            assert_eq!(found(&tree, folder), id, "{folder}");
        }
    }

    #[test]
    fn circles_and_strangers() {
        let tree = tree(json!([
            { "id": "a", "name": "a", "role": null, "parentId": "b" },
            { "id": "b", "name": "a", "role": null, "parentId": "a" },
            { "id": "c", "name": "c", "role": null, "parentId": "c" },
            { "id": "d", "name": "d", "role": null, "parentId": "nobody" },
        ]));
        for folder in ["a", "a/a", "a/a/a", "c", "c/c", "d"] {
            assert_eq!(found(&tree, folder), None, "{folder}");
        }
    }
}
