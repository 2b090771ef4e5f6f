//! `quota accounts login`: logs in at the provider's authorization server, with the configured client and endpoints.
//! quota owns the login and renews it. `answer` waits for the code.

mod answer;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use quota::AccountId;
use quota::credentials::LogInError;
use quota::http::Authorization;
use quota::provider::TokenError;

use self::answer::{Answer, Redirect};
use super::add::{self, DefaultLogin};
use super::confirm;
use crate::cli::{GlobalOptions, LoginArgs};
use crate::config::{self, AccountSettings, Change, Config, LoginSource};
use crate::exit::{CliError, Exit};
use crate::{context, hint, scope, store, term};

/// Logs in, adds the account if it is new, and stores the login.
pub(super) fn run(options: &LoginArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let named = global.config.as_deref();
    let config = Config::load_allow_empty(named)?;
    let (id, provider) = add::id(&options.name, &config)?;
    check_source(&config, &id)?;
    let oauth = config.provider(&provider.id()).oauth.as_ref().ok_or_else(|| not_configured(&id))?;
    let store = store::open(global.store.as_deref())?;
    scope::run(async |scope| {
        scope.listen()?;
        let default_login = DefaultLogin::find(named).await?;
        let redirect = Redirect::open(oauth.redirect_url.as_ref()).await?;
        let login = Authorization::new(&oauth.authorize_url, &oauth.client_id, &redirect.url, &oauth.scopes);
        let login = Arc::new(login);
        prompt(&id, &login, &redirect, options.no_browser)?;
        let Answer { code } = redirect.wait_for_code(&login).await?;
        // Add the account before the code is exchanged. If this process is killed afterwards, the account shows how to
        // log in.
        let account = AccountSettings::new(id.clone(), LoginSource::Own);
        config::update(named, |config| {
            check_source(config, &id)?;
            let is_known = config.accounts.iter().any(|account| account.id == id && !account.is_default());
            let mut accounts = default_login.existing(config, &account);
            accounts.push(account.clone());
            Ok(Change { accounts: (!is_known).then_some(accounts), answer: () })
        })
        .await?;
        let refresher = context::refresher(provider, oauth)?;
        let logins = context::renewing_logins(&config, &store)?;
        scope.own_logins(&logins);
        let exchange = async move { refresher.exchange_code(&code, &login).await };
        logins.log_in(&id, exchange).await.map_err(|error| failed(&id, &error))?;
        confirm(&[format!("logged in {id}; quota renews this login")])
    })
}

/// An account with a different login source is not changed.
fn check_source(config: &Config, id: &AccountId) -> Result<(), CliError> {
    let other = config.accounts.iter().find(|account| account.id == *id && account.login != LoginSource::Own);
    match other.filter(|account| !account.is_default()) {
        None => Ok(()),
        Some(other) => Err(CliError::new(
            Exit::Usage,
            format!("{id} uses another login ({}); choose another name", other.login.describe()),
        )),
    }
}

fn not_configured(id: &AccountId) -> CliError {
    let provider = id.provider();
    CliError::new(
        Exit::Config,
        format!(
            "no OAuth client is configured for {provider}; add [providers.{provider}.oauth] with client_id, authorize_url and \
             token_url (quota has no client id of its own)"
        ),
    )
}

/// Prints the address, and opens it in a browser if there is one.
fn prompt(
    id: &AccountId,
    login: &Authorization,
    redirect: &Redirect,
    no_browser: bool,
) -> Result<(), CliError> {
    term::eprint(&format!("Open this address to log in {id}:\n"));
    term::print(&format!("{}\n", login.url()))?;
    term::eprint(match redirect.is_listening() {
        true => {
            "The command continues after the login. If the browser runs on another machine, paste the address that it shows at the \
             end, or the code:\n"
        }
        false => "After the login, paste the address that the browser shows, or the code:\n",
    });
    if !no_browser && io::stderr().is_terminal() && has_display() {
        // Without a browser, the user must open the address.
        let _ = open::that_detached(login.url().as_str());
    }
    Ok(())
}

/// Whether a browser can open a window. Except on macOS and Windows, a text browser could take over the terminal.
fn has_display() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(any(target_os = "macos", windows)) || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

/// The error of a failed exchange, with the command that tries again.
fn failed(id: &AccountId, error: &LogInError) -> CliError {
    let (exit, reason) = match error {
        LogInError::Exchange(
            TokenError::InvalidGrant { reason, .. }
            | TokenError::InvalidClient { reason, .. }
            | TokenError::Transient { reason, .. },
        ) => (Exit::Unavailable, reason.clone().into_owned()),
        LogInError::File(error) => (Exit::IoErr, error.to_string()),
        other => (Exit::Unavailable, other.to_string()),
    };
    let again = hint::command(&format!("accounts login {id}"));
    CliError::new(exit, format!("could not log in {id}: {reason}; run again: {again}"))
}
