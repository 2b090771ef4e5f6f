//! `quota providers`: lists built-in and configured providers, and where quota looks for their logins. It reads no
//! login.

use std::fmt::Write as _;

use quota::Policy;
use quota::http::Provider;
use serde::Serialize;

use crate::cli::{GlobalOptions, ProvidersArgs};
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::duration;
use crate::local_usage;
use crate::login_folder::LoginFolder;
use crate::term;
use crate::view::json;

/// Longer lines are wrapped.
const COLUMNS: usize = 80;

/// Lists the providers.
///
/// # Errors
///
/// [`CliError`] if the output cannot be written.
pub(crate) fn run(_: &ProvidersArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let defined = context::defined_providers(global.config.as_deref())?;
    let providers = defined.all().map(ProviderJson::of);
    if global.json {
        term::print(&json::pretty(&ProvidersJson { version: 2, providers: providers.collect() }))?;
    } else {
        let texts: Vec<_> = providers.map(|provider| provider.text()).collect();
        term::print(&texts.join("\n"))?;
    }
    Ok(Exit::Success)
}

/// The JSON of `quota providers`, which docs/providers-json.md describes.
#[derive(Serialize)]
struct ProvidersJson {
    version: u32,
    providers: Vec<ProviderJson>,
}

#[derive(Serialize)]
struct ProviderJson {
    id: &'static str,
    name: &'static str,
    other_names: &'static [&'static str],
    base_url: Option<String>,
    private_endpoint: bool,
    defined: bool,
    login_program: Option<&'static str>,
    login_file: Option<String>,
    login_dir_variable: Option<&'static str>,
    token_variables: &'static [&'static str],
    local_usage: Option<&'static str>,
    max_age_seconds: f64,
    budget_per_hour: u32,
    #[serde(skip)]
    max_age: String,
}

impl ProviderJson {
    fn of(provider: &'static Provider) -> Self {
        let policy = provider.policy(Policy::default());
        let folder = LoginFolder::of(provider);
        Self {
            id: provider.id_str(),
            name: provider.name(),
            other_names: provider.other_names(),
            base_url: provider.default_base_url().map(|url| url.as_str().trim_end_matches('/').to_owned()),
            private_endpoint: provider.is_private(),
            defined: provider.is_defined(),
            login_program: folder.map(|folder| folder.program),
            login_file: folder.map(|folder| folder.file()),
            login_dir_variable: folder.and_then(|folder| folder.variable),
            token_variables: provider.variables(),
            local_usage: local_usage::place(provider),
            max_age_seconds: policy.max_age.as_secs_f64(),
            budget_per_hour: policy.budget.per_hour,
            max_age: duration(policy.max_age),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}: {}", self.id, self.name);
        if !self.other_names.is_empty() {
            let _ = write!(text, " (also {})", self.other_names.join(", "));
        }
        let program = self.login_program.map(|program| {
            let file = self.login_file.as_deref().unwrap_or_default();
            let elsewhere = self.login_dir_variable.map(|name| format!(", or ${name}")).unwrap_or_default();
            format!("login of {program} ({file}{elsewhere})")
        });
        let variables = self.token_variables.iter().map(|name| format!("variable {name}"));
        let logins: Vec<_> = program.into_iter().chain(variables).collect();
        let endpoint = match (&self.base_url, self.private_endpoint) {
            (None, _) => "set base_url for each account".to_owned(),
            (Some(url), _) if self.defined => format!("{url}, defined in the configuration"),
            (Some(url), true) => format!("{url}, not documented by the provider"),
            (Some(url), false) => url.clone(),
        };
        let refresh = format!("every {}, at most {} calls per hour", self.max_age, self.budget_per_hour);
        text.push('\n');
        let local = self.local_usage.map(|local| ("local", local.to_owned()));
        let lines = [("login", logins.join(" or ")), ("endpoint", endpoint), ("refresh", refresh)];
        for (name, value) in lines.into_iter().chain(local) {
            let initial = format!("  {name:<10}");
            let options = textwrap::Options::new(COLUMNS).initial_indent(&initial);
            let _ = writeln!(text, "{}", textwrap::fill(&value, options.subsequent_indent("            ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use quota::http::PROVIDERS;

    use super::*;

    #[test]
    fn a_provider_is_shown_with_its_names_and_logins() {
        let codex = quota::http::find_provider("codex").unwrap();

        assert_eq!(
            ProviderJson::of(codex).text(),
            "openai: OpenAI Codex (also codex, chatgpt)\n  \
             login     login of Codex (~/.codex/auth.json, or $CODEX_HOME)\n  \
             endpoint  https://chatgpt.com, not documented by the provider\n  \
             refresh   every 5 min, at most 28 calls per hour\n  \
             local     sessions of Codex (~/.codex/sessions)\n"
        );
    }

    #[test]
    fn every_line_fits_into_eighty_columns() {
        for provider in PROVIDERS {
            for line in ProviderJson::of(provider).text().lines() {
                assert!(line.chars().count() <= COLUMNS, "{line}");
            }
        }
    }

    #[test]
    fn the_json_has_the_documented_form() {
        let codex = ProviderJson::of(quota::http::find_provider("codex").unwrap());

        insta::assert_json_snapshot!(codex, @r#"
        {
          "id": "openai",
          "name": "OpenAI Codex",
          "other_names": [
            "codex",
            "chatgpt"
          ],
          "base_url": "https://chatgpt.com",
          "private_endpoint": true,
          "defined": false,
          "login_program": "Codex",
          "login_file": "~/.codex/auth.json",
          "login_dir_variable": "CODEX_HOME",
          "token_variables": [],
          "local_usage": "sessions of Codex (~/.codex/sessions)",
          "max_age_seconds": 300.0,
          "budget_per_hour": 28
        }
        "#);
    }
}
