//! Whether a configuration makes sense, beyond what its types say.
//! The first thing that does not is told; see `flaw` for how.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quota::accounts::{Fixed, Secret};
use quota::anthropic::{ANTHROPIC, Anthropic, AnthropicBuilder};
use quota::{AccountId, ProviderId};
use toml::Spanned;
use url::Url;

use super::file::{Account, File, Provider};
use super::flaw::{Flaw, nearest, position};
use super::hooks;
use super::{AccountSettings, Config, LoginSource, ProviderSettings};

/// The providers that can be asked.
static PROVIDERS: [ProviderId; 1] = [ANTHROPIC];

pub(super) fn config(file: File, text: &str, directory: &Path) -> Result<Config, Flaw> {
    let policy = match file.policy {
        None => quota::Policy::default(),
        Some(policy) => {
            policy.get_ref().validate().map_err(|error| Flaw::at(policy.span(), error.to_string()))?;
            policy.into_inner()
        }
    };
    let anthropic = provider(file.providers.anthropic)?;
    if file.accounts.is_empty() {
        return Err(Flaw::whole(
            "no account is named; add [[accounts]] with id = \"anthropic/main\", or remove the file to use Claude Code's login",
        ));
    }
    let mut accounts = Vec::new();
    let mut seen = HashMap::new();
    let mut checked = None;
    for written in file.accounts {
        let span = written.get_ref().id.span();
        let settings = account(written.into_inner(), directory, &mut checked)?;
        if let Some(first) = seen.insert(settings.id.clone(), span.clone()) {
            let (line, _) = position(text, &first);
            let id = &settings.id;
            return Err(Flaw::at(
                span,
                format!("{id} is named twice, first in line {line}; give one of them another name"),
            ));
        }
        accounts.push(settings);
    }
    let hooks = file.hooks.into_iter().map(|written| hooks::hook(written, &accounts, directory));
    let hooks = hooks.collect::<Result<_, _>>()?;
    Ok(Config { policy, anthropic, accounts, hooks })
}

fn provider(provider: Provider) -> Result<ProviderSettings, Flaw> {
    let base_url = provider.base_url.map(base_url).transpose()?;
    let user_agent = match provider.user_agent {
        None => None,
        Some(text) => {
            Some(buildable(text.span(), trial().user_agent(text.get_ref())).map(|()| text.into_inner())?)
        }
    };
    Ok(ProviderSettings { base_url, user_agent })
}

fn account(
    account: Account,
    directory: &Path,
    checked: &mut Option<(String, Url)>,
) -> Result<AccountSettings, Flaw> {
    known_provider(&account.id)?;
    let found = |path: PathBuf| if path.starts_with("~") { path } else { directory.join(path) };
    let sources = [
        account
            .claude_config_dir
            .map(|dir| (dir.span(), LoginSource::ClaudeConfigDir(found(dir.into_inner())))),
        account.token_env.map(|name| (name.span(), LoginSource::TokenEnv(name.into_inner()))),
        account.token_file.map(|path| (path.span(), LoginSource::TokenFile(found(path.into_inner())))),
    ];
    let mut sources: Vec<_> = sources.into_iter().flatten().collect();
    sources.sort_by_key(|(span, _)| span.start);
    if let [_, (second, _), ..] = &*sources {
        return Err(Flaw::at(
            second.clone(),
            "a second place for the same login; keep one of claude_config_dir, token_env and token_file",
        ));
    }
    let login = sources.pop().map_or(LoginSource::ClaudeCode, |(_, login)| login);
    let base_url = account.base_url.map(|text| base_url_once(text, checked)).transpose()?;
    Ok(AccountSettings { id: account.id.into_inner(), login, base_url })
}

fn known_provider(id: &Spanned<AccountId>) -> Result<(), Flaw> {
    let asked = id.get_ref().provider();
    if PROVIDERS.contains(asked) {
        return Ok(());
    }
    let names = PROVIDERS.iter().map(ProviderId::as_str);
    let advice = match nearest(asked.as_str(), names.clone()) {
        Some(nearest) => format!("did you mean {nearest}/{}?", id.get_ref().name()),
        None => format!("there is: {}", names.collect::<Vec<_>>().join(", ")),
    };
    Err(Flaw::at(id.span(), format!("no provider {asked} is known here; {advice}")))
}

fn base_url(text: Spanned<String>) -> Result<Url, Flaw> {
    // The text is not repeated: there may be a password in it.
    let url = Url::parse(text.get_ref()).map_err(|error| {
        Flaw::at(text.span(), format!("not a URL ({error}); write it like \"https://proxy.example.com\""))
    })?;
    buildable(text.span(), trial().base_url(url.clone()))?;
    Ok(url)
}

/// The same where many accounts have one address, one after the other: it is checked for the first of them.
fn base_url_once(text: Spanned<String>, checked: &mut Option<(String, Url)>) -> Result<Url, Flaw> {
    if let Some((_, url)) = checked.as_ref().filter(|(known, _)| known == text.get_ref()) {
        return Ok(url.clone());
    }
    let known = text.get_ref().clone();
    let (_, url) = checked.insert((known, base_url(text)?));
    Ok(url.clone())
}

/// A fetcher that is never used: whether one can be built is the fetcher's own rule, and said in its own words.
fn trial() -> AnthropicBuilder {
    Anthropic::builder(Arc::new(Fixed::new(Secret::new(""))))
}

fn buildable(span: Range<usize>, builder: AnthropicBuilder) -> Result<(), Flaw> {
    builder.build().map(drop).map_err(|error| Flaw::at(span, error.to_string()))
}
