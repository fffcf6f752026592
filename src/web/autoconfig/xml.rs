//! XML: written with everything escaped, and read without anything that could
//! expand.

use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::Event;

/// Elements within each other; no request that is meant has more than three.
const DEEPEST: usize = 16;

/// A document that is being written.
pub(super) struct Document {
    text: String,
    open: Vec<&'static str>,
}

impl Document {
    pub(super) fn new() -> Self {
        Self {
            text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(),
            open: Vec::new(),
        }
    }

    /// Opens an element.
    pub(super) fn begin(&mut self, name: &'static str, attributes: &[(&str, &str)]) {
        self.indent();
        self.text.push('<');
        self.text.push_str(name);
        for (attribute, value) in attributes {
            self.text
                .push_str(&format!(" {attribute}=\"{}\"", escape(*value)));
        }
        self.text.push_str(">\n");
        self.open.push(name);
    }

    /// Closes the element that was opened last.
    pub(super) fn end(&mut self) {
        if let Some(name) = self.open.pop() {
            self.indent();
            self.text.push_str(&format!("</{name}>\n"));
        }
    }

    /// An element with nothing but text.
    pub(super) fn element(&mut self, name: &str, text: &str) {
        self.indent();
        self.text
            .push_str(&format!("<{name}>{}</{name}>\n", escape(text)));
    }

    /// Closes what is open.
    pub(super) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.end();
        }
        self.text
    }

    fn indent(&mut self) {
        self.text.push_str(&"  ".repeat(self.open.len()));
    }
}

/// The text of each element that was read, with the path of local names to it.
/// Elements without text, and text around other elements, are left out.
pub(super) type Texts = Vec<(Vec<String>, String)>;

/// Reads a document in UTF-8. `None` where it is not well-formed, has a
/// document type (whose entities could expand, or name files), refers to any
/// entity that XML itself does not define, or is nested too deeply.
pub(super) fn texts(octets: &[u8]) -> Option<Texts> {
    let text = std::str::from_utf8(octets).ok()?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    let mut texts = Texts::new();
    // Each open element, with its text as long as it has nothing else.
    let mut path: Vec<(String, Option<String>)> = Vec::new();
    let mut roots = 0;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                whole_attributes(start.attributes())?;
                match path.last_mut() {
                    Some((_, text)) => *text = None,
                    None => roots += 1,
                }
                let name = start.local_name().as_ref().to_owned();
                path.push((name, Some(String::new())));
                if path.len() > DEEPEST || roots > 1 {
                    return None;
                }
            }
            Event::Empty(empty) => {
                whole_attributes(empty.attributes())?;
                match path.last_mut() {
                    Some((_, text)) => *text = None,
                    None => roots += 1,
                }
            }
            Event::End(_) => {
                let names = path.iter().map(|(name, _)| name.clone()).collect();
                if let (_, Some(text)) = path.pop()? {
                    texts.push((names, text));
                }
            }
            Event::Text(text) => add(&mut path, &text.xml10_content())?,
            Event::CData(text) => add(&mut path, &text.xml10_content())?,
            Event::GeneralRef(reference) => {
                if let Some(c) = reference.resolve_char_ref().ok()? {
                    add(&mut path, c.encode_utf8(&mut [0; 4]))?;
                } else {
                    add(&mut path, resolve_predefined_entity(&reference)?)?;
                }
            }
            Event::DocType(_) => return None,
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof => return (path.is_empty() && roots == 1).then_some(texts),
        }
    }
}

fn whole_attributes(attributes: quick_xml::events::attributes::Attributes<'_>) -> Option<()> {
    for attribute in attributes {
        attribute.ok()?;
    }
    Some(())
}

/// Text outside of the root can only be white space.
fn add(path: &mut [(String, Option<String>)], more: &str) -> Option<()> {
    match path.last_mut() {
        Some((_, Some(text))) => text.push_str(more),
        Some((_, None)) => {}
        None if more.trim().is_empty() => {}
        None => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Vec<(String, String)>> {
        let texts = texts(text.as_bytes())?;
        Some(
            texts
                .into_iter()
                .map(|(path, text)| (path.join("/"), text))
                .collect(),
        )
    }

    #[test]
    fn texts_have_the_path_to_them() {
        let read = read(
            "\u{FEFF}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<!-- c --><p:a xmlns:p='u' b='c'>\n\
             <p:b>one &amp; &#x74;wo<!-- c --> <![CDATA[<3>]]></p:b><c/><d></d></p:a>\n",
        )
        .unwrap();
        assert_eq!(
            read,
            [
                ("a/b".to_owned(), "one & two <3>".to_owned()),
                ("a/d".to_owned(), String::new())
            ]
        );
    }

    #[test]
    fn text_around_elements_is_none_of_an_element() {
        assert_eq!(
            read("<a>x<b>y</b>z</a>").unwrap(),
            [("a/b".to_owned(), "y".to_owned())]
        );
        assert_eq!(read("<a>x<b/>z</a>").unwrap(), []);
    }

    #[test]
    fn what_is_not_read() {
        for wrong in [
            "",
            "   ",
            "a",
            "<a>",
            "</a>",
            "<a></b>",
            "<a><b></a></b>",
            "<a/><b/>",
            "<a></a><b></b>",
            "<a/>text",
            "text<a/>",
            "<a>&unknown;</a>",
            "<a>&#0;</a>",
            "<a>&#x110000;</a>",
            "<a>&</a>",
            "<a b=c/>",
            "<a b='1' b='2'/>",
            "<a",
            "<a><![CDATA[</a>",
            "<!DOCTYPE a><a/>",
            "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
            "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
            "<!DOCTYPE a [<!ENTITY x 'ha'><!ENTITY y '&x;&x;'>]><a>&y;</a>",
            "<a><!DOCTYPE a [<!ENTITY x 'y'>]>&x;</a>",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(texts(b"<a>\xff</a>"), None);
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(read(&nested(16)).is_some());
        assert_eq!(read(&nested(17)), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(<[a-c]>|</[a-c]>|&[a-z#0-9]{0,4};|<!\\[CDATA\\[|\\]\\]>|<!--|-->|.){0,40}") {
            let _ = texts(text.as_bytes());
        }

        #[test]
        fn whatever_is_written_is_read(text in "[^\\p{Cc}\u{2028}\u{2029}\u{FFFE}\u{FFFF}]{0,40}") {
            let mut document = Document::new();
            document.begin("a", &[("x", &text)]);
            document.element("b", &text);
            let written = document.finish();
            let tree = roxmltree::Document::parse(&written).unwrap();
            prop_assert_eq!(tree.root_element().attribute("x"), Some(text.as_str()));
            let read = read(&written).unwrap();
            prop_assert_eq!(read, [("a/b".to_owned(), text)]);
        }
    }
}
