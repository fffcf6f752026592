//! Mailboxes by what they are for: the Trash, the Archive (RFC 6154), or what
//! goes by their names where the server does not say. Pure.

use super::untagged::Listed;
use crate::maildrop::SpecialUse;

/// Names in use where the server does not say which mailbox it is.
fn names(special_use: SpecialUse) -> &'static [&'static str] {
    match special_use {
        SpecialUse::All => &["All Mail"],
        SpecialUse::Archive => &["Archive", "Archives"],
        SpecialUse::Drafts => &["Drafts"],
        SpecialUse::Flagged => &["Starred"],
        SpecialUse::Junk => &["Junk", "Spam", "Junk E-mail", "Junk Email", "Bulk Mail"],
        SpecialUse::Sent => &["Sent", "Sent Items", "Sent Messages", "Sent Mail"],
        SpecialUse::Trash => &["Trash", "Deleted Messages", "Deleted Items"],
    }
}

/// Patterns for LIST that name few others. They keep the answers short where
/// there are thousands of folders.
pub(super) fn patterns(special_use: SpecialUse) -> &'static [&'static str] {
    match special_use {
        SpecialUse::All => &["\"*All Mail\""],
        SpecialUse::Archive => &["\"*Archive\"", "\"*Archives\""],
        SpecialUse::Drafts => &["\"*Drafts\""],
        SpecialUse::Flagged => &["\"*Starred\""],
        SpecialUse::Junk => &[
            "\"*Junk\"",
            "\"*Spam\"",
            "\"*Junk E-mail\"",
            "\"*Junk Email\"",
            "\"*Bulk Mail\"",
        ],
        SpecialUse::Sent => &[
            "\"*Sent\"",
            "\"*Sent Items\"",
            "\"*Sent Messages\"",
            "\"*Sent Mail\"",
        ],
        SpecialUse::Trash => &["\"*Trash\"", "\"*Deleted Messages\"", "\"*Deleted Items\""],
    }
}

/// The mailbox with this use: one that says so, on the top level before others;
/// else the one with the first of its names.
pub(super) fn find<'a>(
    listed: impl Iterator<Item = &'a Listed> + Clone,
    special_use: SpecialUse,
) -> Option<&'a Listed> {
    let usable = || listed.clone().filter(|it| may_be(it, special_use));
    let declared = || usable().filter(|it| it.uses.contains(&special_use));
    let named = |name: &str| usable().find(|it| leaf(it) == Some(name));
    declared()
        .find(|it| leaf(it).is_some())
        .or_else(|| declared().next())
        .or_else(|| names(special_use).iter().find_map(|name| named(name)))
}

/// Whether a mailbox can be used so, and by its use or name should be. INBOX is
/// for nothing else.
pub(super) fn may_be(mailbox: &Listed, special_use: SpecialUse) -> bool {
    let usable = mailbox.is_selectable
        && !mailbox.name.is_empty()
        && !mailbox.name.eq_ignore_ascii_case("INBOX");
    usable
        && (mailbox.uses.contains(&special_use)
            || leaf(mailbox).is_some_and(|leaf| names(special_use).contains(&leaf)))
}

/// Whether a mailbox lies where those of other users may lie as well.
pub(super) fn may_be_of_others(mailbox: &Listed) -> bool {
    leaf(mailbox).is_none()
}

/// The name of a mailbox on the top level, or directly below INBOX or Gmail's
/// own folder.
fn leaf(mailbox: &Listed) -> Option<&str> {
    let Some(delimiter) = mailbox.delimiter.as_deref().filter(|it| !it.is_empty()) else {
        return Some(&mailbox.name);
    };
    match mailbox.name.split_once(delimiter) {
        None => Some(&mailbox.name),
        Some((parent, leaf)) => {
            let expected = ["INBOX", "[Gmail]", "[Google Mail]"];
            let known = expected.iter().any(|it| it.eq_ignore_ascii_case(parent));
            (known && !leaf.contains(delimiter)).then_some(leaf)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(name: &str, is_trash: bool) -> Listed {
        let delimiter = Some(if name.contains('.') { "." } else { "/" }.to_owned());
        Listed {
            name: name.to_owned(),
            delimiter,
            uses: if is_trash {
                vec![SpecialUse::Trash]
            } else {
                Vec::new()
            },
            is_selectable: true,
        }
    }

    fn trash(listed: &[Listed]) -> Option<&str> {
        find(listed.iter(), SpecialUse::Trash).map(|it| it.name.as_str())
    }

    #[test]
    fn the_trash_is_found_by_its_use_or_by_its_name() {
        let by_use = [mailbox("Trash", false), mailbox("Papelera", true)];
        assert_eq!(trash(&by_use), Some("Papelera"));
        let courier = [
            mailbox("INBOX.Projects.Trash", false),
            mailbox("INBOX.Trash", false),
        ];
        assert_eq!(trash(&courier), Some("INBOX.Trash"));
        let exchange = [mailbox("Deleted Items", false)];
        assert_eq!(trash(&exchange), Some("Deleted Items"));
        assert_eq!(trash(&[mailbox("Projects/Trash", false)]), None);
        let mut unselectable = mailbox("Trash", true);
        unselectable.is_selectable = false;
        assert_eq!(trash(&[unselectable]), None);
    }

    #[test]
    fn ones_own_trash_comes_before_that_of_others() {
        let both = [mailbox("Other Users/bob/Trash", true), mailbox("Bin", true)];
        assert_eq!(trash(&both), Some("Bin"));
    }

    #[test]
    fn the_inbox_is_no_trash() {
        assert_eq!(trash(&[mailbox("inbox", true)]), None);
        let both = [mailbox("INBOX", true), mailbox("Trash", false)];
        assert_eq!(trash(&both), Some("Trash"));
    }

    #[test]
    fn each_use_has_names_and_the_patterns_for_them() {
        for special_use in SpecialUse::ALL {
            let patterns = patterns(special_use).iter();
            let named: Vec<&str> = patterns.map(|it| it.trim_matches(['"', '*'])).collect();
            assert_eq!(named, names(special_use));
        }
    }
}
