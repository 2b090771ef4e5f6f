//! The arguments of `quota wrap`.

use std::ffi::OsString;

use clap::Args;

/// Run a program, and answer its usage requests from the shared readings
///
/// Use this for a program that has no setting for the provider's address. The program runs behind its own local proxy, which
/// answers requests for the usage of your accounts. However many such programs run, the provider gets one call.
///
/// The proxy decrypts only connections to the hosts of these providers, with a certificate that it creates for this run. It
/// forwards all other requests to these hosts unchanged, and tunnels all other connections without decrypting them. It changes no
/// system settings, and leaves nothing behind.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The command gets these environment variables:
  HTTPS_PROXY, https_proxy  the proxy, on a loopback port, with a password
  NO_PROXY, no_proxy        the same as before, without the decrypted hosts
  NODE_USE_ENV_PROXY        makes fetch in Node.js 22.21, 24 and later use it
  NODE_EXTRA_CA_CERTS, DENO_CERT, SSL_CERT_FILE, CURL_CA_BUNDLE,
  REQUESTS_CA_BUNDLE        the certificates trusted before, and the new one

If HTTPS_PROXY is already set, the proxy connects through that proxy, which must be an http:// URL.

The login in a request selects the account. A request with an unknown login goes to the provider. A program that ignores HTTPS_PROXY \
runs as it would without quota wrap. A program that ignores the certificate variables reports an unknown certificate. docs/gateway.md \
explains the details.

Examples:
  quota wrap npx ccstatusline
  quota wrap -- python3 usage.py --all
  quota wrap curl -H \"Authorization: Bearer $TOKEN\" \\
    https://api.anthropic.com/api/oauth/usage

Exit codes: that of the command, or 128 plus the number of the signal that ended it; 126 it cannot be executed, 127 it was not found; \
if it was not run: 3 no account was found, 64 usage error, 69 no port is available, 78 invalid configuration or an unusable proxy or store.")]
pub(crate) struct WrapArgs {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
