//! Style, script and icon: small, from popgate itself, under names that change
//! with what they hold, so that browsers ask once.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::session::sha256;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/script.js");
const ICON: &str = include_str!("assets/icon.svg");

/// The paths of the assets.
pub(super) struct Assets {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
}

impl Assets {
    pub(super) fn new() -> Self {
        let path = |content: &str, kind: &str| {
            let digest = sha256(content.as_bytes());
            let version: String = digest[..8].iter().map(|it| format!("{it:02x}")).collect();
            format!("/enrol/assets/{version}.{kind}")
        };
        Self {
            style: path(STYLE, "css"),
            script: path(SCRIPT, "js"),
            icon: path(ICON, "svg"),
        }
    }

    /// What is at a path.
    pub(super) fn get(&self, path: &str) -> Result<Response, Problem> {
        let (content, content_type) = if path == self.style {
            (STYLE, "text/css; charset=utf-8")
        } else if path == self.script {
            (SCRIPT, "text/javascript; charset=utf-8")
        } else if path == self.icon {
            (ICON, "image/svg+xml")
        } else {
            return Err(Problem::NotFound);
        };
        let forever = "public, max-age=31536000, immutable";
        let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, forever)];
        Ok((headers, content).into_response())
    }
}
