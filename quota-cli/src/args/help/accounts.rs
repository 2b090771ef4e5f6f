//! The long help texts of the commands for those who have several accounts.
//! They are laid out for 80 columns, which is tested in `help`.

/// What `quota accounts` does.
pub(in crate::args) const ACCOUNTS: &str = "\
Lists all accounts in their order, the main one first, with where their logins are and how they stand by what is known. Nobody \
is asked.

They are those of the configuration, and those that were added by command. What commands change is kept beside it, in \
$XDG_STATE_HOME/quota/accounts.json: order, switches, limits, and where added accounts have their logins. The configuration \
itself is never changed, and no token is ever written.";

/// How it is used.
pub(in crate::args) const ACCOUNTS_MORE: &str = "\
Examples:
  quota accounts
  quota accounts add work --claude-config-dir ~/.claude-work
  quota accounts add spare --token-env QUOTA_SPARE --minimum 10
  quota accounts add vault --token-command pass show claude/vault
  quota accounts order work main
  quota accounts disable spare
  quota accounts import --dry-run   # the logins that are on this machine
  quota accounts list --json | jq -r '.accounts[].account'

The shape of list --json is in docs/accounts-json.md.

Exit codes: 0 it is done, 1 something was left out (import), 3 no account was found, 64 the command line was not understood, \
65 malformed input, 66 unreadable input, 69 another process holds the accounts file, 74 it could not be written, 78 the \
configuration or the accounts file cannot be used.";
