//! The arguments of `quota mcp`.

use clap::Args;

/// Serve usage to agents over the Model Context Protocol
///
/// Answers on standard input and output, so an agent's program starts it. It needs no `quota serve`: it uses the same configuration and
/// store as the other commands, and makes calls under the same rules.
///
/// It runs until its client closes standard input, or until Ctrl-C or SIGTERM. Messages for people go to standard error.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Tools:
  quota_status    the windows of every account, as quota status --json prints
  quota_pick      the account to use now, as quota pick --json prints
  quota_explain   the same with all reasons, as quota explain --json prints
  quota_wait      waits until an account is available, and then picks it

Resources:
  quota://events                   the last events, as quota events --json prints
  quota://events/PROVIDER/NAME     those of one account

Examples:
  claude mcp add quota -- quota mcp
  codex mcp add quota -- quota mcp

docs/mcp.md describes the tools and resources.

Exit codes: 0 the client closed the connection, or Ctrl-C or SIGTERM; 74 write error, 78 unusable store.")]
pub(crate) struct McpArgs {}
