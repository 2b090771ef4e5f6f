//! The arguments of the commands that prepare and check an installation: `quota doctor`, `quota init` and `quota completions`.

use clap::Args;
use clap_complete::Shell;

/// Diagnose problems
///
/// Checks the configuration, the store, the logins and who may read them, the failed refreshes, holds and used-up budgets in the store,
/// the clocks, and whether the providers can be reached. Each problem comes with what to do.
///
/// Nothing is changed and nothing secret is shown. A provider is asked only whether its host answers. To check that the store can be
/// written, a note is left in it for a minute.
#[derive(Debug, Args)]
#[command(after_help = "\
docs/doctor-json.md describes the JSON.

Exit codes: 0 no problems found, 1 there is a warning (warn) or a problem (FAIL).")]
pub(crate) struct DoctorArgs {}

/// Write a configuration for the logins on this machine
///
/// Looks for logins of Claude Code and for tokens in the environment, and writes a configuration that names where they are. Comments in
/// it explain the other settings. No token is written.
///
/// An existing file is overwritten only after a question at the terminal or with --force, and a backup is kept beside it.
#[derive(Debug, Args)]
#[command(after_help = "\
docs/init-json.md describes the JSON.

Exit codes: 0 written, 1 you answered no, 64 the file exists and there is no terminal for a question, 74 write error.")]
pub(crate) struct InitArgs {
    /// Overwrite an existing file, and keep a backup
    #[arg(long, conflicts_with = "print")]
    pub(crate) force: bool,
    /// Print the configuration to standard output
    #[arg(long, conflicts_with = "json")]
    pub(crate) print: bool,
}

/// Print shell completions
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quota completions bash > ~/.local/share/bash-completion/completions/quota
  quota completions zsh > \"${fpath[1]}/_quota\"
  quota completions fish > ~/.config/fish/completions/quota.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}
