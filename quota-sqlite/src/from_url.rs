//! From a URL to settings.
//! What the settings mean is in `options`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::options::{SqliteOpenError, SqliteOptions};

/// What may stand behind the `?`.
const KEYS: &str = "busy_ms";

impl SqliteOptions {
    /// What a URL says; see the [front page](crate#urls) for its form.
    ///
    /// # Errors
    ///
    /// [`SqliteOpenError`] if it makes no sense.
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
        return Err(SqliteOpenError::setting(format!("{}: is not sqlite:", url.scheme())));
    }
    if matches!(url.path(), ":memory:" | "/:memory:") {
        return Err(invalid("sqlite shares a file; for a store within this process write memory:"));
    }
    if !url.host_str().unwrap_or_default().is_empty() || !url.path().starts_with('/') {
        return Err(invalid("sqlite takes three slashes and an absolute path: sqlite:///home/me/quota.db"));
    }
    if url.fragment().is_some() {
        return Err(invalid("a sqlite URL has no part behind a #; in a path, write %23"));
    }
    let bytes: Vec<u8> = percent_decode_str(url.path()).collect();
    if bytes.contains(&0) {
        return Err(invalid("a path has no zero byte (%00)"));
    }
    let mut options = SqliteOptions::file(path(bytes)?);
    let mut is_set = false;
    for (key, value) in url.query_pairs() {
        if key != KEYS {
            return Err(SqliteOpenError::setting(format!(
                "sqlite: knows {KEYS} behind the ?, and nothing else"
            )));
        }
        if is_set {
            return Err(invalid("?busy_ms= is said twice"));
        }
        is_set = true;
        let ms = value.parse().map_err(|_| invalid("?busy_ms= takes milliseconds"))?;
        options = options.busy_timeout(Duration::from_millis(ms));
    }
    Ok(options)
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "on other systems not all bytes make a path")]
fn path(bytes: Vec<u8>) -> Result<PathBuf, SqliteOpenError> {
    use std::os::unix::ffi::OsStringExt as _;
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path(bytes: Vec<u8>) -> Result<PathBuf, SqliteOpenError> {
    let text = String::from_utf8(bytes).map_err(|_| SqliteOpenError::setting("the path is not UTF-8"))?;
    // `sqlite:///C:/quota.db`: the slash before a drive is the URL's.
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
            Ok(_) => panic!("{text} should be refused"),
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
    fn a_path_that_is_not_text_is_a_path() {
        use std::os::unix::ffi::OsStrExt as _;

        assert_eq!(parsed("sqlite:///a%ff").path.as_os_str().as_bytes(), b"/a\xff");
    }

    #[test]
    fn the_wait_for_the_lock_can_be_said() {
        assert_eq!(parsed("sqlite:///x?busy_ms=20").busy_timeout, Duration::from_millis(20));
    }

    #[test]
    fn what_is_no_absolute_path_is_refused_with_the_form_it_should_have() {
        for text in ["sqlite:quota.db", "sqlite://quota.db", "sqlite://~/quota.db", "sqlite://localhost/x"] {
            assert!(error_of(text).contains("sqlite:///home/me/quota.db"), "{text}");
        }
        for text in ["sqlite:///", "sqlite:", "sqlite:///a/.."] {
            assert!(error_of(text).contains("sqlite:///home/me/quota.db"), "{text}");
        }
    }

    #[test]
    fn memory_is_sent_to_the_store_for_it() {
        for text in ["sqlite::memory:", "sqlite:///:memory:"] {
            assert!(error_of(text).ends_with("write memory:"), "{text}");
        }
    }

    #[test]
    fn an_unknown_key_is_answered_with_those_there_are() {
        for text in ["sqlite:///x?mode=ro", "sqlite:///x?busy=1", "sqlite:///x?busy_ms=1&cache=shared"] {
            assert_eq!(error_of(text), "sqlite: knows busy_ms behind the ?, and nothing else");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
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
