//! SASL (RFC 4422), pure: one file a mechanism, both directions. popgate is
//! the server in front and the client upstream.

use crate::secret::Secret;

mod login;
mod oauth_bearer;
mod plain;
mod xoauth2;

/// A mechanism popgate speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN, the obsolete prompt for a user name and a password.
    Login,
    /// XOAUTH2, Google's and Microsoft's.
    XOauth2,
    /// OAUTHBEARER (RFC 7628).
    OAuthBearer,
}

/// What a client proved itself with.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// From USER and PASS, PLAIN or LOGIN.
    Password {
        /// The authentication identity.
        user: String,
        /// The authorization identity of PLAIN, where it is another one.
        authorize_as: Option<String>,
        /// The password, spaces and all.
        password: Secret,
    },
    /// From XOAUTH2 or OAUTHBEARER.
    Bearer {
        /// The mailbox's user.
        user: String,
        /// The access token.
        token: Secret,
    },
}

impl Credentials {
    /// Who logs in.
    pub fn user(&self) -> &str {
        match self {
            Self::Password { user, .. } | Self::Bearer { user, .. } => user,
        }
    }

    /// Whose mailbox is opened.
    pub fn mailbox(&self) -> &str {
        match self {
            Self::Password { authorize_as: Some(other), .. } => other,
            Self::Password { user, .. } | Self::Bearer { user, .. } => user,
        }
    }
}
