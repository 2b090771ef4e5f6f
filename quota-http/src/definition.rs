//! Providers that a configuration defines without code, by the URL of their usage endpoint and the shape of its
//! response. A definition with the id of a built-in provider overrides parts of that provider.

use std::sync::{Mutex, PoisonError};

use quota_core::ProviderId;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, TRANSFER_ENCODING,
    USER_AGENT,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use crate::endpoint::check_base;
use crate::lenient::is_short_text;
use crate::provider::Provider;
use crate::registry::find_provider;
use crate::request::DescribedRequest;
use crate::shape::{InvalidShape, UsageShape};

/// A provider that is described by data.
///
/// If the id is that of a built-in provider, or another name of it, the definition overrides that provider: `url`
/// replaces its requests, and `shape` replaces its parser. Everything else stays the same. Use this if a provider has
/// changed its response.
///
/// ```
/// use quota_http::{Fetcher, ProviderDefinition};
///
/// let mut definition = ProviderDefinition::new("example");
/// definition.url = Some("https://api.example.com/v1/usage?detail=1".parse()?);
/// let mut window = quota_http::shape::WindowShape::default();
/// window.id = Some("seven_day".parse()?);
/// window.used = Some("$.week.percent".parse()?);
/// definition.shape.windows.push(window);
///
/// let provider = definition.provider()?;
/// let fetcher = Fetcher::new(provider);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProviderDefinition {
    /// The id, which is part of every account's name.
    pub id: String,
    /// The display name; the id by default.
    pub name: Option<String>,
    /// The URL of the usage endpoint, with its query. It must not contain a secret.
    pub url: Option<Url>,
    /// The method of the request.
    pub method: Method,
    /// The JSON body of a POST request. It must not contain a secret.
    pub body: Option<Value>,
    /// The header with the token (default: `authorization`).
    pub token_header: Option<String>,
    /// The text before the token in that header (default: `Bearer ` for `authorization`, otherwise nothing).
    pub token_prefix: Option<String>,
    /// Whether the token may be sent unencrypted to another machine.
    pub allow_http: bool,
    /// Where the usage is in the response.
    pub shape: UsageShape,
}

/// The method of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum Method {
    /// GET, without a body.
    #[default]
    #[serde(rename = "GET")]
    Get,
    /// POST with a JSON body.
    #[serde(rename = "POST")]
    Post,
}

impl ProviderDefinition {
    /// Starts a definition with this id.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: None,
            url: None,
            method: Method::default(),
            body: None,
            token_header: None,
            token_prefix: None,
            allow_http: false,
            shape: UsageShape::default(),
        }
    }

    /// The provider with this definition.
    ///
    /// A provider lives as long as the process, so each distinct definition stays in memory. Equal definitions return
    /// the same provider.
    ///
    /// # Errors
    ///
    /// [`InvalidShape`] names the key to correct, and repeats no value.
    pub fn provider(&self) -> Result<&'static Provider, InvalidShape> {
        self.validate()?;
        let mut defined = DEFINED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, provider)) = defined.iter().find(|(known, _)| *known == self) {
            return Ok(provider);
        }
        if defined.len() >= MAX_DEFINITIONS {
            return Err(InvalidShape::new("providers", "changed too often; restart this program"));
        }
        let definition: &'static Self = Box::leak(Box::new(self.clone()));
        let provider: &'static Provider = Box::leak(Box::new(definition.build()?));
        defined.push((definition, provider));
        Ok(provider)
    }

    fn validate(&self) -> Result<(), InvalidShape> {
        let known = find_provider(&self.id);
        if known.is_none() && ProviderId::new(&self.id).is_err() {
            let reason = "a provider's name has 1 to 32 lower-case letters, digits, '-', '_' or '.'";
            return Err(InvalidShape::new("id", reason));
        }
        if known.is_none() && self.url.is_none() {
            return Err(no_url());
        }
        // Without a shape, a built-in provider keeps its parser.
        if known.is_none() || self.shape != UsageShape::default() {
            self.shape.validate()?;
        }
        if self.name.as_ref().is_some_and(|name| !is_short_text(name)) {
            return Err(InvalidShape::new("name", "not a short text"));
        }
        let Some(url) = &self.url else {
            let is_set = self.body.is_some() || self.token_header.is_some() || self.token_prefix.is_some();
            return match is_set || self.method != Method::Get || self.allow_http {
                true => Err(InvalidShape::new("url", "set it together with the other keys of the request")),
                false => Ok(()),
            };
        };
        let mut base = url.clone();
        base.set_query(None);
        if check_base(&base, self.allow_http).is_err() {
            let reason = "use an https:// URL without user name, password and fragment; allow_http = true sends the token unencrypted";
            return Err(InvalidShape::new("url", reason));
        }
        if url.path().contains('%') || url.path().contains("//") {
            return Err(InvalidShape::new("url", "its path must have no % and no empty segment"));
        }
        if self.body.is_some() && self.method == Method::Get {
            return Err(InvalidShape::new("body", "set method = \"POST\""));
        }
        self.checked_token_header()?;
        let is_plain = |text: &String| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !self.token_prefix.as_ref().is_none_or(is_plain) {
            return Err(InvalidShape::new("token_prefix", "not the beginning of a header"));
        }
        Ok(())
    }

    /// Builds the provider of a valid definition.
    fn build(&'static self) -> Result<Provider, InvalidShape> {
        let request = match &self.url {
            Some(url) => Some(&*Box::leak(Box::new(self.request(url)?))),
            None => None,
        };
        let provider = match (find_provider(&self.id), request) {
            (Some(known), _) => *known,
            (None, Some(request)) => Provider::described(&self.id, request, &self.shape),
            (None, None) => return Err(no_url()),
        };
        let shape = (self.shape != UsageShape::default()).then_some(&self.shape);
        Ok(provider.redefined(self.name.as_deref(), request, shape))
    }

    fn request(&self, url: &Url) -> Result<DescribedRequest, InvalidShape> {
        let token_header = self.checked_token_header()?;
        let default_prefix = if token_header == AUTHORIZATION { "Bearer " } else { "" };
        Ok(DescribedRequest {
            origin: url.origin().ascii_serialization(),
            allow_http: self.allow_http,
            path: url.path().to_owned(),
            query: url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
            body: match self.method {
                Method::Get => None,
                Method::Post => Some(self.body.clone().unwrap_or_else(|| Value::Object(Map::new()))),
            },
            token_prefix: self.token_prefix.clone().unwrap_or_else(|| default_prefix.to_owned()),
            token_header,
        })
    }

    fn checked_token_header(&self) -> Result<HeaderName, InvalidShape> {
        let Some(name) = &self.token_header else { return Ok(AUTHORIZATION) };
        let name = HeaderName::from_bytes(name.as_bytes()).ok();
        name.filter(|name| !NOT_FOR_TOKENS.contains(name)).ok_or_else(|| {
            InvalidShape::new("token_header", "not a header for a token, such as authorization or x-api-key")
        })
    }
}

fn no_url() -> InvalidShape {
    let reason = "set it to the usage endpoint; `quota providers` lists the providers that need none";
    InvalidShape::new("url", reason)
}

/// The definitions of this process and their providers.
static DEFINED: Mutex<Vec<(&'static ProviderDefinition, &'static Provider)>> = Mutex::new(Vec::new());

/// Bounds the memory of a process that loads its configuration again and again.
const MAX_DEFINITIONS: usize = 256;

/// Headers that must not contain the token.
const NOT_FOR_TOKENS: [HeaderName; 7] =
    [ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT];

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::fetcher::Fetcher;

    fn definition(id: &str, url: Option<&str>) -> ProviderDefinition {
        let mut definition = ProviderDefinition::new(id);
        definition.url = url.map(|url| url.parse().unwrap());
        let window = serde_json::json!({ "id": "seven_day", "used": "$.week" });
        definition.shape.windows.push(serde_json::from_value(window).unwrap());
        definition
    }

    fn key_of(definition: &ProviderDefinition) -> String {
        definition.provider().unwrap_err().key
    }

    #[test]
    fn an_equal_definition_is_the_same_provider() {
        let of = |url| definition("made-up", Some(url)).provider().unwrap();

        assert!(std::ptr::eq(of("https://example.com/a"), of("https://example.com/a")));
        assert!(!std::ptr::eq(of("https://example.com/a"), of("https://example.com/b")));
    }

    #[test]
    fn a_known_provider_keeps_everything_but_its_parser() {
        let known = find_provider("openai").unwrap();
        let repaired = definition("codex", None).provider().unwrap();

        assert_eq!((repaired.id(), repaired.own_login()), (known.id(), known.own_login()));
        let parsed = repaired.parse(br#"{ "week": 40 }"#, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(parsed.usage.windows.len(), 1);
        assert!(Fetcher::builder(repaired).build().is_ok());
    }

    #[test]
    fn the_request_is_that_of_the_url() {
        let mut definition = definition("made-up", Some("https://example.com:8443/v1/usage/?a=1&b=x%20y"));
        definition.token_header = Some("X-Api-Key".to_owned());
        definition.method = Method::Post;
        let provider = definition.provider().unwrap();
        let request =
            provider.usage_request(&quota_core::Credential::new(quota_core::Secret::new("made-up")));

        assert_eq!(provider.default_base_url().unwrap().as_str(), "https://example.com:8443/");
        assert_eq!(request.path, "/v1/usage/");
        assert_eq!(request.query, [("a", "1".into()), ("b", "x y".into())]);
        assert_eq!(request.headers["x-api-key"], "made-up");
        assert!(request.body.is_some() && !request.headers.contains_key(AUTHORIZATION));
    }

    #[test]
    fn an_unusable_definition_names_its_key() {
        let with = |change: fn(&mut ProviderDefinition)| {
            let mut definition = definition("made-up", Some("https://example.com/usage"));
            change(&mut definition);
            key_of(&definition)
        };

        assert_eq!(with(|one| one.url = None), "url");
        assert_eq!(with(|one| one.id = "Made Up".to_owned()), "id");
        assert_eq!(with(|one| one.shape = UsageShape::default()), "windows");
        assert_eq!(with(|one| one.token_header = Some("content-length".to_owned())), "token_header");
        assert_eq!(with(|one| one.token_prefix = Some("a\nb".to_owned())), "token_prefix");
        assert_eq!(with(|one| one.body = Some(Value::Null)), "body");
        assert_eq!(with(|one| one.shape.windows[0].id = None), "windows[0].id");
    }

    #[test]
    fn a_token_is_sent_over_tls_unless_the_user_allows_http() {
        for (url, is_allowed) in [
            ("http://127.0.0.1:8080/usage", true),
            ("http://example.com/usage", false),
            ("https://me:n33dle@example.com/usage", false),
            ("ftp://example.com/usage", false),
        ] {
            let error = definition("made-up", Some(url)).provider().err();
            assert_eq!(error.is_none(), is_allowed, "{url}");
            assert!(!format!("{error:?}").contains("n33dle"));
        }
        let mut allowed = definition("made-up", Some("http://example.com/usage"));
        allowed.allow_http = true;
        assert!(Fetcher::builder(allowed.provider().unwrap()).build().is_ok());
    }
}
