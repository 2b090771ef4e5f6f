//! Posts the payload as JSON. Errors never show the URL. Redirects are not followed, because they would send the
//! payload elsewhere.

use std::fmt;
use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use reqwest::{Client, redirect, retry};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use url::Url;

use super::error::HookFailure;

const USER_AGENT_VALUE: &str = concat!("quota/", env!("CARGO_PKG_VERSION"), " (hook)");

/// The URL of a webhook. It is a secret, because anyone who knows it can post to it. It is never displayed.
#[derive(Clone, PartialEq)]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// Wraps a URL. A plain `http` URL should point to this machine.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self(url)
    }

    pub(super) fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// Posts the payload once.
    ///
    /// # Errors
    ///
    /// [`HookFailure::PostFailed`] and [`HookFailure::HttpStatus`].
    pub(super) async fn post(&self, payload: &str) -> Result<(), HookFailure> {
        let Self(url) = self;
        let client = post_client(url).map_err(|()| HookFailure::PostFailed("could not set up TLS"))?;
        let request = client
            .post(url.clone())
            .header(USER_AGENT, USER_AGENT_VALUE)
            .header(CONTENT_TYPE, "application/json");
        let sent = request.body(payload.to_owned()).send().await;
        let response = sent.map_err(|error| {
            HookFailure::PostFailed(match () {
                () if error.is_dns() => "host name not found",
                () if error.is_connect() => "could not connect",
                () => "request failed",
            })
        })?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(HookFailure::HttpStatus(status.as_u16())) }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretUrl(***)")
    }
}

/// A client for one request to `url`, which follows no redirects. For a plain `http` URL it trusts no certificates and uses no
/// proxy.
///
/// # Errors
///
/// If TLS cannot be set up, for example because the system has no certificates.
#[expect(clippy::result_unit_err, reason = "there is only one way to fail")]
pub fn post_client(url: &Url) -> Result<Client, ()> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(drop)?;
    let is_plain = url.scheme() == "http";
    // A plain URL points to this machine, and must work even if no certificates are installed.
    let builder = if is_plain {
        builder.with_root_certificates(RootCertStore::empty())
    } else {
        builder.with_platform_verifier().map_err(drop)?
    };
    let mut tls = builder.with_no_client_auth();
    tls.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false);
    let client = if is_plain { client.no_proxy() } else { client.https_only(true) };
    client.build().map_err(drop)
}
