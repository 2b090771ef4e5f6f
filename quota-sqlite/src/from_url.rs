//! Parses the settings from a URL.
//! `options` defines them.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::options::{SqliteOpenError, SqliteOptions};

/// The only query key.
const QUERY_KEY: &str = "busy_ms";

impl SqliteOptions {
    /// Parses a URL; see the [front page](crate#urls) for the syntax.
    ///
    /// # Errors
    ///
    /// [`SqliteOpenError`] if the URL is not valid.
    pub fn from_url(url: &Url) -> Result<Self, SqliteOpenError> {
        options(url)
    }
}

impl FromStr for SqliteOptions {
    type Err = SqliteOpenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|error| SqliteOpenError::InvalidUrl { error })?;
        Self::from_url(&url)
    }
}

fn options(url: &Url) -> Result<SqliteOptions, SqliteOpenError> {
    let invalid = |reason: &'static str| SqliteOpenError::setting(reason);
    if url.scheme() != "sqlite" {
        return Err(SqliteOpenError::setting(format!("not a sqlite URL: the scheme is {}:", url.scheme())));
    }
    if matches!(url.path(), ":memory:" | "/:memory:") {
        return Err(invalid("sqlite has no in-memory store; for one within this process use memory:"));
    }
    if !url.host_str().unwrap_or_default().is_empty() || !url.path().starts_with('/') {
        return Err(invalid(
            "a sqlite URL needs three slashes and an absolute path: sqlite:///home/me/quota.db",
        ));
    }
    if url.fragment().is_some() {
        return Err(invalid("a sqlite URL has no #fragment; write # in a path as %23"));
    }
    let bytes: Vec<u8> = percent_decode_str(url.path()).collect();
    if bytes.contains(&0) {
        return Err(invalid("a path cannot contain a zero byte (%00)"));
    }
    let mut options = SqliteOptions::file(path(bytes)?);
    let mut is_set = false;
    for (key, value) in url.query_pairs() {
        if key != QUERY_KEY {
            return Err(SqliteOpenError::setting(format!(
                "unknown query key in a sqlite: URL (expected: {QUERY_KEY})"
            )));
        }
        if is_set {
            return Err(invalid("?busy_ms= is set twice; keep one"));
        }
        is_set = true;
        let ms = value.parse().map_err(|_| invalid("?busy_ms= must be a number of milliseconds"))?;
        options = options.busy_timeout(Duration::from_millis(ms));
    }
    Ok(options)
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "on other systems some bytes are not a valid path")]
fn path(bytes: Vec<u8>) -> Result<PathBuf, SqliteOpenError> {
    use std::os::unix::ffi::OsStringExt as _;
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path(bytes: Vec<u8>) -> Result<PathBuf, SqliteOpenError> {
    let text = String::from_utf8(bytes).map_err(|_| SqliteOpenError::setting("the path is not UTF-8"))?;
    // In `sqlite:///C:/quota.db` the slash before the drive belongs to the URL syntax.
    let has_drive = text.as_bytes().get(2) == Some(&b':');
    Ok(if has_drive { text[1..].into() } else { text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> SqliteOptions {
        text.parse().unwrap()
    }

    fn error_of(text: &str) -> String {
        match text.parse::<SqliteOptions>().and_then(SqliteOptions::open) {
            Ok(_) => panic!("{text} should be rejected"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_path_is_decoded() {
        assert_eq!(
            parsed("sqlite:///a%20b/%C3%BC/quota%23.db").path,
            std::path::Path::new("/a b/ü/quota#.db")
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_path_need_not_be_utf8() {
        use std::os::unix::ffi::OsStrExt as _;

        assert_eq!(parsed("sqlite:///a%ff").path.as_os_str().as_bytes(), b"/a\xff");
    }

    #[test]
    fn busy_ms_sets_the_lock_timeout() {
        assert_eq!(parsed("sqlite:///x?busy_ms=20").busy_timeout, Duration::from_millis(20));
    }

    #[test]
    fn a_relative_path_is_rejected_with_the_right_syntax() {
        for text in ["sqlite:quota.db", "sqlite://quota.db", "sqlite://~/quota.db", "sqlite://localhost/x"] {
            assert!(error_of(text).contains("sqlite:///home/me/quota.db"), "{text}");
        }
        for text in ["sqlite:///", "sqlite:", "sqlite:///a/.."] {
            assert!(error_of(text).contains("sqlite:///home/me/quota.db"), "{text}");
        }
    }

    #[test]
    fn memory_paths_are_rejected_with_the_memory_store() {
        for text in ["sqlite::memory:", "sqlite:///:memory:"] {
            assert!(error_of(text).ends_with("use memory:"), "{text}");
        }
    }

    #[test]
    fn an_unknown_query_key_names_the_known_one() {
        for text in ["sqlite:///x?mode=ro", "sqlite:///x?busy=1", "sqlite:///x?busy_ms=1&cache=shared"] {
            assert_eq!(error_of(text), "unknown query key in a sqlite: URL (expected: busy_ms)");
        }
    }

    #[test]
    fn invalid_urls_are_rejected() {
        for text in [
            "sqlite:///x?busy_ms=soon",
            "sqlite:///x?busy_ms=-1",
            "sqlite:///x?busy_ms=1&busy_ms=2",
            "sqlite:///x?busy_ms=999999999999",
            "sqlite:///x#y",
            "sqlite:///x%00y",
            "redis:///x",
            "no url",
        ] {
            assert!(!error_of(text).is_empty(), "{text}");
        }
    }
}
