//! What is said to an old server.

use zeroize::Zeroizing;

use crate::import::matching::Place;
use crate::secret::Secret;

/// All that is ever said to an old server.
pub(super) enum Command<'a> {
    Capa,
    Stls,
    User(&'a str),
    Pass(&'a Secret),
    AuthPlain,
    /// The response to the challenge of AUTH, in Base64.
    Response(&'a str),
    Stat,
    List,
    Uidl,
    /// `TOP n 0`: the header of the message at this place.
    Header(Place),
    Quit,
}

impl Command<'_> {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Capa => "CAPA",
            Self::Stls => "STLS",
            Self::User(_) => "USER",
            Self::Pass(_) => "PASS",
            Self::AuthPlain | Self::Response(_) => "AUTH PLAIN",
            Self::Stat => "STAT",
            Self::List => "LIST",
            Self::Uidl => "UIDL",
            Self::Header(_) => "TOP",
            Self::Quit => "QUIT",
        }
    }

    /// The command's line. What came from outside was checked for line ends
    /// when [`crate::sasl::Credentials`] were made of it.
    pub fn line(&self) -> Zeroizing<String> {
        let argument = match self {
            Self::User(argument) | Self::Response(argument) => *argument,
            Self::Pass(password) => password.reveal(),
            Self::Capa
            | Self::Stls
            | Self::AuthPlain
            | Self::Stat
            | Self::List
            | Self::Uidl
            | Self::Header(_)
            | Self::Quit => "",
        };
        let mut line = Zeroizing::new(String::with_capacity(argument.len() + 32));
        match self {
            Self::Response(_) => {}
            Self::User(_) | Self::Pass(_) => {
                line.push_str(self.name());
                line.push(' ');
            }
            Self::Header(place) => line.push_str(&format!("TOP {} 0", place + 1)),
            Self::Capa
            | Self::Stls
            | Self::AuthPlain
            | Self::Stat
            | Self::List
            | Self::Uidl
            | Self::Quit => line.push_str(self.name()),
        }
        line.push_str(argument);
        line.push_str("\r\n");
        line
    }
}
