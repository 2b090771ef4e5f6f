//! The arguments of `quota serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use quota_server::ListenAddress;

use super::duration;

/// Serve usage to all programs on this machine
///
/// Answers on the providers' own paths, in their own formats, from the shared readings. An existing tool changes only its base URL.
/// The gateway keeps the configured accounts fresh, with one call to the provider for all tools.
///
/// Runs until Ctrl-C or SIGTERM, and then finishes the responses in flight. SIGHUP reloads the configuration and the tokens.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Paths:
  /api/oauth/usage           usage of a Claude login, as Anthropic sends it
  /backend-api/wham/usage    usage of a Codex login, as OpenAI sends it
  /copilot_internal/user     usage of a Copilot login, as GitHub sends it
  /account/PROVIDER/NAME/…   the same paths, for a named account
  /v1/accounts, /v1/changes  an API for your own programs; see /openapi.json
  /healthz, /readyz          whether it runs; whether it has read its accounts

The login in a request selects the account. A program that sends no login must use the paths that name an account.

Only programs on this machine can connect, unless --listen names another address. Such an address requires --token-file and TLS, or \
--open-to-network. A token file has one role and its token per line:

  read 3f6d0c5b8a7e4921
  operate d1e8a06c42f97b35

If systemd passes sockets, the gateway uses them instead of the default address. If the unit has a credential named quota-tokens, it \
is the token file.

Examples:
  quota serve
  quota serve --listen unix:/run/user/1000/quota.sock
  curl http://127.0.0.1:7878/account/anthropic/main/api/oauth/usage

Exit codes: 0 stopped by a signal, 3 no account was found, 64 usage error, 69 an address is not available, 78 invalid configuration.")]
pub(crate) struct ServeArgs {
    /// Listen on this address: IP:PORT or unix:PATH (repeatable) [default: 127.0.0.1:7878]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<ListenAddress>,
    /// Never answer with readings of this age or older
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub(crate) max_age: Duration,
    /// Also serve unknown credentials, with an account in memory for each
    #[arg(long, conflicts_with = "token_file")]
    pub(crate) adopt_presented: bool,
    /// Require a token from this file, or the login of an account
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Serve TLS with this certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Use this private key for the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Also accept requests for this host name (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
    /// Allow addresses other than loopback without tokens or TLS
    #[arg(long)]
    pub(crate) open_to_network: bool,
    /// Hand out the accounts' credentials to your own programs, over Unix sockets only
    #[arg(long)]
    pub(crate) hand_out_credentials: bool,
}
