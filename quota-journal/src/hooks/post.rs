//! Posts a note as JSON. The address is never shown, and no redirect is followed: it would carry the note elsewhere.

use std::fmt;
use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use reqwest::{Client, redirect, retry};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use url::Url;

use super::Note;
use super::failure::HookFailure;

const WHO: &str = concat!("quota/", env!("CARGO_PKG_VERSION"), " (hook)");

/// Where notes go. Anyone who has such an address may write to it, so it is never shown.
#[derive(Clone, PartialEq)]
pub struct Address(Url);

impl Address {
    /// An address that is posted to. Over plain `http` it should be one of this machine.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self(url)
    }

    /// Posts a note once.
    ///
    /// # Errors
    ///
    /// [`HookFailure::NotPosted`] and [`HookFailure::Answered`].
    pub(super) async fn post(&self, note: &Note<'_>) -> Result<(), HookFailure> {
        let Self(url) = self;
        let client = post_client(url).map_err(|()| HookFailure::NotPosted("could not set up TLS"))?;
        let request =
            client.post(url.clone()).header(USER_AGENT, WHO).header(CONTENT_TYPE, "application/json");
        let sent = request.body(note.json()).send().await;
        let answer = sent.map_err(|error| {
            HookFailure::NotPosted(match () {
                () if error.is_dns() => "its host name was not found",
                () if error.is_connect() => "could not connect",
                () => "the request failed",
            })
        })?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(HookFailure::Answered(status.as_u16())) }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(***)")
    }
}

/// A client for one request to `url` that follows no redirect. Where the URL is plain `http` it trusts no certificate and uses no
/// proxy.
///
/// # Errors
///
/// Fails if TLS cannot be set up, as where the system has no certificates.
#[expect(clippy::result_unit_err, reason = "there is one way to fail")]
pub fn post_client(url: &Url) -> Result<Client, ()> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(drop)?;
    let is_plain = url.scheme() == "http";
    // In the clear it goes to this machine only, which works where there are no certificates at all.
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
