//! The files of the dashboard. Each has a hash of its content in its path, so a browser may keep it forever.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::access::digest;

const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// A file.
#[derive(Debug)]
pub(super) struct Asset {
    path: String,
    etag: HeaderValue,
    kind: HeaderValue,
    content: &'static str,
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::new("dashboard", "css", "text/css; charset=utf-8", include_str!("dashboard.css")),
        Asset::new("dashboard", "js", "text/javascript; charset=utf-8", include_str!("dashboard.js")),
        Asset::new("icon", "svg", "image/svg+xml", include_str!("icon.svg")),
    ]
});

/// All files.
pub(super) fn all() -> &'static [Asset] {
    &*ASSETS
}

/// The path of the stylesheet.
pub(super) fn style() -> &'static str {
    &ASSETS[0].path
}

/// The path of the script.
pub(super) fn script() -> &'static str {
    &ASSETS[1].path
}

/// The path of the icon.
pub(super) fn icon() -> &'static str {
    &ASSETS[2].path
}

impl Asset {
    fn new(name: &str, extension: &str, kind: &'static str, content: &'static str) -> Self {
        let hash: String = digest(content)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let etag =
            HeaderValue::try_from(format!("\"{hash}\"")).expect("hexadecimal digits are a valid header");
        let path = format!("/assets/{name}-{hash}.{extension}");
        Self { path, etag, kind: HeaderValue::from_static(kind), content }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn respond(&self, headers: &HeaderMap) -> Response {
        let caching = [(ETAG, self.etag.clone()), (CACHE_CONTROL, FOREVER)];
        if headers.get(IF_NONE_MATCH) == Some(&self.etag) {
            return (StatusCode::NOT_MODIFIED, caching).into_response();
        }
        (caching, [(CONTENT_TYPE, self.kind.clone())], self.content).into_response()
    }
}
