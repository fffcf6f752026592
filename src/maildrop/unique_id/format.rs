//! How unique ids are made: format strings in Dovecot's notation, and presets
//! for what other servers hand out.

use std::str::FromStr;

use super::{MAX_OCTETS, UniqueId, fits, hashed};

/// A recipe for unique ids.
///
/// In Dovecot's notations, so that its `pop3_uidl_format` means the same here:
/// `%u` is the UID, `%v` the UIDVALIDITY, `%g` the GUID, `%f` the name of the
/// Maildir file, `%m` the MD5 sum of an mbox header. `%08Xu` pads a number to eight digits of lower-case hex (`X`
/// and `x` alike), `%%` is a percent sign. A width without a leading zero pads
/// nothing: it cuts what is longer, as Dovecot does. The newer spelling is
/// `%{uid | hex(8)}`. Or the name of a preset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueIdFormat {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field {
        ingredient: Ingredient,
        hex: bool,
        width: Width,
    },
}

/// Of a number, in digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// Padded by zeros in front: `%08u`. `Padded(0)` leaves it as it is.
    Padded(usize),
    /// Cut to its first digits: `%8u`.
    Cut(usize),
}

/// What an upstream may know of a message, and unique ids can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingredient {
    /// IMAP's UID (RFC 3501 §2.3.1.1).
    Uid,
    /// IMAP's UIDVALIDITY. The same for all messages of a folder.
    UidValidity,
    /// Dovecot's GUID, which its IMAP tells as X-GUID.
    Guid,
    /// The name of the Maildir file, up to its flags: what Dovecot takes as the
    /// GUID of a message in a Maildir.
    FileName,
    /// The MD5 sum of the message's header, which Dovecot takes as the GUID of a
    /// message in an mbox.
    HeaderMd5,
    /// EMAILID (RFC 8474 §5.1), or the id of a JMAP Email.
    EmailId,
    /// Gmail's X-GM-MSGID.
    GmailId,
    /// JMAP's blobId (RFC 8621 §4.1.1), with a suffix for further copies.
    BlobId,
}

impl Ingredient {
    fn is_number(self) -> bool {
        matches!(self, Self::Uid | Self::UidValidity | Self::GmailId)
    }
}

/// What is known of one message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ingredients<'a> {
    /// [`Ingredient::Uid`].
    pub uid: Option<u32>,
    /// [`Ingredient::UidValidity`].
    pub uid_validity: Option<u32>,
    /// [`Ingredient::Guid`], [`Ingredient::FileName`] and
    /// [`Ingredient::HeaderMd5`].
    pub guid: Option<&'a str>,
    /// [`Ingredient::EmailId`].
    pub email_id: Option<&'a str>,
    /// [`Ingredient::GmailId`].
    pub gmail_id: Option<u64>,
    /// [`Ingredient::BlobId`].
    pub blob_id: Option<&'a str>,
}

/// A format string that cannot name messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UniqueIdFormatError {
    /// A `%` is not followed by a variable popgate knows.
    #[error(
        "unknown variable {0:?}: known are %u (UID), %v (UIDVALIDITY), %g (GUID), %f (file name) and %m (MD5 of an mbox header), as in %08Xu%08Xv or %{{uid | hex(8)}}%{{uidvalidity | hex(8)}}"
    )]
    UnknownVariable(String),
    /// Not a format, and not a preset.
    #[error("no such preset: there are {}", preset_names())]
    UnknownPreset,
    /// All messages would have the same unique id.
    #[error(
        "the format must contain the UID or another id of the message (%u, %g, %f, %m), or all messages would be alike"
    )]
    Constant,
    /// The unique ids would be longer than 70 octets or hold other octets than
    /// 0x21 to 0x7E.
    #[error(
        "unique ids must have 1 to 70 characters, none of them a space, a control or 8-bit character"
    )]
    Invalid,
}

/// What other servers hand out. `stalwart` and `james` and the two names of
/// Dovecot's and Cyrus's formats are in use by their administrators.
const PRESETS: [(&str, &str); 12] = [
    ("dovecot", "%08Xu%08Xv"),
    ("dovecot-0.99", "%v.%u"),
    ("cyrus", "%v.%u"),
    ("cyrus-uidonly", "%u"),
    ("cyrus-dovecot", "%08Xu%08Xv"),
    ("courier", "%v-%u"),
    ("uw", "%08Xv%08Xu"),
    ("gmail", "GmailId%{gmail_id | hex}"),
    ("emailid", "%{emailid}"),
    ("stalwart", "%v%u"),
    ("james", "%u"),
    ("jmap", "%{blobid}"),
];

fn preset_names() -> String {
    PRESETS.map(|(name, _)| name).join(", ")
}

impl UniqueIdFormat {
    /// JMAP's own: made of blobIds.
    pub fn jmap() -> Self {
        Self {
            parts: vec![field(Ingredient::BlobId, false, Width::Padded(0))],
        }
    }

    /// What must be known of each message.
    pub fn ingredients(&self) -> impl Iterator<Item = Ingredient> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Field { ingredient, .. } => Some(*ingredient),
        })
    }

    /// Whether no two messages of a folder can come out alike. Else, copies may.
    pub fn tells_apart(&self) -> bool {
        let apart = |it| {
            matches!(
                it,
                Ingredient::Uid | Ingredient::GmailId | Ingredient::BlobId
            )
        };
        self.ingredients().any(apart)
    }

    /// The unique id of a message, or what had to be known of it and is not.
    /// Two messages of a folder may come out alike where the ingredients are:
    /// copies share an EMAILID.
    pub fn unique_id(&self, known: &Ingredients<'_>) -> Result<UniqueId, Ingredient> {
        let mut text = String::with_capacity(16);
        self.append(known, &mut text)?;
        Ok(UniqueId(text))
    }

    /// Appends the unique id of a message to `text`. On an error, nothing.
    pub(in crate::maildrop) fn append(
        &self,
        known: &Ingredients<'_>,
        text: &mut String,
    ) -> Result<(), Ingredient> {
        let start = text.len();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Field {
                    ingredient,
                    hex,
                    width,
                } => {
                    if write(text, *ingredient, known, *hex, *width).is_none() {
                        text.truncate(start);
                        return Err(*ingredient);
                    }
                }
            }
        }
        let made = text.get(start..).unwrap_or_default();
        if !fits(made) {
            let hashed = hashed(made);
            text.truncate(start);
            text.push_str(&hashed);
        }
        Ok(())
    }
}

/// Appends what is known; `None` where it is not.
fn write(
    text: &mut String,
    ingredient: Ingredient,
    known: &Ingredients<'_>,
    hex: bool,
    width: Width,
) -> Option<()> {
    let number: u64 = match ingredient {
        Ingredient::Uid => known.uid?.into(),
        Ingredient::UidValidity => known.uid_validity?.into(),
        Ingredient::GmailId => known.gmail_id?,
        Ingredient::Guid | Ingredient::FileName => {
            text.push_str(known.guid?);
            return Some(());
        }
        Ingredient::HeaderMd5 => {
            text.push_str(known.guid.filter(|guid| is_md5(guid))?);
            return Some(());
        }
        Ingredient::EmailId => {
            text.push_str(known.email_id?);
            return Some(());
        }
        Ingredient::BlobId => {
            text.push_str(known.blob_id?);
            return Some(());
        }
    };
    let start = text.len();
    match width {
        Width::Padded(digits) => push_number(text, number, hex, digits),
        Width::Cut(digits) => {
            push_number(text, number, hex, 0);
            text.truncate(start + digits);
        }
    }
    Some(())
}

/// Appends a number, padded by zeros. Large mailboxes have many: this is several
/// times faster than formatting.
fn push_number(text: &mut String, mut number: u64, hex: bool, padding: usize) {
    // No number has more digits than 2^64 has in decimal.
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        start -= 1;
        // By constants: that is what makes it fast.
        if hex {
            *digit = b"0123456789abcdef"[(number & 0xf) as usize];
            number >>= 4;
        } else {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        if number == 0 {
            break;
        }
    }
    let padded = start.min(digits.len().saturating_sub(padding));
    let further = padding.saturating_sub(digits.len());
    text.extend(std::iter::repeat_n('0', further));
    let digits = digits.get(padded..).unwrap_or_default();
    text.push_str(std::str::from_utf8(digits).unwrap_or_default());
}

/// The GUID of another kind of mailbox is no MD5 sum.
fn is_md5(guid: &str) -> bool {
    let is_hex = |octet: u8| matches!(octet, b'0'..=b'9' | b'a'..=b'f');
    guid.len() == 32 && guid.bytes().all(is_hex)
}

fn field(ingredient: Ingredient, hex: bool, width: Width) -> Part {
    Part::Field {
        ingredient,
        hex,
        width,
    }
}

impl Default for UniqueIdFormat {
    /// Dovecot's own default, `%08Xu%08Xv`.
    fn default() -> Self {
        Self {
            parts: vec![
                field(Ingredient::Uid, true, Width::Padded(8)),
                field(Ingredient::UidValidity, true, Width::Padded(8)),
            ],
        }
    }
}

impl FromStr for UniqueIdFormat {
    type Err = UniqueIdFormatError;

    fn from_str(format: &str) -> Result<Self, UniqueIdFormatError> {
        if let Some((_, format)) = PRESETS.iter().find(|(name, _)| *name == format) {
            return format.parse();
        }
        if !format.is_empty() && !format.contains('%') {
            return Err(UniqueIdFormatError::UnknownPreset);
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = format;
        while let Some(percent) = rest.find('%') {
            literal.push_str(&rest[..percent]);
            rest = &rest[percent + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (field, after) = match rest.strip_prefix('{') {
                Some(long) => long_field(long)?,
                None => short_field(rest)?,
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(field);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        let format = Self { parts };
        if !format.ingredients().any(|it| it != Ingredient::UidValidity) {
            return Err(UniqueIdFormatError::Constant);
        }
        format.check_length()?;
        Ok(format)
    }
}

impl UniqueIdFormat {
    /// With the longest numbers, and text of a usual length: what is longer
    /// than that is hashed as it comes.
    fn check_length(&self) -> Result<(), UniqueIdFormatError> {
        let text: String = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Literal(literal) => literal.clone(),
                Part::Field {
                    ingredient,
                    hex,
                    width,
                } => {
                    let digits = match (ingredient, hex) {
                        (Ingredient::GmailId, true) => 16,
                        (Ingredient::GmailId, false) => 20,
                        (Ingredient::Uid | Ingredient::UidValidity, true) => 8,
                        (Ingredient::Uid | Ingredient::UidValidity, false) => 10,
                        (
                            Ingredient::Guid
                            | Ingredient::FileName
                            | Ingredient::HeaderMd5
                            | Ingredient::EmailId
                            | Ingredient::BlobId,
                            _,
                        ) => 1,
                    };
                    "0".repeat(match width {
                        Width::Padded(width) => digits.max(*width),
                        Width::Cut(width) => digits.min(*width),
                    })
                }
            })
            .collect();
        UniqueId::new(text).map_or(Err(UniqueIdFormatError::Invalid), |_| Ok(()))
    }
}

fn unknown(shown: &str) -> UniqueIdFormatError {
    let shown: String = shown.chars().take(24).collect();
    UniqueIdFormatError::UnknownVariable(format!("%{shown}"))
}

/// Reads `[0][width][X|x](u|v|g|f|m)`, what may follow a percent sign.
fn short_field(text: &str) -> Result<(Part, &str), UniqueIdFormatError> {
    let shown = || unknown(&text.chars().take(8).collect::<String>());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (width, rest) = (width(&text[..digits])?, &text[digits..]);
    let (hex, rest) = match rest.strip_prefix(['x', 'X']) {
        Some(after) => (true, after),
        None => (false, rest),
    };
    let ingredient = match rest.chars().next() {
        Some('u') => Ingredient::Uid,
        Some('v') => Ingredient::UidValidity,
        Some('g') => Ingredient::Guid,
        Some('f') => Ingredient::FileName,
        Some('m') => Ingredient::HeaderMd5,
        _ => return Err(shown()),
    };
    if !ingredient.is_number() && (hex || digits > 0) {
        return Err(shown());
    }
    Ok((field(ingredient, hex, width), &rest[1..]))
}

/// Reads `name}` or `name | hex}` or `name | hex(width)}`, what may follow `%{`.
fn long_field(text: &str) -> Result<(Part, &str), UniqueIdFormatError> {
    let end = text
        .find('}')
        .ok_or_else(|| unknown(&format!("{{{text}")))?;
    let (inner, rest) = (&text[..end], &text[end + 1..]);
    let shown = || unknown(&format!("{{{inner}}}"));
    let mut words = inner.split('|').map(str::trim);
    let ingredient = match words.next().unwrap_or_default() {
        "uid" => Ingredient::Uid,
        "uidvalidity" => Ingredient::UidValidity,
        "guid" => Ingredient::Guid,
        "filename" => Ingredient::FileName,
        "emailid" => Ingredient::EmailId,
        "gmail_id" => Ingredient::GmailId,
        "blobid" => Ingredient::BlobId,
        "md5" => Ingredient::HeaderMd5,
        _ => return Err(shown()),
    };
    let (hex, padding) = match words.next() {
        None => (false, 0),
        Some("hex") => (true, 0),
        Some(filter) => {
            let digits = filter
                .strip_prefix("hex(")
                .and_then(|it| it.strip_suffix(')'))
                .map(str::trim)
                .filter(|it| !it.is_empty() && it.bytes().all(|octet| octet.is_ascii_digit()))
                .ok_or_else(shown)?;
            (true, digits_of(digits)?)
        }
    };
    if words.next().is_some() || (hex && !ingredient.is_number()) {
        return Err(shown());
    }
    Ok((field(ingredient, hex, Width::Padded(padding)), rest))
}

/// Reads what stands between the percent sign and the variable.
fn width(digits: &str) -> Result<Width, UniqueIdFormatError> {
    if digits.is_empty() || digits.starts_with('0') {
        return Ok(Width::Padded(digits_of(digits)?));
    }
    Ok(Width::Cut(digits_of(digits)?))
}

fn digits_of(digits: &str) -> Result<usize, UniqueIdFormatError> {
    if digits.is_empty() {
        return Ok(0);
    }
    let digits = digits.parse().ok().filter(|digits| *digits <= MAX_OCTETS);
    digits.ok_or(UniqueIdFormatError::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Ingredients<'static> = Ingredients {
        uid: Some(0xab),
        uid_validity: Some(0x6789_abcd),
        guid: Some("1700000000.M1P2.host"),
        email_id: Some("Mf00"),
        gmail_id: Some(0x17ab_0000_0000_ffff),
        blob_id: Some("Gdead"),
    };

    fn made(format: &str) -> String {
        let format: UniqueIdFormat = format.parse().unwrap();
        format.unique_id(&KNOWN).unwrap().to_string()
    }

    #[test]
    fn the_default_is_dovecots() {
        let default = UniqueIdFormat::default();
        for same in [
            "%08Xu%08Xv",
            "%08xu%08xv",
            "%{uid | hex(8)}%{uidvalidity | hex(8)}",
            "%{uid|hex(8)}%{ uidvalidity |hex( 8 )}",
            "dovecot",
        ] {
            assert_eq!(same.parse::<UniqueIdFormat>().unwrap(), default, "{same}");
        }
        assert_eq!(made("dovecot"), "000000ab6789abcd");
    }

    #[test]
    fn other_formats() {
        for (format, expected) in [
            ("%v.%u", "1737075661.171"),
            ("a%%%u", "a%171"),
            ("UID%u-%v", "UID171-1737075661"),
            ("%Xu", "ab"),
            ("%010u", "0000000171"),
            ("%08Xu", "000000ab"),
            ("%01Xu", "ab"),
            // Seen with Dovecot 2.3.
            ("%8Xu", "ab"),
            ("%4v.%u", "1737.171"),
            ("%{uid}", "171"),
            ("%{uid | hex}", "ab"),
            ("%g", "1700000000.M1P2.host"),
            ("%f", "1700000000.M1P2.host"),
            ("%{guid}.%{uid}", "1700000000.M1P2.host.171"),
        ] {
            assert_eq!(made(format), expected, "{format}");
        }
    }

    #[test]
    fn presets() {
        for (preset, expected) in [
            ("dovecot-0.99", "1737075661.171"),
            ("cyrus", "1737075661.171"),
            ("cyrus-uidonly", "171"),
            ("cyrus-dovecot", "000000ab6789abcd"),
            ("courier", "1737075661-171"),
            ("uw", "6789abcd000000ab"),
            ("gmail", "GmailId17ab00000000ffff"),
            ("emailid", "Mf00"),
            ("stalwart", "1737075661171"),
            ("james", "171"),
            ("jmap", "Gdead"),
        ] {
            assert_eq!(made(preset), expected, "{preset}");
        }
        assert_eq!(PRESETS.len(), 12);
    }

    #[test]
    fn formats_that_cannot_name_messages() {
        let refused = |format: &str| format.parse::<UniqueIdFormat>().unwrap_err();
        assert_eq!(refused("%v"), UniqueIdFormatError::Constant);
        assert_eq!(refused("a%%b"), UniqueIdFormatError::Constant);
        assert_eq!(refused(""), UniqueIdFormatError::Constant);
        assert_eq!(refused("%u %v"), UniqueIdFormatError::Invalid);
        assert_eq!(refused("%uä"), UniqueIdFormatError::Invalid);
        assert_eq!(refused("%071u"), UniqueIdFormatError::Invalid);
        assert_eq!(
            refused("%99999999999999999999u"),
            UniqueIdFormatError::Invalid
        );
        assert_eq!(refused("Dovecot"), UniqueIdFormatError::UnknownPreset);
        for unknown in [
            "%q%u",
            "%u%",
            "%{uid",
            "%{uid | hex(x)}",
            "%{uid | lower}",
            "%{}",
            "%08Xg",
            "%{guid | hex(8)}",
            "%{uid | hex(8) | hex(8)}",
            "%{uid | hex(-8)}",
        ] {
            let error = refused(unknown);
            assert!(
                matches!(error, UniqueIdFormatError::UnknownVariable(_)),
                "{unknown}: {error}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        let format: UniqueIdFormat = "gmail".parse().unwrap();
        let known = Ingredients {
            gmail_id: None,
            ..KNOWN
        };
        assert_eq!(format.unique_id(&known), Err(Ingredient::GmailId));
    }

    #[test]
    fn the_md5_of_a_header_is_the_guid_of_an_mbox() {
        let md5 = "0123456789abcdef0123456789abcdef";
        let known = Ingredients {
            guid: Some(md5),
            ..KNOWN
        };
        for format in ["%m", "%{md5}"] {
            let format: UniqueIdFormat = format.parse().unwrap();
            assert_eq!(format.unique_id(&known).unwrap().as_str(), md5);
            // That of a Maildir.
            assert_eq!(format.unique_id(&KNOWN), Err(Ingredient::HeaderMd5));
        }
    }

    #[test]
    fn long_ids_are_hashed() {
        let long = "x".repeat(255);
        let known = Ingredients {
            email_id: Some(&long),
            ..KNOWN
        };
        let format: UniqueIdFormat = "emailid".parse().unwrap();
        assert_eq!(format.unique_id(&known).unwrap().as_str().len(), 43);
    }
}
