//! From a URL to a store: the URL decides which backend is used, features which are there to choose from.

use std::sync::Arc;

use quota_core::{MemoryStore, QuotaStore};
use url::Url;

/// Opens the store that a URL names. Nothing is connected to before the store is used.
///
/// | URL | store | feature |
/// |---|---|---|
/// | `memory:` | within this process, shared with nobody | |
/// | `sqlite:///path` | a file, shared by the processes of one machine | `sqlite` |
/// | `redis://host`, `redis+unix:///path`, `redis+cluster://host`, `redis+sentinel://host?master=name` | Redis or Valkey, shared by hosts | `redis` |
/// | `rediss://host`, `rediss+cluster://host`, `rediss+sentinel://host?master=name` | the same over TLS | `redis-tls` |
///
/// What else these URLs may say is on the front pages of the crates `quota-sqlite` and `quota-redis`, which are
/// [`sqlite`](crate::sqlite) and [`redis`](crate::redis) here.
///
/// ```
/// let store = quota::open_store("memory:")?;
/// let error = quota::open_store("carrier-pigeon://loft").unwrap_err();
/// assert!(error.to_string().starts_with("no store for carrier-pigeon:, only for memory:"));
/// # Ok::<(), quota::OpenError>(())
/// ```
///
/// # Errors
///
/// [`OpenError`] if the text is no URL, names a store that is not there, or says of it what makes no sense. It never repeats
/// the URL, which may hold a password.
pub fn open_store(url: &str) -> Result<Arc<dyn QuotaStore>, OpenError> {
    let url = Url::parse(url).map_err(|error| OpenError::NoUrl { error })?;
    match url.scheme() {
        "memory" if is_bare(&url) => Ok(Arc::new(MemoryStore::new())),
        "memory" => Err(OpenError::TooMuch { scheme: "memory" }),
        scheme => match BACKENDS.iter().find(|backend| backend.schemes.contains(&scheme)) {
            Some(backend) => match backend.open {
                Some(open) => open(&url),
                None => Err(OpenError::NotCompiledIn { scheme: scheme.to_owned(), feature: backend.feature }),
            },
            None => Err(OpenError::UnknownScheme { scheme: scheme.to_owned() }),
        },
    }
}

/// A store that a feature brings.
struct Backend {
    schemes: &'static [&'static str],
    feature: &'static str,
    /// `None` if it is not compiled in.
    open: Option<Open>,
}

type Open = fn(&Url) -> Result<Arc<dyn QuotaStore>, OpenError>;

/// All stores besides memory, compiled in or not.
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
    let others = BACKENDS.iter().filter(|backend| backend.open.is_some()).flat_map(|backend| backend.schemes);
    let all: Vec<_> = ["memory"].iter().chain(others).map(|scheme| format!("{scheme}:")).collect();
    all.join(", ")
}

fn is_bare(url: &Url) -> bool {
    url.host().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
}

/// Why a URL opens no store.
#[derive(Debug, Clone, thiserror::Error)]
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
    /// There is no store for this scheme.
    #[error("no store for {scheme}:, only for {}", schemes())]
    #[non_exhaustive]
    UnknownScheme {
        /// The part before the colon.
        scheme: String,
    },
    /// There is a store for this scheme, but it is not compiled in.
    #[error(
        "the store for {scheme}: needs the feature {feature} of the crate quota; without it there is only {}",
        schemes()
    )]
    #[non_exhaustive]
    NotCompiledIn {
        /// The part before the colon.
        scheme: String,
        /// The cargo feature that brings it.
        feature: &'static str,
    },
    /// The store takes nothing behind the scheme.
    #[error("{scheme}: takes nothing behind the colon")]
    #[non_exhaustive]
    TooMuch {
        /// The part before the colon.
        scheme: &'static str,
    },
    /// What the URL says of a Redis makes no sense.
    #[cfg(feature = "redis")]
    #[error(transparent)]
    Redis(#[from] quota_redis::RedisOpenError),
    /// What the URL says of a SQLite file makes no sense.
    #[cfg(feature = "sqlite")]
    #[error(transparent)]
    Sqlite(#[from] quota_sqlite::SqliteOpenError),
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

        assert_eq!(error.to_string(), format!("no store for redsi:, only for {}", schemes()));
    }

    #[test]
    fn a_backend_is_opened_if_it_is_compiled_in_and_named_by_its_feature_if_not() {
        for (url, feature, is_here) in [
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
                Ok(_) => assert!(is_here, "{url}"),
                Err(error) => {
                    assert!(!is_here, "{url}: {error}");
                    assert!(
                        error.to_string().contains(&format!("needs the feature {feature} of")),
                        "{error}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
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
    fn something_behind_memory_is_refused_rather_than_ignored() {
        assert!(open_store("memory://somewhere/else").is_err());
    }
}
