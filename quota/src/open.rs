//! From a URL to a store: the URL decides which backend is used, features which are there to choose from.

use std::sync::Arc;

use quota_core::{MemoryStore, QuotaStore};
use url::Url;

/// Opens the store that a URL names.
///
/// | URL | store |
/// |---|---|
/// | `memory:` | within this process, shared with nobody |
///
/// ```
/// let store = quota::open_store("memory:")?;
/// let error = quota::open_store("carrier-pigeon://loft").unwrap_err();
/// assert_eq!(error.to_string(), "no store for carrier-pigeon:, only for memory:");
/// # Ok::<(), quota::OpenError>(())
/// ```
///
/// # Errors
///
/// [`OpenError`] if the text is no URL, or names a store that is not there. It never repeats the URL, which may hold a
/// password.
pub fn open_store(url: &str) -> Result<Arc<dyn QuotaStore>, OpenError> {
    let url = Url::parse(url).map_err(|error| OpenError::NoUrl { error })?;
    match url.scheme() {
        "memory" if is_bare(&url) => Ok(Arc::new(MemoryStore::new())),
        "memory" => Err(OpenError::TooMuch { scheme: "memory" }),
        scheme => Err(OpenError::UnknownScheme { scheme: scheme.to_owned() }),
    }
}

/// The schemes that are compiled in.
const SCHEMES: [&str; 1] = ["memory:"];

fn is_bare(url: &Url) -> bool {
    url.host().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
}

/// Why a URL opens no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The text is no URL.
    #[error("a store is named by a URL such as memory:, and this is none")]
    #[non_exhaustive]
    NoUrl {
        /// What is wrong with it.
        #[source]
        error: url::ParseError,
    },
    /// There is no store for this scheme, or it is not compiled in.
    #[error("no store for {scheme}:, only for {}", SCHEMES.join(", "))]
    #[non_exhaustive]
    UnknownScheme {
        /// The part before the colon.
        scheme: String,
    },
    /// The store takes nothing behind the scheme.
    #[error("{scheme}: takes nothing behind the colon")]
    #[non_exhaustive]
    TooMuch {
        /// The part before the colon.
        scheme: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_opened() {
        assert!(open_store("memory:").is_ok());
    }

    #[test]
    fn an_unknown_scheme_lists_what_is_there() {
        let error = open_store("redsi://host").unwrap_err();

        assert_eq!(error.to_string(), "no store for redsi:, only for memory:");
    }

    #[test]
    fn a_password_is_not_repeated() {
        for url in ["pigeon://me:hunter2@loft", "memory://me:hunter2@x", "//me:hunter2@x"] {
            let error = open_store(url).unwrap_err();

            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn something_behind_memory_is_refused_rather_than_ignored() {
        assert!(open_store("memory://somewhere/else").is_err());
    }
}
