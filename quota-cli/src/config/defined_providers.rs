//! The providers that the configuration defines: new ones, and built-in ones with another request or parser.

use quota::AccountId;
use quota::http::shape::UsageShape;
use quota::http::{PROVIDERS, Provider, ProviderDefinition, find_provider};

use super::error::{ConfigError, nearest};
use super::file::ProviderTable;
use super::spanned::Spanned;
use crate::sanitize::sanitize;
use crate::token_like::{looks_like_a_token, masked};

/// The providers that the configuration defines.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DefinedProviders(Vec<&'static Provider>);

impl DefinedProviders {
    /// All providers: first the built-in ones with their overrides, then the new ones.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'static Provider> {
        let known = PROVIDERS.iter().map(|known| self.defined(known.id_str()).unwrap_or(known));
        let new = self.0.iter().copied().filter(|provider| find_provider(provider.id_str()).is_none());
        known.chain(new)
    }

    /// The provider with this id or other name.
    pub(crate) fn find(&self, name: &str) -> Option<&'static Provider> {
        match find_provider(name) {
            Some(known) => self.defined(known.id_str()).or(Some(known)),
            None => self.defined(name),
        }
    }

    /// The provider with this id or other name.
    ///
    /// # Errors
    ///
    /// What to write instead, if there is no such provider.
    pub(crate) fn named(&self, name: &str) -> Result<&'static Provider, String> {
        self.find(name).ok_or_else(|| unknown_provider(name, ""))
    }

    fn defined(&self, id: &str) -> Option<&'static Provider> {
        self.0.iter().copied().find(|provider| provider.id_str() == id)
    }

    /// The account's id with the provider's own name (`codex/main` is `openai/main`), and the provider.
    ///
    /// # Errors
    ///
    /// What to write instead, if the provider is not supported.
    pub(crate) fn canonical(&self, id: &AccountId) -> Result<(AccountId, &'static Provider), String> {
        match self.defined(id.provider().as_str()) {
            Some(provider) => Ok((id.clone(), provider)),
            None => {
                let (id, known) = canonical(id)?;
                Ok((id, self.find(known.id_str()).unwrap_or(known)))
            }
        }
    }

    /// Adds the provider that this table describes, if it describes one.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the key to correct.
    pub(super) fn add(&mut self, id: &Spanned<String>, table: &mut ProviderTable) -> Result<(), ConfigError> {
        let Some(definition) = definition(id, table)? else { return Ok(()) };
        let provider = definition.provider().map_err(|invalid| {
            ConfigError::at(id.span(), format!("{}: {invalid}", sanitize(masked(id.get_ref()))))
        })?;
        self.0.push(provider);
        Ok(())
    }
}

/// The definition in this table; `None` if the table has only settings.
fn definition(
    id: &Spanned<String>,
    table: &mut ProviderTable,
) -> Result<Option<ProviderDefinition>, ConfigError> {
    let mut definition = ProviderDefinition::new(id.get_ref());
    if let Some(url) = table.url.take() {
        if looks_like_a_token(url.get_ref()) {
            return Err(ConfigError::at(
                url.span(),
                "do not put a token into a URL, because a URL is not secret",
            ));
        }
        let parsed = url.get_ref().parse();
        let parsed = parsed.map_err(|error| ConfigError::at(url.span(), format!("not a URL ({error})")))?;
        definition.url = Some(parsed);
    }
    if let Some(body) = table.body.take() {
        if looks_like_a_token(&body.get_ref().to_string()) {
            let why = "do not put a token here; set token_env, token_file or token_command of the account";
            return Err(ConfigError::at(body.span(), why));
        }
        definition.body = Some(body.into_inner());
    }
    for text in [&table.token_header, &table.token_prefix].into_iter().flatten() {
        if looks_like_a_token(text.get_ref()) {
            let why = "do not put a token here; set token_env, token_file or token_command of the account";
            return Err(ConfigError::at(text.span(), why));
        }
    }
    definition.name = table.name.take();
    definition.method = table.method;
    definition.token_header = table.token_header.take().map(Spanned::into_inner);
    definition.token_prefix = table.token_prefix.take().map(Spanned::into_inner);
    definition.allow_http = table.allow_http;
    let mut shape = UsageShape::default();
    shape.windows = std::mem::take(&mut table.windows);
    shape.credits = table.credits.take();
    shape.plan = table.plan.take();
    shape.owner = table.owner.take();
    shape.error = table.error.take();
    definition.shape = shape;
    Ok((definition != ProviderDefinition::new(id.get_ref())).then_some(definition))
}

/// The account's id with the provider's own name (`codex/main` is `openai/main`), and the built-in provider.
///
/// # Errors
///
/// What to write instead, if the provider is not supported.
pub(super) fn canonical(id: &AccountId) -> Result<(AccountId, &'static Provider), String> {
    let Some(provider) = find_provider(id.provider().as_str()) else {
        return Err(unknown_provider(id.provider().as_str(), &format!("/{}", id.name())));
    };
    let id = AccountId::new(provider.id(), id.name()).map_err(|error| error.to_string())?;
    Ok((id, provider))
}

/// The id with the provider's own name, or unchanged if the provider is unknown.
pub(super) fn own_name(id: &AccountId) -> AccountId {
    canonical(id).map_or_else(|_| id.clone(), |(id, _)| id)
}

/// What to write instead of an unknown provider. `after` follows its name in the suggestion.
pub(super) fn unknown_provider(name: &str, after: &str) -> String {
    let names = PROVIDERS.iter().map(|provider| provider.id_str());
    let others = PROVIDERS.iter().flat_map(|provider| provider.other_names().iter().copied());
    let hint = match nearest(name, names.chain(others)) {
        Some(nearest) => format!("did you mean {nearest}{after}?"),
        None => "`quota providers` lists the known ones".to_owned(),
    };
    format!("unknown provider {}; {hint}", sanitize(masked(name)))
}
