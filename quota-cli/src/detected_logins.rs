//! Detects the logins on this machine: those of Claude Code and of other providers' programs, and tokens in environment
//! variables. It only checks that they exist. `quota doctor` checks that they work.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use quota::anthropic::ANTHROPIC;
use quota::credentials::{ClaudeCode, CredentialLocation, DiscoveredCredential};
use quota::http::{PROVIDERS, Provider};
use quota::model::LoginInfo;
use quota::{AccountId, CredentialError, CredentialSource as _, ProviderId};

use crate::config::{self, Config, LoginSource, Program};
use crate::login_folder::LoginFolder;

/// quota's own variable for a Claude token, and the account name for it.
const OWN_VARIABLE: (&str, &str) = ("QUOTA_MAIN", "quota-main");

/// The logins on this machine.
#[derive(Debug, Default)]
pub(crate) struct DetectedLogins {
    /// Logins of programs first, each provider's default login before its others, then logins in variables.
    pub(crate) logins: Vec<DetectedLogin>,
}

/// A login on this machine, with an account for it.
#[derive(Debug)]
pub(crate) struct DetectedLogin {
    pub(crate) id: AccountId,
    pub(crate) login: LoginSource,
    /// Where it was found, such as the path of its file.
    pub(crate) location: String,
    /// The account of an earlier entry that is the same login.
    pub(crate) same_as: Option<AccountId>,
}

impl DetectedLogins {
    /// Detects the logins. No provider is called.
    pub(crate) async fn detect() -> Self {
        let home = ["HOME", "USERPROFILE"].into_iter().find_map(std::env::var_os);
        let home = home.filter(|home| !home.is_empty()).map(PathBuf::from);
        let mut found = Found::default();
        for provider in PROVIDERS.iter().copied() {
            let Some(folder) = LoginFolder::of(provider) else { continue };
            if let Some(login) = LoginSource::default_of(provider) {
                found.add_default(provider, login, &folder, home.as_deref()).await;
            }
            for (name, dir) in home.as_deref().map(|home| folder.others(home)).unwrap_or_default() {
                if let Some(login) = LoginSource::in_dir(provider, dir) {
                    found.add(provider.id(), &name, login).await;
                }
            }
        }
        for (variable, id) in PROVIDERS.iter().flat_map(|provider| variables(provider)) {
            found.add_variable(variable, &id);
        }
        Self { logins: found.logins }
    }

    /// How to add a second login of each provider whose program has a login: one paragraph per provider.
    pub(crate) fn second_logins(&self) -> String {
        let is_of = |login: &DetectedLogin, provider: &Provider| {
            *login.id.provider() == provider.id() && !matches!(login.login, LoginSource::TokenEnv(_))
        };
        let used =
            PROVIDERS.iter().copied().filter(|provider| self.logins.iter().any(|one| is_of(one, provider)));
        let mut text = String::new();
        for (provider, folder) in used.filter_map(|provider| Some((provider, LoginFolder::of(provider)?))) {
            let _ = writeln!(text, "\nA second login of {}:", folder.program);
            let is_taken = |name: &str| {
                self.logins.iter().any(|one| *one.id.provider() == provider.id() && one.id.name() == name)
            };
            for command in folder.second_login(is_taken) {
                let _ = writeln!(text, "  {command}");
            }
        }
        text
    }
}

/// The logins that were found so far.
#[derive(Default)]
struct Found {
    logins: Vec<DetectedLogin>,
    /// The identity of each account's login.
    infos: Vec<(AccountId, LoginInfo)>,
}

impl Found {
    /// Adds the login that the provider's program uses in this environment. If a variable names its folder, so does the account,
    /// because the variable may differ in other terminals.
    async fn add_default(
        &mut self,
        provider: &'static Provider,
        login: LoginSource,
        folder: &LoginFolder,
        home: Option<&Path>,
    ) {
        let id = account(provider.id(), "main");
        let Some(location) = find(&id, &login).await else { return };
        let named = home.filter(|_| !location.is_variable).and_then(|home| folder.dir_in_environment(home));
        let login = named.and_then(|dir| LoginSource::in_dir(provider, dir)).unwrap_or(login);
        self.push(id, login, location);
    }

    async fn add(&mut self, provider: ProviderId, name: &str, login: LoginSource) {
        let id = self.unused(&provider, name);
        if let Some(location) = find(&id, &login).await {
            self.push(id, login, location);
        }
    }

    fn add_variable(&mut self, variable: &'static str, id: &AccountId) {
        let id = self.unused(id.provider(), id.name());
        let login = LoginSource::TokenEnv(variable.to_owned());
        let text = format!("the environment variable {variable}");
        self.push(id, login, Location { text, is_variable: true, info: LoginInfo::default() });
    }

    fn push(&mut self, id: AccountId, login: LoginSource, Location { text: location, info, .. }: Location) {
        let is_same = |(other, known): &&(AccountId, LoginInfo)| {
            let is_equal_id = known.login_id.is_some() && known.login_id == info.login_id;
            let is_equal_token = known.fingerprint.is_some() && known.fingerprint == info.fingerprint;
            other.provider() == id.provider() && (is_equal_id || is_equal_token)
        };
        let same_as = self.infos.iter().find(is_same).map(|(other, _)| other.clone());
        self.infos.push((id.clone(), info));
        self.logins.push(DetectedLogin { id, login, location, same_as });
    }

    /// The account with this name, with a number appended if the name is already used.
    fn unused(&self, provider: &ProviderId, name: &str) -> AccountId {
        let used: HashSet<_> = self.logins.iter().map(|login| &login.id).collect();
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let ids =
            std::iter::once(name.to_owned()).chain(numbered).map(|name| account(provider.clone(), &name));
        // Reserve the name of the default login.
        let mut ids = ids.filter(|id| id.name() != "main" || !has_program(provider));
        ids.find(|id| !used.contains(id)).expect("one of the numbers is unused")
    }
}

fn has_program(provider: &ProviderId) -> bool {
    PROVIDERS.iter().any(|known| known.id() == *provider && known.own_login().is_some())
}

fn account(provider: ProviderId, name: &str) -> AccountId {
    AccountId::new(provider, name).expect("the name has only valid characters")
}

/// A login that exists.
struct Location {
    /// The location, such as the path of its file.
    text: String,
    /// Whether it is in a variable, so that no folder has it.
    is_variable: bool,
    /// The identity of the login, if it is not damaged.
    info: LoginInfo,
}

/// Finds a login of a provider's program. A damaged login counts.
async fn find(id: &AccountId, login: &LoginSource) -> Option<Location> {
    match login {
        LoginSource::ClaudeCode => find_copy(None).await,
        LoginSource::ClaudeConfigDir(dir) => find_copy(Some(dir)).await,
        LoginSource::Program(program) => find_file(id, program, None).await,
        LoginSource::ProgramDir(program, dir) => find_file(id, program, Some(dir)).await,
        _ => None,
    }
}

async fn find_copy(dir: Option<&Path>) -> Option<Location> {
    let copies = claude_code(dir).discover().await;
    let copy =
        copies.iter().find(|copy| copy.is_active).or_else(|| copies.iter().find(|copy| exists(copy)))?;
    Some(Location {
        text: copy.location.to_string(),
        is_variable: matches!(copy.location, CredentialLocation::Variable(_)),
        info: copy.result.as_ref().map(|credential| credential.login.clone()).unwrap_or_default(),
    })
}

async fn find_file(id: &AccountId, program: &Program, dir: Option<&Path>) -> Option<Location> {
    let source = program.login_file(dir);
    let result = source.credential(id).await;
    if matches!(result, Err(CredentialError::NotLoggedIn { .. })) {
        return None;
    }
    let path = source.paths().into_iter().find(|path| path.exists())?;
    let info = result.map(|credential| credential.login).unwrap_or_default();
    Some(Location { text: path.display().to_string(), is_variable: false, info })
}

/// The variables with a token of this provider that are set, and the account for each. Several variables of one provider usually have
/// the same token, so only the first counts.
fn variables(provider: &'static Provider) -> Vec<(&'static str, AccountId)> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let name = if provider.own_login().is_some() { "token" } else { "main" };
    let usual = provider.variables().iter().copied().find(is_set).map(|variable| (variable, name));
    let own = (provider.id() == ANTHROPIC && is_set(&OWN_VARIABLE.0)).then_some(OWN_VARIABLE);
    let id = |(variable, name)| (variable, account(provider.id(), name));
    usual.into_iter().chain(own).map(id).collect()
}

/// The login of Claude Code in this configuration directory, or in the one of the environment. Its login id is remembered for the next
/// command, so that a statusline does not parse a state file of several megabytes.
pub(crate) fn claude_code(dir: Option<&Path>) -> ClaudeCode {
    let source = dir.map_or_else(ClaudeCode::from_env, ClaudeCode::in_dir);
    match config::directory("XDG_STATE_HOME", &[".local", "state"]) {
        Some(state) => source.remember_logins(state.join("quota").join("login-ids.json")),
        None => source,
    }
}

/// Checks whether Claude Code has a login.
///
/// # Errors
///
/// The locations without a login, each with the reason.
pub(crate) async fn find_claude_code() -> Result<(), Vec<String>> {
    let copies = claude_code(None).discover().await;
    if copies.iter().any(exists) { Ok(()) } else { Err(copies.iter().map(missing).collect()) }
}

/// Whether a login exists. A damaged login counts: it is shown as an account with an error, and `quota doctor` shows how to fix it.
fn exists(copy: &DiscoveredCredential) -> bool {
    !matches!(copy.result, Err(CredentialError::NotLoggedIn { .. }))
}

/// Why a location has no login, without the hint that would be repeated on every line.
fn missing(copy: &DiscoveredCredential) -> String {
    let error = copy.result.as_ref().map_or_else(ToString::to_string, |_| String::new());
    error.rsplit_once("; run `claude`").map_or(error.clone(), |(cause, _)| cause.to_owned())
}

/// The logins on this machine that are not used, because no account is configured and Claude Code has no login in its
/// default location. `quota init` adds accounts for them.
pub(crate) async fn unused(config: &Config) -> Vec<DetectedLogin> {
    if !config.is_default() || find_claude_code().await.is_ok() {
        return Vec::new();
    }
    DetectedLogins::detect().await.logins
}

/// What to do with unused logins, for a command that fails without a login; `None` if there are none.
pub(crate) async fn unused_hint(config: &Config) -> Option<String> {
    let logins = unused(config).await;
    let described: Vec<_> = logins.iter().map(|login| login.login.describe()).collect();
    let one = match &*described {
        [] => return None,
        [one] => format!("there is a {one}"),
        several => format!("there are other logins ({})", several.join(", ")),
    };
    Some(format!("{one}, but no account for it; run: quota init"))
}

/// The text for a user without an account. These logins exist, but no account uses them.
pub(crate) fn nothing_found(searched: &[String], config: Option<&Path>, unused: &[DetectedLogin]) -> String {
    let mut text = "No account was found. Searched:\n".to_owned();
    match config {
        Some(path) => {
            let _ = writeln!(text, "  {} does not exist", path.display());
        }
        None => text.push_str("  a configuration: neither XDG_CONFIG_HOME nor HOME is set\n"),
    }
    if searched.is_empty() {
        text.push_str("  a login of Claude Code: neither CLAUDE_CONFIG_DIR nor HOME is set\n");
    }
    for location in searched {
        let _ = writeln!(text, "  {location}");
    }
    if !unused.is_empty() {
        text.push('\n');
        for login in unused {
            let _ = match &login.login {
                LoginSource::TokenEnv(name) => {
                    writeln!(text, "The variable {name} has a token. To use it, run: quota init")
                }
                other => writeln!(text, "There is a {}. To use it, run: quota init", other.describe()),
            };
        }
        text.push_str("\nHelp: quota status --help. Demo without an account: quota demo\n");
        return text;
    }
    text.push_str(
        "\nTo add one, run `claude` and log in; or log in with the program of another\n\
         provider, and run `quota init` (`quota providers` lists them); or run:\n\n  \
         quota accounts add main --token-env QUOTA_MAIN    # an environment variable that holds a token\n\n\
         or add an account to that configuration:\n\n  \
         [[accounts]]\n  id = \"anthropic/main\"\n  token_env = \"QUOTA_MAIN\"    # an environment variable that holds a token\n\n\
         Help: quota status --help. Demo without an account: quota demo\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searched_locations_are_listed() {
        let searched = ["/home/me/.claude/.credentials.json does not exist".to_owned()];

        insta::assert_snapshot!(nothing_found(
            &searched,
            Some(Path::new("/home/me/.config/quota/config.toml")),
            &[]
        ));
    }

    #[test]
    fn unused_logins_are_offered_instead_of_claude_code() {
        let login = |id: &str, login| DetectedLogin {
            id: id.parse().unwrap(),
            login,
            location: String::new(),
            same_as: None,
        };
        let codex = Program::of(quota::http::find_provider("codex").unwrap()).unwrap();
        let unused = [
            login("openai/main", LoginSource::Program(codex)),
            login("openrouter/main", LoginSource::TokenEnv("OPENROUTER_API_KEY".to_owned())),
        ];

        let text = nothing_found(&[], Some(Path::new("/x/config.toml")), &unused);

        assert!(text.contains("There is a login of Codex. To use it, run: quota init\n"), "{text}");
        assert!(text.contains("The variable OPENROUTER_API_KEY has a token."), "{text}");
        assert!(!text.contains("run `claude`"), "{text}");
    }

    #[test]
    fn a_missing_home_directory_is_reported() {
        insta::assert_snapshot!(nothing_found(&[], None, &[]));
    }
}
