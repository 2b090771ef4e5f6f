//! The description of a provider, in one value. `fetcher` calls the provider, and `registry` lists all providers.

use std::fmt;

use jiff::Timestamp;
use quota_core::policy::Budget;
use quota_core::provider::ProgramLogin;
use quota_core::{Credential, FetchError, Policy, ProviderId};
use url::Url;

use crate::command_environment::CommandEnvironment;
use crate::interpret::ProviderRules;
use crate::oauth::{self, OAuthRefresherBuilder, ProviderConfig};
use crate::parsed::{ParseError, Parsed};
use crate::request::{DescribedRequest, UsageRequest};
use crate::saved::{self, SavedDocument};
use crate::shape::UsageShape;
use crate::usage_endpoint::UsageEndpoint;

/// Describes a provider: how to request and parse its usage, where its logins are, and the defaults.
///
/// Each provider's module has one such value, named `PROVIDER`. `docs/add-a-provider.md` explains how to write one.
///
/// ```
/// use jiff::Timestamp;
/// use quota_core::{Credential, Percent, WindowId, WindowReading};
/// use quota_http::lenient::{Field, number};
/// use quota_http::{Fetcher, ParseError, Parsed, Provider, ReportBuilder, UsageRequest, json_object};
///
/// static PROVIDER: Provider = Provider::new("example", "Example", request, parse)
///     .base_url("https://api.example.com")
///     .token_variables(&["EXAMPLE_API_KEY"]);
///
/// fn request(credential: &Credential) -> UsageRequest {
///     UsageRequest::get("v1/usage").bearer(&credential.secret)
/// }
///
/// fn parse(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
///     let root = json_object(body)?;
///     let mut report = ReportBuilder::default();
///     let week = WindowId::seven_day();
///     match number(root.get("week_percent")).and_then(Percent::from_percent) {
///         Field::Present(used) => report.add(WindowReading::new(week, used), "week_percent"),
///         Field::Unreadable => report.mark_unreadable(week, "week_percent", "not a percentage"),
///         Field::Absent => {}
///     }
///     report.build(Field::Absent)
/// }
///
/// let parsed = PROVIDER.parse(br#"{ "week_percent": "40" }"#, Timestamp::UNIX_EPOCH)?;
/// assert_eq!(parsed.usage.windows.len(), 1);
/// let fetcher = Fetcher::new(&PROVIDER);
/// # Ok::<(), ParseError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Provider {
    id: &'static str,
    pub(crate) name: &'static str,
    aliases: &'static [&'static str],
    base_url: Option<&'static str>,
    private_endpoint: bool,
    usage_endpoint: Option<&'static UsageEndpoint>,
    request: Request,
    pub(crate) second: Option<SecondRequest>,
    parse: Parser,
    is_defined: bool,
    parse_saved: Option<ParseSaved>,
    pub(crate) owner_header: Option<&'static str>,
    policy: fn(Policy) -> Policy,
    login: Option<OwnLogin>,
    token_variables: &'static [&'static str],
    command_environment: Option<CommandEnvironment>,
    pub(crate) response_rules: &'static ProviderRules,
    token_exchange: Option<ProviderConfig>,
}

/// How the request is built.
#[derive(Clone, Copy)]
enum Request {
    Code(fn(&Credential) -> UsageRequest),
    Described(&'static DescribedRequest),
}

/// How a response is parsed.
#[derive(Clone, Copy)]
enum Parser {
    Code(ParseBody),
    Shape(&'static UsageShape),
}

/// Parses the body of a successful response that arrived at a time. It does no I/O and reads no clock.
pub type ParseBody = fn(&[u8], Timestamp) -> Result<Parsed, ParseError>;
/// Builds the second request from the body of the first response; `None` if no second one is needed.
pub type SecondRequest = fn(&Credential, &[u8]) -> Result<Option<UsageRequest>, FetchError>;
/// Parses any saved document of the provider.
pub type ParseSaved = fn(&[u8], Timestamp) -> Result<SavedDocument, ParseError>;

/// The default policy of a provider with a second request. A call sends two requests, so the budget is half as large.
pub(crate) fn two_requests(policy: Policy) -> Policy {
    let Budget { per_hour, interactive_reserve, .. } = policy.budget;
    policy.budget(Budget::new((per_hour / 2).max(1), interactive_reserve / 2))
}

/// Where the login of a provider's own program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnLogin {
    /// The login of Claude Code: its files, the keychain of macOS, its environment variable.
    ClaudeCode,
    /// A file of the program.
    File(ProgramLogin),
}

impl Provider {
    /// Creates a provider with its id, its display name, its request and its parser.
    ///
    /// The id is part of every account's name (`openai/main`) and of the stored records, so it never changes.
    ///
    /// # Panics
    ///
    /// If the id is invalid; see [`ProviderId::from_static`]. In a `static` this is a compile error.
    #[must_use]
    pub const fn new(
        id: &'static str,
        name: &'static str,
        request: fn(&Credential) -> UsageRequest,
        parse: ParseBody,
    ) -> Self {
        Self::of(id, name, Request::Code(request), Parser::Code(parse))
    }

    const fn of(id: &'static str, name: &'static str, request: Request, parse: Parser) -> Self {
        // Checks the id. The value is rebuilt on use, because a `ProviderId` is not `Copy`.
        std::mem::forget(ProviderId::from_static(id));
        Self {
            id,
            name,
            aliases: &[],
            base_url: None,
            private_endpoint: false,
            usage_endpoint: None,
            request,
            second: None,
            parse,
            is_defined: false,
            parse_saved: None,
            owner_header: None,
            policy: std::convert::identity,
            login: None,
            token_variables: &[],
            command_environment: None,
            response_rules: &ProviderRules::GENERIC,
            token_exchange: None,
        }
    }

    /// Sets other names that users may type for the id, such as `codex` for `openai`.
    #[must_use]
    pub const fn aliases(mut self, names: &'static [&'static str]) -> Self {
        self.aliases = names;
        self
    }

    /// Sets the default base URL. Without one, each account must set its own, as for a proxy that the user runs.
    #[must_use]
    pub const fn base_url(mut self, url: &'static str) -> Self {
        self.base_url = Some(url);
        self
    }

    /// States that the provider does not document the endpoint, so that it may change or disappear without notice.
    #[must_use]
    pub const fn private_endpoint(mut self) -> Self {
        self.private_endpoint = true;
        self
    }

    /// Sets how the usage endpoint responds, so that a gateway can respond in its place.
    #[must_use]
    pub const fn usage_endpoint(mut self, endpoint: &'static UsageEndpoint) -> Self {
        self.usage_endpoint = Some(endpoint);
        self
    }

    /// Adds a second request, which may depend on the body of the first response. The parser gets each body separately, and the
    /// two reports are joined. Both requests count as one call, so halve the budget in [`policy`](Self::policy).
    #[must_use]
    pub const fn second_request(mut self, request: SecondRequest) -> Self {
        self.second = Some(request);
        self
    }

    /// Sets the parser of saved documents, for a provider with documents other than usage responses.
    #[must_use]
    pub const fn saved_documents(mut self, parse: ParseSaved) -> Self {
        self.parse_saved = Some(parse);
        self
    }

    /// Sets the response header that names the owner of the account. If the body names the owner, the parser sets it.
    #[must_use]
    pub const fn owner_header(mut self, name: &'static str) -> Self {
        self.owner_header = Some(name);
        self
    }

    /// Changes the default policy: `max_age`, `budget`, `cooldown` and `min_call_interval`. The user's settings take precedence.
    #[must_use]
    pub const fn default_policy(mut self, change: fn(Policy) -> Policy) -> Self {
        self.policy = change;
        self
    }

    /// Sets where the login of the provider's own program is. It is the default login of an account.
    #[must_use]
    pub const fn login(mut self, login: OwnLogin) -> Self {
        self.login = Some(login);
        self
    }

    /// Sets the environment variables in which users usually keep a token, the preferred one first.
    #[must_use]
    pub const fn token_variables(mut self, names: &'static [&'static str]) -> Self {
        self.token_variables = names;
        self
    }

    /// Sets how `quota run` passes an account to the provider's own program.
    #[must_use]
    pub const fn command_environment(mut self, environment: CommandEnvironment) -> Self {
        self.command_environment = Some(environment);
        self
    }

    /// Sets how the provider's ordinary responses differ from those of other providers.
    #[must_use]
    pub(crate) const fn response_rules(mut self, rules: &'static ProviderRules) -> Self {
        self.response_rules = rules;
        self
    }

    /// Sets how the provider exchanges refresh tokens. This includes no client id, because a client id belongs to one
    /// program.
    #[must_use]
    pub(crate) const fn token_exchange(mut self, exchange: ProviderConfig) -> Self {
        self.token_exchange = Some(exchange);
        self
    }
}

impl Provider {
    /// A provider that a definition describes.
    pub(crate) const fn described(
        id: &'static str,
        request: &'static DescribedRequest,
        shape: &'static UsageShape,
    ) -> Self {
        Self::of(id, id, Request::Described(request), Parser::Shape(shape))
    }

    /// Replaces the given parts of this provider.
    pub(crate) fn redefined(
        mut self,
        name: Option<&'static str>,
        request: Option<&'static DescribedRequest>,
        shape: Option<&'static UsageShape>,
    ) -> Self {
        self.is_defined = true;
        self.name = name.unwrap_or(self.name);
        if let Some(request) = request {
            self.base_url = Some(&request.origin);
            self.request = Request::Described(request);
            self.second = None;
        }
        if let Some(shape) = shape {
            self.parse = Parser::Shape(shape);
            self.parse_saved = None;
        }
        self
    }

    /// Whether a [`ProviderDefinition`](crate::ProviderDefinition) describes this provider or a part of it.
    #[must_use]
    pub const fn is_defined(&self) -> bool {
        self.is_defined
    }

    /// Whether a token may be sent unencrypted to another machine.
    pub(crate) fn allows_http(&self) -> bool {
        matches!(self.request, Request::Described(request) if request.allow_http)
    }

    /// The request for the usage.
    pub(crate) fn usage_request(&self, credential: &Credential) -> UsageRequest {
        match self.request {
            Request::Code(request) => request(credential),
            Request::Described(request) => request.with(&credential.secret),
        }
    }

    /// The id, which is part of the names of its accounts.
    #[must_use]
    pub const fn id(&self) -> ProviderId {
        ProviderId::from_static(self.id)
    }

    /// The id as text.
    #[must_use]
    pub const fn id_str(&self) -> &'static str {
        self.id
    }

    /// The display name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether this is its id, or another name that users may type.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        self.id == name || self.aliases.contains(&name)
    }

    /// The other names that users may type.
    #[must_use]
    pub const fn other_names(&self) -> &'static [&'static str] {
        self.aliases
    }

    /// The default base URL; `None` if each account has its own.
    ///
    /// # Panics
    ///
    /// If the description contains an invalid URL. A test of the registry checks this.
    #[must_use]
    pub fn default_base_url(&self) -> Option<Url> {
        self.base_url.map(|url| Url::parse(url).expect("a provider states a valid URL"))
    }

    /// Whether the provider does not document the endpoint.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        self.private_endpoint
    }

    /// How the usage endpoint responds; `None` if its responses cannot be written from a record.
    #[must_use]
    pub const fn endpoint(&self) -> Option<&'static UsageEndpoint> {
        self.usage_endpoint
    }

    /// The provider's default policy, starting from this one.
    #[must_use]
    pub fn policy(&self, base: Policy) -> Policy {
        (self.policy)(base)
    }

    /// Where the login of the provider's own program is, if it has one.
    #[must_use]
    pub const fn own_login(&self) -> Option<&OwnLogin> {
        self.login.as_ref()
    }

    /// The environment variables in which users usually keep a token.
    #[must_use]
    pub const fn variables(&self) -> &'static [&'static str] {
        self.token_variables
    }

    /// How to pass an account to the provider's own program, if it has one.
    #[must_use]
    pub const fn environment(&self) -> Option<&CommandEnvironment> {
        self.command_environment.as_ref()
    }

    /// Starts building a refresher for logins that were created with this client id; `None` if the provider has no token exchange.
    #[must_use]
    pub fn refresher(&self, client_id: impl Into<String>) -> Option<OAuthRefresherBuilder> {
        self.token_exchange.map(|exchange| OAuthRefresherBuilder::new(exchange, self.id(), client_id.into()))
    }

    /// Starts building a refresher for logins that were created with this client id at this token endpoint.
    ///
    /// A provider without its own token exchange uses requests and responses as defined by RFC 6749.
    pub fn refresher_at(&self, token_url: Url, client_id: impl Into<String>) -> OAuthRefresherBuilder {
        let exchange = self.token_exchange.unwrap_or(oauth::STANDARD);
        OAuthRefresherBuilder::new(exchange, self.id(), client_id.into()).token_url(token_url)
    }

    /// Parses the body of a usage response that arrived at `now`.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the body has no usage.
    pub fn parse(&self, body: &[u8], now: Timestamp) -> Result<Parsed, ParseError> {
        match self.parse {
            Parser::Code(parse) => parse(body, now),
            Parser::Shape(shape) => shape.parse(body, now),
        }
    }

    /// Parses a document that a user saved before `now`: a usage response, or another document of the provider.
    ///
    /// Its resets may be long past. If the document does not state its time, `observed_at` is missing or `now`. Check
    /// such a report with [`UsageReport::reject_implausible_saved`](quota_core::UsageReport::reject_implausible_saved).
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the document has no usage; [`ParseError::Login`] if it is a login.
    pub fn parse_saved(&self, document: &[u8], now: Timestamp) -> Result<SavedDocument, ParseError> {
        // Some editors write a byte order mark.
        let document = document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document);
        if saved::is_login(document) {
            return Err(ParseError::Login);
        }
        match self.parse_saved {
            Some(parse) => parse(document, now),
            None => Ok(SavedDocument::new("usage", self.parse(document, now)?)),
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Two providers are the same if their ids are.
impl PartialEq for Provider {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Provider {}
