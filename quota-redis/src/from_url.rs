//! Parses the settings from a URL. `options` defines them. No error repeats a part of the URL that may be a password.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use quota_core::Secret;
use url::Url;

use crate::address::{Address, REDIS_PORT, SENTINEL_PORT};
use crate::options::{Pem, RedisOpenError, RedisOptions, Servers, Tls, addresses};

/// The schemes, each with its kind of servers and whether it uses TLS.
const SCHEMES: [(&str, UrlKind, bool); 7] = [
    ("redis", UrlKind::Single, false),
    ("rediss", UrlKind::Single, true),
    ("redis+unix", UrlKind::Unix, false),
    ("redis+cluster", UrlKind::Cluster, false),
    ("rediss+cluster", UrlKind::Cluster, true),
    ("redis+sentinel", UrlKind::Sentinel, false),
    ("rediss+sentinel", UrlKind::Sentinel, true),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UrlKind {
    Single,
    Unix,
    Cluster,
    Sentinel,
}

impl UrlKind {
    /// The query keys that this kind accepts, besides those of TLS.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Single => &["prefix", "connect_ms", "response_ms"],
            Self::Unix => &["prefix", "connect_ms", "response_ms", "db"],
            Self::Cluster => &["prefix", "connect_ms", "response_ms", "node"],
            Self::Sentinel => &["prefix", "connect_ms", "response_ms", "node", "master"],
        }
    }
}

/// The query keys that a TLS scheme accepts in addition.
const TLS_KEYS: [&str; 3] = ["ca", "cert", "key"];

/// The schemes of a Redis URL.
pub(crate) fn schemes() -> impl Iterator<Item = &'static str> {
    SCHEMES.iter().map(|(scheme, _, _)| *scheme)
}

impl RedisOptions {
    /// Parses a URL; see the [front page](crate#urls) for the syntax.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`], which never repeats the URL, because it may contain a password.
    pub fn from_url(url: &Url) -> Result<Self, RedisOpenError> {
        options(url)
    }
}

impl FromStr for RedisOptions {
    type Err = RedisOpenError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(url).map_err(|error| RedisOpenError::InvalidUrl { error })?;
        Self::from_url(&url)
    }
}

fn options(url: &Url) -> Result<RedisOptions, RedisOpenError> {
    let invalid = |reason: String| RedisOpenError::setting(reason);
    let (kind, has_tls) = SCHEMES
        .iter()
        .find_map(|(scheme, kind, tls)| (*scheme == url.scheme()).then_some((*kind, *tls)))
        .ok_or_else(|| {
            invalid(format!("unknown redis scheme {}: (expected one of: {})", url.scheme(), list(schemes())))
        })?;
    if has_tls && cfg!(not(feature = "tls")) {
        return Err(invalid(format!("{}: needs the feature tls of quota-redis", url.scheme())));
    }
    if url.fragment().is_some() {
        return Err(RedisOpenError::setting("a redis URL has no #fragment; write # in a password as %23"));
    }
    let query = Query::read(url, kind, has_tls)?;
    let mut options = RedisOptions::on(servers(url, kind, &query)?);
    options.tls = has_tls.then(|| query.tls()).transpose()?;
    let settings = &mut options.settings;
    settings.database = database(url, kind, &query)?;
    if !url.username().is_empty() {
        settings.login.user = Some(decoded(url.username(), "the user")?);
    }
    if let Some(password) = url.password() {
        settings.login.password = Some(Secret::new(decoded(password, "the password")?));
    }
    if let Some(prefix) = query.one("prefix")? {
        settings.prefix = prefix.into();
    }
    for (key, duration) in
        [("connect_ms", &mut settings.connect_timeout), ("response_ms", &mut settings.response_timeout)]
    {
        if let Some(text) = query.one(key)? {
            let ms =
                text.parse().map_err(|_| invalid(format!("?{key}= must be a number of milliseconds")))?;
            *duration = Duration::from_millis(ms);
        }
    }
    Ok(options)
}

fn servers(url: &Url, kind: UrlKind, query: &Query) -> Result<Servers, RedisOpenError> {
    let invalid = |reason: &'static str| RedisOpenError::setting(reason);
    if kind == UrlKind::Unix {
        let path = PathBuf::from(decoded(url.path(), "the path of the socket")?);
        let is_valid = url.host_str().unwrap_or_default().is_empty() && path.is_absolute();
        let invalid_socket = || invalid("a unix socket URL must be redis+unix:///path/to/socket");
        return is_valid.then_some(Servers::Single(Address::Unix(path))).ok_or_else(invalid_socket);
    }
    let default_port = if kind == UrlKind::Sentinel { SENTINEL_PORT } else { REDIS_PORT };
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| invalid("the URL has no host; write redis://HOST:6379"))?;
    let host = decoded(host, "the host")?;
    let first = Address::tcp(&host, url.port().unwrap_or(default_port));
    let mut all = vec![first];
    if let UrlKind::Cluster | UrlKind::Sentinel = kind
        && query.all("node").next().is_some()
    {
        all.extend(addresses(query.all("node"), default_port)?);
    }
    Ok(match kind {
        UrlKind::Sentinel => {
            let master = query.one("master")?.filter(|master| !master.is_empty());
            let master =
                master.ok_or_else(|| invalid("a sentinel URL needs ?master=, the name of the master"))?;
            Servers::Sentinel { sentinels: all, master: master.into() }
        }
        UrlKind::Cluster => Servers::Cluster(all),
        UrlKind::Single | UrlKind::Unix => Servers::Single(all.swap_remove(0)),
    })
}

fn database(url: &Url, kind: UrlKind, query: &Query) -> Result<u32, RedisOpenError> {
    let text = match kind {
        UrlKind::Unix => query.one("db")?.unwrap_or_default(),
        _ => url.path().trim_start_matches('/'),
    };
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        RedisOpenError::setting(
            "the database must be a number: redis://host:6379/0, or ?db=0 for a unix socket",
        )
    })
}

fn decoded(text: &str, what: &str) -> Result<String, RedisOpenError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(RedisOpenError::setting(format!("{what} in the URL is not UTF-8"))),
    }
}

/// The query of a URL, in which every key must be used.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(url: &Url, kind: UrlKind, has_tls: bool) -> Result<Self, RedisOpenError> {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let allowed = || kind.keys().iter().chain(TLS_KEYS.iter().filter(|_| has_tls)).copied();
        match pairs.iter().all(|(key, _)| allowed().any(|allowed| allowed == key)) {
            true => Ok(Self(pairs)),
            false => Err(RedisOpenError::setting(format!(
                "unknown query key in a {}: URL (expected one of: {})",
                url.scheme(),
                list(allowed())
            ))),
        }
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(found, _)| found == key).map(|(_, value)| &**value)
    }

    fn one(&self, key: &str) -> Result<Option<&str>, RedisOpenError> {
        let mut all = self.all(key);
        let first = all.next();
        match all.next() {
            None => Ok(first),
            Some(_) => Err(RedisOpenError::setting(format!("?{key}= is set twice; keep one"))),
        }
    }

    fn tls(&self) -> Result<Tls, RedisOpenError> {
        let file = |key| Ok(self.one(key)?.map(|path| Pem::File(path.into())));
        let client = match (file("cert")?, file("key")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(RedisOpenError::setting("set both ?cert= and ?key=, or neither")),
        };
        Ok(Tls { authority: file("ca")?, client })
    }
}

fn list<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    keys.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
