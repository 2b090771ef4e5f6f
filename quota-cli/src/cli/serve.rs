//! The arguments of `quota serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use quota_server::ListenAddress;

use super::duration;

/// Serve usage to all programs of this machine
///
/// Answers on the providers' own paths, in their own shape, from the shared readings. An existing tool changes only its base URL. The
/// accounts of the configuration are kept fresh, so that each provider is called once for all tools.
///
/// Runs until Ctrl-C or SIGTERM, and then finishes the responses in flight. SIGHUP loads the configuration and the tokens again.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Paths:
  /api/oauth/usage           usage of a Claude login, as Anthropic sends it
  /backend-api/wham/usage    usage of a Codex login, as OpenAI sends it
  /copilot_internal/user     usage of a Copilot login, as GitHub sends it
  /account/PROVIDER/NAME/…   the same paths, for a named account
  /v1/accounts, /v1/changes  the same for programs of your own; see /openapi.json
  /healthz, /readyz          whether it runs, and has read its accounts

A request is answered for the account whose login it presents. A program that presents none uses the paths with a name.

Only programs of this machine can connect, unless --listen names another address. That needs --token-file and TLS, or \
--open-to-network. A token file has one token per line, with what it permits:

  read 3f6d0c5b8a7e4921
  operate d1e8a06c42f97b35

If systemd passes sockets, they are used in place of the default address. The credential quota-tokens of the unit is used as \
token file.

Examples:
  quota serve
  quota serve --listen unix:/run/user/1000/quota.sock
  curl http://127.0.0.1:7878/account/anthropic/main/api/oauth/usage

Exit codes: 0 stopped, 3 no account was found, 64 usage error, 69 an address is not available, 78 invalid configuration.")]
pub(crate) struct ServeArgs {
    /// Listen on this address: IP:PORT or unix:PATH; repeat for several [default: 127.0.0.1:7878]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<ListenAddress>,
    /// Send no reading of this age or older
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub(crate) max_age: Duration,
    /// Answer for unknown credentials too, with accounts that live in memory
    #[arg(long, conflicts_with = "token_file")]
    pub(crate) adopt_presented: bool,
    /// Require a token of this file, or the login of an account
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Serve TLS with this certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Accept requests for this host name too; repeat for several
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
    /// Allow other addresses than loopback without tokens or TLS
    #[arg(long)]
    pub(crate) open_to_network: bool,
    /// Give the credentials of accounts to your own programs, over Unix sockets only
    #[arg(long)]
    pub(crate) hand_out_credentials: bool,
}
