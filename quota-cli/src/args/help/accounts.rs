//! The long help texts of the commands for those who have several accounts.
//! They are laid out for 80 columns, which is tested in `help`.

/// What `quota pick` does.
pub(in crate::args) const PICK: &str = "\
Writes the name of the account to use now, and nothing else: the main one, or the first fallback in its order that has room. \
Accounts whose numbers are missing, or old and against them, are asked about first, by the same rules and the same budget as \
everywhere.

It promises nothing: whoever picks at the same moment gets the same account. With --session, and `mode` sticky_balanced in \
[routing], a session stays with its account.";

/// How it is used.
pub(in crate::args) const PICK_MORE: &str = "\
Examples:
  account=$(quota pick --model claude-opus-4-5) && echo \"$account\"
  quota pick --json | jq -r '.accounts[] | \"\\(.account) \\(.rule)\"'

The shape of --json is in docs/pick-json.md. Why it is so: quota explain.

After a window's reset the provider is asked again a little later; until then nothing is known of the window. Where no account has \
room for that reason, it waits, or says until when that is.

Exit codes: 0 there is one, 1 none has room (standard error says when one will), 3 all accounts are disabled, 64 the command line \
was not understood, 66 the file given by --config cannot be read, 69 it cannot be told, or somebody has to log in, 78 the configuration or the store \
cannot be used.";

/// What `quota explain` does.
pub(in crate::args) const EXPLAIN: &str = "\
Shows the account that `quota pick` would name now, and of every account its windows, how old and how certain their numbers \
are, and the rule that took or refused it. Numbers are refreshed as for `quota pick`; nothing is remembered of it.";

/// How to read it.
pub(in crate::args) const EXPLAIN_MORE: &str = "\
Reading it:
  taken        the request would go there
  not needed   it has room, and another comes first
  passed over  less is left than its minimum; it serves if no other has more
  refused      it cannot serve: nothing is left, its killswitch is reached, it
               is disabled, its login is dead, or nothing is known of it

  ≥ 62 %       at least so much is used: the reading is old

How accounts are chosen is in [routing] of the configuration; these are the
defaults:

  [routing]
  mode = \"main_first\"    # or fallback_first, sticky_balanced (sessions stay
                         # where they are, new ones go where most can be
                         # spent), soonest_reset_first
  min_remaining = 0      # pass an account over below this percentage; or
                         # { every = 20, seven_day = 10 }
  killswitch = 0         # never use it below this one
  when_unknown = \"deny\"  # or allow: use what nothing is known of
  max_session_wait = \"2m\"  # a session waits so long, rather than move
  session_ttl = \"168h\"       # a session is remembered for so long
  max_sessions = 10000      # so many sessions are
  credential_timeout = \"20s\"  # a login is waited for so long
  # For programs that report what became of their requests: fallback_on, throttle_cooldown,
  # exhausted_cooldown, forbidden_cooldown

An account may have `min_remaining` and `killswitch` of its own, in [[accounts]].

The shape of --json is in docs/explain-json.md.

Exit codes: those of `quota pick`.";

/// What `quota run` does.
pub(in crate::args) const RUN: &str = "\
Runs a command with the account that `quota pick` would name. If no account has room, it is not run. It takes the place of this \
program, so signals and its exit code are its own.";

/// What the command is given.
pub(in crate::args) const RUN_MORE: &str = "\
What the command finds in its environment:
  QUOTA_ACCOUNT            the account, such as anthropic/work
  CLAUDE_CODE_OAUTH_TOKEN  the token, if the account's is in a variable, a file,
                           or printed by a program
  CLAUDE_CONFIG_DIR        the directory, if the account has one of its own
  ANTHROPIC_BASE_URL       the account's base_url, if it has one
Removed is what would name another login, provider or host, such as
ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL and CLAUDE_CODE_USE_BEDROCK; the
variables of the other accounts; and QUOTA_STORE, which may hold a password.
The token is nowhere else: not in arguments, not in messages, in no file.

Examples:
  quota run -- claude -p 'fix the tests'
  quota run --model claude-opus-4-5 -- claude --model claude-opus-4-5
  quota run -- sh -c 'echo \"$QUOTA_ACCOUNT\"'

Exit codes: the command's own; 126 it cannot be executed, 127 there is no such command; and those of `quota pick` if it was not \
run.";

/// What `quota accounts` does.
pub(in crate::args) const ACCOUNTS: &str = "\
Lists all accounts in their order, the main one first, with where their logins are and how they stand by what is known. Nobody \
is asked.

They are those of the configuration, $XDG_CONFIG_HOME/quota/config.toml (~/.config/quota/config.toml), or the one that --config \
names. Commands change that file and create it if there is none. What a person writes in it stays as it is, with its comments. No \
token is ever written.";

/// How it is used.
pub(in crate::args) const ACCOUNTS_MORE: &str = "\
Examples:
  quota accounts
  quota accounts add work --claude-config-dir ~/.claude-work
  quota accounts add spare --token-env QUOTA_SPARE --min-remaining 10
  quota accounts add vault --token-command pass show claude/vault
  quota accounts set spare --min-remaining 20 --killswitch none
  quota accounts order work main
  quota accounts disable spare
  quota accounts clear-hold spare
  quota accounts import --dry-run   # the logins that are on this machine
  quota accounts list --json | jq -r '.accounts[].account'

The shape of list --json is in docs/accounts-json.md.

Exit codes: 0 it is done, 1 something was left out (import) or is still stored (remove), 3 no account was found, 64 the command line was not understood, \
65 malformed input, 66 unreadable input, 69 another process is changing the configuration or the store does not answer, 74 it could not be written, 78 the \
configuration cannot be used or edited.";
