//! What is POSTed to an authorisation server (RFC 6749 appendix B).

use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// A form under way to the token endpoint.
#[derive(Clone)]
pub(super) struct Form {
    pub text: Zeroizing<String>,
    /// What its answer must not repeat.
    pub shown: Vec<Secret>,
}

impl Form {
    pub fn new(grant: &str) -> Self {
        Self::empty().with("grant_type", grant)
    }

    pub fn empty() -> Self {
        Self {
            text: Zeroizing::default(),
            shown: Vec::new(),
        }
    }

    pub fn with(self, name: &str, value: &str) -> Self {
        // A text that grows in place leaves copies behind.
        let room = self.text.len() + 3 * (name.len() + value.len()) + "&=".len();
        let mut text = String::with_capacity(room);
        text.push_str(&self.text);
        // The serializer itself is no value that another thread may have.
        let mut text = form_urlencoded::Serializer::new(text);
        text.append_pair(name, value);
        Self {
            text: Zeroizing::new(text.finish()),
            ..self
        }
    }

    pub fn with_secret(mut self, name: &str, value: &Secret) -> Self {
        self = self.with(name, value.reveal());
        self.shown.push(value.clone());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_copy_of_a_secret_is_left_behind_by_a_text_that_grew() {
        let secret = Secret::new("\u{20ac} &=".repeat(100));
        let form = Form::new("refresh_token").with("scope", "a b");
        let before = form.text.len();
        let form = form.with_secret("refresh_token", &secret);
        assert_eq!(form.shown, std::slice::from_ref(&secret));
        assert!(
            form.text
                .starts_with("grant_type=refresh_token&scope=a+b&refresh_token=%E2%82")
        );
        let read = form_urlencoded::parse(form.text.as_bytes()).last();
        assert_eq!(read.unwrap().1, secret.reveal());
        let room = before + 3 * (secret.reveal().len() + "refresh_token".len()) + 2;
        assert_eq!(form.text.capacity(), room);
    }
}
