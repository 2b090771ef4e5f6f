//! The arguments of `quota wrap`.

use std::ffi::OsString;

use clap::Args;

/// Run a program whose usage requests are answered from the shared readings
///
/// For programs whose address of the provider cannot be changed. The command runs with a proxy of its own, which answers its requests
/// for the usage of your accounts. So many such programs cause one call to the provider.
///
/// The proxy opens the TLS of these providers' hosts only, with a certificate that is made for this run. It passes on all other
/// requests to these hosts unchanged, and all other connections unopened. Nothing of the system changes, and nothing stays afterwards.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The command gets these environment variables:
  HTTPS_PROXY, https_proxy  the proxy, on a loopback port, with a password
  NO_PROXY, no_proxy        the same as before, without the opened hosts
  NODE_USE_ENV_PROXY        so that fetch of Node.js 22.21, 24 and later uses it
  NODE_EXTRA_CA_CERTS, DENO_CERT, SSL_CERT_FILE, CURL_CA_BUNDLE,
  REQUESTS_CA_BUNDLE        what was trusted before, and the certificate

If HTTPS_PROXY is set already, the proxy connects through that one. It must be an http:// proxy.

A request is answered for the account whose login it presents. Requests with an unknown login go to the provider. A program that \
ignores these variables runs as without quota wrap, or reports an unknown certificate. docs/gateway.md explains the rest.

Examples:
  quota wrap npx ccstatusline
  quota wrap -- python3 usage.py --all
  quota wrap curl -H \"Authorization: Bearer $TOKEN\" \\
    https://api.anthropic.com/api/oauth/usage

Exit codes: the command's own, or 128 plus the number of the signal that ended it; 126 it cannot be executed, 127 it was not found; if \
it was not run: 3 no account was found, 64 usage error, 69 no port is available, 78 invalid configuration or an unusable proxy or store.")]
pub(crate) struct WrapArgs {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
