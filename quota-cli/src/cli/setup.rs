//! The arguments of the commands that set up and check an installation: `quota doctor`, `quota init`,
//! `quota providers` and `quota completions`.

use clap::Args;
use clap_complete::Shell;

/// Diagnose problems
///
/// Checks the configuration, the store, the logins and their file permissions, failed refreshes, holds and used-up call budgets, the
/// clocks, and the connection to the providers. It prints a fix for each problem.
///
/// It changes no settings, prints no secrets, and makes no usage calls. It only checks that each provider's host responds. To check
/// that the store is writable, it writes a document that expires after a minute.
#[derive(Debug, Args)]
#[command(after_help = "\
docs/doctor-json.md describes the JSON.

Exit codes: 0 no problems found, 1 at least one warning (warn) or problem (FAIL).")]
pub(crate) struct DoctorArgs {}

/// Write a configuration for the logins on this machine
///
/// Finds the logins of Claude Code, Codex and other providers' programs, and tokens in environment variables. It also searches
/// folders next to the default ones, such as ~/.claude-work and ~/.codex-work. It writes a configuration that refers to these
/// logins, with comments that explain the other settings. It prints how to add a second login for a provider. It never writes a
/// token.
///
/// `quota accounts import` adds the same logins to an existing configuration.
///
/// It overwrites an existing file only with --force or after you confirm at the terminal, and keeps a backup in the same folder.
#[derive(Debug, Args)]
#[command(after_help = "\
docs/init-json.md describes the JSON.

Exit codes: 0 success, 1 you answered no, 64 the file exists and there is no terminal for the confirmation, 74 write error.")]
pub(crate) struct InitArgs {
    /// Overwrite an existing file, and keep a backup
    #[arg(long, conflicts_with = "print")]
    pub(crate) force: bool,
    /// Print the configuration instead of writing it
    #[arg(long, conflicts_with = "json")]
    pub(crate) print: bool,
    /// Print the JSON Schema of the configuration, for completion in an editor
    #[arg(long, conflicts_with_all = ["force", "json", "print"])]
    pub(crate) schema: bool,
}

/// List the supported providers
///
/// Shows the names that commands accept for each provider, where quota looks for a login, and whether the provider documents the
/// endpoint. The list includes providers that the configuration defines. This command reads no login, and makes no calls.
#[derive(Debug, Args)]
#[command(after_help = "\
Where quota looks for a login:
  `quota init` writes a configuration for all logins that it finds. `quota accounts add codex/main` adds one account. By default, an \
account uses the login of the provider's own program, or the first of the listed variables that is set.

  If the program keeps a login in another folder, such as ~/.codex-work, name it with login_dir in the configuration or with \
--login-dir. To use a token instead, set token_env, token_file, token_command or keyring.

Subscriptions report usage, but most API keys do not. API keys of Anthropic and OpenAI are billed by use and have no windows, so an \
account needs the login of the provider's program. A token from `claude setup-token` can send requests, but is not allowed to read \
usage.

docs/providers-json.md describes the JSON.")]
pub(crate) struct ProvidersArgs {}

/// Print shell completions
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quota completions bash > ~/.local/share/bash-completion/completions/quota
  quota completions zsh > \"${fpath[1]}/_quota\"
  quota completions fish > ~/.config/fish/completions/quota.fish")]
pub(crate) struct CompletionsArgs {
    /// Shell
    pub(crate) shell: Shell,
}
