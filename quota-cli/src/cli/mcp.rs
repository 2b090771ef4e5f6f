//! The arguments of `quota mcp`.

use clap::Args;

/// Serve usage to agents over the Model Context Protocol
///
/// An agent's program starts this server, and talks to it over standard input and output. The server needs no `quota serve`: it
/// uses the same configuration and store as the other commands, and obeys the same limits on calls.
///
/// It runs until the client closes standard input, or until Ctrl-C or SIGTERM. Diagnostic messages go to standard error.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Tools:
  quota_status    the windows of every account, as quota status --json prints
  quota_pick      the account to use now, as quota pick --json prints
  quota_explain   the choice with all reasons, as quota explain --json prints
  quota_wait      the account to use, once one is available

Resources:
  quota://events                   the last events, as quota events --json prints
  quota://events/PROVIDER/NAME     the last events of one account

Examples:
  claude mcp add quota -- quota mcp
  codex mcp add quota -- quota mcp

docs/mcp.md describes the tools and resources.

Exit codes: 0 the client closed the connection, or Ctrl-C or SIGTERM; 74 write error, 78 unusable store.")]
pub(crate) struct McpArgs {}
