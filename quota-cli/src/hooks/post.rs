//! Posts a note as JSON. The address is never shown, and no redirect is followed: it would carry the note elsewhere.

use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use reqwest::{Client, redirect, retry};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use url::Url;

use super::Note;

const WHO: &str = concat!("quota/", env!("CARGO_PKG_VERSION"), " (hook)");

/// Posts it once.
///
/// # Errors
///
/// What became of it, in words that follow the hook's name.
pub(super) async fn note(url: &Url, note: &Note<'_>) -> Result<(), String> {
    let client = client(url).map_err(|()| "could not set up TLS".to_owned())?;
    let request = client.post(url.clone()).header(USER_AGENT, WHO).header(CONTENT_TYPE, "application/json");
    let sent = request.body(note.json()).send().await;
    let answer = sent.map_err(|error| match () {
        () if error.is_dns() => "could not be posted: its host name was not found".to_owned(),
        () if error.is_connect() => "could not be posted: could not connect".to_owned(),
        () => "could not be posted: the request failed".to_owned(),
    })?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(format!("was answered with {}", status.as_u16())) }
}

/// A client that follows nobody, and sends in the clear only to this machine.
pub(crate) fn client(url: &Url) -> Result<Client, ()> {
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
