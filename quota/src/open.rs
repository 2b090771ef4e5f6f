//! Opens stores by URL. The scheme selects the backend; features decide which backends are compiled in.

use std::sync::Arc;

use quota_core::{MemoryStore, QuotaStore};
use url::Url;

/// Opens the store that a URL names. The first use connects.
///
/// | URL | store | feature |
/// |---|---|---|
/// | `memory:` | the memory of this process, not shared | |
/// | `sqlite:///path` | a file, for the processes of one machine | `sqlite` |
/// | `redis://host`, `redis+unix:///path`, `redis+cluster://host`, `redis+sentinel://host?master=name` | Redis or Valkey, for many hosts | `redis` |
/// | `rediss://host`, `rediss+cluster://host`, `rediss+sentinel://host?master=name` | the same over TLS | `redis-tls` |
///
/// The front pages of `quota-sqlite` and `quota-redis` ([`sqlite`](crate::sqlite) and [`redis`](crate::redis) here) describe
/// the other parts of these URLs.
///
/// ```
/// let store = quota::open_store("memory:")?;
/// let error = quota::open_store("carrier-pigeon://loft").unwrap_err();
/// assert!(error.to_string().starts_with("unknown store scheme \"carrier-pigeon\" (expected one of: memory:"));
/// # Ok::<(), quota::OpenError>(())
/// ```
///
/// # Errors
///
/// [`OpenError`] if the text is not a URL, no store has its scheme, or another part is not valid. The error never repeats the
/// URL, because it may contain a password.
pub fn open_store(url: &str) -> Result<Arc<dyn QuotaStore>, OpenError> {
    let url = Url::parse(url).map_err(|error| OpenError::InvalidUrl { error })?;
    match url.scheme() {
        "memory" if has_only_scheme(&url) => Ok(Arc::new(MemoryStore::new())),
        "memory" => Err(OpenError::UnexpectedParts { scheme: "memory" }),
        scheme => match BACKENDS.iter().find(|backend| backend.schemes.contains(&scheme)) {
            Some(backend) => match backend.open {
                Some(open) => open(&url),
                None => Err(OpenError::NotCompiledIn { scheme: scheme.to_owned(), feature: backend.feature }),
            },
            None => Err(OpenError::UnknownScheme { scheme: scheme.to_owned() }),
        },
    }
}

/// A store that a feature adds.
struct Backend {
    schemes: &'static [&'static str],
    feature: &'static str,
    /// `None` if it is not compiled in.
    open: Option<Open>,
}

type Open = fn(&Url) -> Result<Arc<dyn QuotaStore>, OpenError>;

/// All stores other than memory, compiled in or not.
const BACKENDS: [Backend; 3] = [
    Backend {
        schemes: &["sqlite"],
        feature: "sqlite",
        #[cfg(feature = "sqlite")]
        open: Some(|url| Ok(Arc::new(quota_sqlite::SqliteOptions::from_url(url)?.open()?))),
        #[cfg(not(feature = "sqlite"))]
        open: None,
    },
    Backend {
        schemes: &["redis", "redis+unix", "redis+cluster", "redis+sentinel"],
        feature: "redis",
        #[cfg(feature = "redis")]
        open: Some(open_redis),
        #[cfg(not(feature = "redis"))]
        open: None,
    },
    Backend {
        schemes: &["rediss", "rediss+cluster", "rediss+sentinel"],
        feature: "redis-tls",
        #[cfg(feature = "redis-tls")]
        open: Some(open_redis),
        #[cfg(not(feature = "redis-tls"))]
        open: None,
    },
];

#[cfg(feature = "redis")]
fn open_redis(url: &Url) -> Result<Arc<dyn QuotaStore>, OpenError> {
    Ok(Arc::new(quota_redis::RedisOptions::from_url(url)?.open()?))
}

/// The schemes that are compiled in.
fn schemes() -> String {
    let backends =
        BACKENDS.iter().filter(|backend| backend.open.is_some()).flat_map(|backend| backend.schemes);
    let all: Vec<_> = ["memory"].iter().chain(backends).map(|scheme| format!("{scheme}:")).collect();
    all.join(", ")
}

fn has_only_scheme(url: &Url) -> bool {
    url.host().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
}

/// Why a store cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The text is not a URL.
    #[error("not a store URL; try sqlite:///path or redis://host")]
    #[non_exhaustive]
    InvalidUrl {
        /// The parse error.
        #[source]
        error: url::ParseError,
    },
    /// No store has this scheme.
    #[error("unknown store scheme \"{scheme}\" (expected one of: {})", schemes())]
    #[non_exhaustive]
    UnknownScheme {
        /// The part before the colon.
        scheme: String,
    },
    /// The store of this scheme is not compiled in.
    #[error(
        "the scheme {scheme}: needs the feature {feature} of the crate quota (compiled in: {})",
        schemes()
    )]
    #[non_exhaustive]
    NotCompiledIn {
        /// The part before the colon.
        scheme: String,
        /// The cargo feature that adds the store.
        feature: &'static str,
    },
    /// The URL has parts after its scheme.
    #[error("{scheme}: allows nothing after the colon")]
    #[non_exhaustive]
    UnexpectedParts {
        /// The part before the colon.
        scheme: &'static str,
    },
    /// A setting of a Redis store is not valid.
    #[cfg(feature = "redis")]
    #[error(transparent)]
    Redis(#[from] quota_redis::RedisOpenError),
    /// A setting of a SQLite store is not valid.
    #[cfg(feature = "sqlite")]
    #[error(transparent)]
    Sqlite(#[from] quota_sqlite::SqliteOpenError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_store_is_opened() {
        assert!(open_store("memory:").is_ok());
    }

    #[test]
    fn an_unknown_scheme_lists_the_schemes() {
        let error = open_store("redsi://host").unwrap_err();

        assert_eq!(
            error.to_string(),
            format!("unknown store scheme \"redsi\" (expected one of: {})", schemes())
        );
    }

    #[test]
    fn a_missing_backend_names_its_feature() {
        for (url, feature, is_compiled_in) in [
            ("sqlite:///x/quota.db", "sqlite", cfg!(feature = "sqlite")),
            ("redis://host", "redis", cfg!(feature = "redis")),
            ("redis+unix:///run/redis.sock", "redis", cfg!(feature = "redis")),
            ("redis+cluster://host?node=other", "redis", cfg!(feature = "redis")),
            ("redis+sentinel://host?master=m", "redis", cfg!(feature = "redis")),
            ("rediss://host", "redis-tls", cfg!(feature = "redis-tls")),
            ("rediss+cluster://host", "redis-tls", cfg!(feature = "redis-tls")),
            ("rediss+sentinel://host?master=m", "redis-tls", cfg!(feature = "redis-tls")),
        ] {
            match open_store(url) {
                Ok(_) => assert!(is_compiled_in, "{url}"),
                Err(error) => {
                    assert!(!is_compiled_in, "{url}: {error}");
                    assert!(
                        error.to_string().contains(&format!("needs the feature {feature} of")),
                        "{error}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_error_does_not_repeat_a_password() {
        for url in [
            "pigeon://me:hunter2@loft",
            "memory://me:hunter2@x",
            "//me:hunter2@x",
            "redis://me:hunter2@x/y",
            "rediss://me:hunter2@x?y=hunter2",
        ] {
            let error = open_store(url).unwrap_err();

            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn parts_after_the_memory_scheme_are_rejected() {
        assert!(open_store("memory://somewhere/else").is_err());
    }
}
