//! The arguments of the commands that set up and check an installation: `quota doctor`, `quota init`,
//! `quota providers` and `quota completions`.

use clap::Args;
use clap_complete::Shell;

/// Diagnose problems
///
/// Checks the configuration, the store, the logins and their file permissions, failed refreshes, holds and used-up call budgets, the
/// clocks, and the connection to the providers. It prints a fix for each problem.
///
/// It changes no settings, prints no secrets, and makes no usage calls: it only checks that each provider's host responds. To check that
/// the store is writable, it writes a document that expires after a minute.
#[derive(Debug, Args)]
#[command(after_help = "\
docs/doctor-json.md describes the JSON.

Exit codes: 0 no problems found, 1 at least one warning (warn) or problem (FAIL).")]
pub(crate) struct DoctorArgs {}

/// Write a configuration for the logins on this machine
///
/// Finds the logins of Claude Code, Codex and other providers' programs, and tokens in environment variables. It also searches the
/// folders beside the usual ones, such as ~/.claude-work and ~/.codex-work. It writes a configuration that refers to the logins, with
/// comments on the other settings, and prints how to add a second login of a provider. It never writes a token.
///
/// `quota accounts import` adds the same logins to an existing configuration.
///
/// It overwrites an existing file only with --force or after you confirm at the terminal, and keeps a backup beside it.
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
    /// Print the JSON Schema of configurations, for completion in an editor
    #[arg(long, conflicts_with_all = ["force", "json", "print"])]
    pub(crate) schema: bool,
}

/// List the supported providers
///
/// For each provider, also those that the configuration defines, it shows the names that commands accept, where quota looks for a
/// login, and whether the provider documents the endpoint. It reads no login, and makes no calls.
#[derive(Debug, Args)]
#[command(after_help = "\
Where quota looks for a login:
  `quota init` writes a configuration for all logins that it finds. `quota accounts add codex/main` adds one account. Without another \
setting, the account uses the login of the provider's own program, or the first of the listed variables that is set.

  login_dir in the configuration, or --login-dir, names another folder of the program, such as ~/.codex-work. token_env, token_file, \
token_command and keyring name a token instead.

Subscriptions report usage, and most API keys do not: an account of Anthropic or OpenAI needs the login of its program, because their \
API keys are billed by usage and have no windows. A token of `claude setup-token` can send requests, but it may not read usage.

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
