//! The environment of the command: its proxy, and the certificates that its runtime trusts. Pure functions of the current variables.

use std::ffi::OsString;
use std::path::PathBuf;

use quota::Secret;
use quota_server::UserProxy;

use crate::exit::{CliError, Exit};

/// The variables with the proxy, in the order in which they are used.
const PROXY: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The certificates that a program trusts without `quota wrap`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trusted {
    /// None: the variable only adds to the runtime's own certificates.
    #[default]
    Nothing,
    /// The system's certificates.
    System,
    /// Those in the file or folder that this variable names.
    Named(&'static str, PathBuf),
}

/// The proxy through which the command would connect without `quota wrap`.
///
/// # Errors
///
/// [`CliError`] if it is not an HTTP proxy. The error repeats only the scheme, because the URL may contain a password.
pub(super) fn user_proxy(variable: impl Fn(&str) -> Option<OsString>) -> Result<UserProxy, CliError> {
    let text = |name: &str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        Some((name.to_owned(), value.to_string_lossy().trim().to_owned()))
    };
    let no_proxy = NO_PROXY.into_iter().find_map(text).map(|(_, value)| value).unwrap_or_default();
    let Some((name, url)) = PROXY.into_iter().find_map(text) else {
        return Ok(UserProxy { url: None, no_proxy });
    };
    let unusable = |why: &str| {
        let text = format!(
            "could not connect through the proxy of {name}: {why}; use an http:// proxy, or unset {name}"
        );
        Err(CliError::new(Exit::Config, text))
    };
    match url.split_once("://") {
        Some((scheme, _)) if !scheme.eq_ignore_ascii_case("http") => {
            let is_scheme = scheme.len() < 16 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
            unusable(&if is_scheme {
                format!("its scheme is {scheme}")
            } else {
                "it is not a URL".to_owned()
            })
        }
        Some(_) => Ok(UserProxy { url: Some(Secret::new(url)), no_proxy }),
        None => Ok(UserProxy { url: Some(Secret::new(format!("http://{url}"))), no_proxy }),
    }
}

/// The variables that route the requests of the command through the proxy.
pub(super) fn proxy<'a>(
    url: &Secret,
    hosts: impl Iterator<Item = &'a str> + Clone,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<(&'static str, Secret)> {
    // Set both names, because programs read one of them.
    let mut changes = vec![("HTTPS_PROXY", url.clone()), ("https_proxy", url.clone())];
    for name in NO_PROXY {
        if let Some(exceptions) = variable(name) {
            let kept = UserProxy::exceptions_without(&exceptions.to_string_lossy(), hosts.clone());
            changes.push((name, Secret::new(kept)));
        }
    }
    changes.push(("NODE_USE_ENV_PROXY", Secret::new("1")));
    changes
}

/// The certificate variables, each with the certificates that programs currently trust through it.
pub(super) fn trusted(variable: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, Trusted)> {
    let first = |names: &[&'static str], otherwise: Trusted| {
        let mut values = names.iter().filter_map(|name| {
            Some(Trusted::Named(name, variable(name).filter(|value| !value.is_empty())?.into()))
        });
        values.next().unwrap_or(otherwise)
    };
    let mut changes = vec![
        ("NODE_EXTRA_CA_CERTS", first(&["NODE_EXTRA_CA_CERTS"], Trusted::Nothing)),
        ("DENO_CERT", first(&["DENO_CERT"], Trusted::Nothing)),
        // OpenSSL and its users, Go, and rustls.
        ("SSL_CERT_FILE", first(&["SSL_CERT_FILE"], Trusted::System)),
        ("CURL_CA_BUNDLE", first(&["CURL_CA_BUNDLE", "SSL_CERT_FILE"], Trusted::System)),
        ("REQUESTS_CA_BUNDLE", first(&["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"], Trusted::System)),
    ];
    // Nix's OpenSSL reads this one first.
    if let named @ Trusted::Named(..) = first(&["NIX_SSL_CERT_FILE"], Trusted::Nothing) {
        changes.push(("NIX_SSL_CERT_FILE", named));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<OsString> + Copy {
        move |name| variables.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).into())
    }

    fn url_of(variables: &'static [(&'static str, &'static str)]) -> Result<Option<String>, String> {
        let proxy = user_proxy(of(variables)).map_err(|error| error.to_string())?;
        Ok(proxy.url.map(|url| url.expose().to_owned()))
    }

    #[test]
    fn the_proxy_of_the_user_is_kept() {
        assert_eq!(url_of(&[]), Ok(None));
        assert_eq!(url_of(&[("HTTPS_PROXY", "")]), Ok(None));
        assert_eq!(url_of(&[("HTTPS_PROXY", "http://a:b@proxy:1")]), Ok(Some("http://a:b@proxy:1".into())));
        assert_eq!(url_of(&[("ALL_PROXY", "proxy:3128")]), Ok(Some("http://proxy:3128".into())));
        assert_eq!(
            url_of(&[("ALL_PROXY", "socks5://a"), ("https_proxy", "http://b")]),
            Ok(Some("http://b".into()))
        );
    }

    #[test]
    fn a_proxy_that_is_not_http_is_refused_without_its_password() {
        for url in [&[("HTTPS_PROXY", "socks5://user:secret@a")], &[("HTTPS_PROXY", "user:secret://b")]] {
            let error = url_of(url).unwrap_err();

            assert!(error.contains("HTTPS_PROXY") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn exceptions_for_other_hosts_stay() {
        let variables = of(&[("NO_PROXY", "localhost,.anthropic.com")]);
        let changes = proxy(&Secret::new("http://p"), ["api.anthropic.com"].into_iter(), variables);
        let text: Vec<_> = changes.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect();

        let wanted =
            ["HTTPS_PROXY=http://p", "https_proxy=http://p", "NO_PROXY=localhost", "NODE_USE_ENV_PROXY=1"];
        assert_eq!(text, wanted);
    }

    #[test]
    fn each_variable_keeps_what_its_readers_trust() {
        let of_name = |variables, name| {
            trusted(of(variables)).into_iter().find(|(one, _)| *one == name).map(|(_, trusted)| trusted)
        };
        let named = |name, path: &str| Some(Trusted::Named(name, path.into()));
        let both = &[("SSL_CERT_FILE", "/a"), ("CURL_CA_BUNDLE", "/b")];

        assert_eq!(of_name(&[], "NODE_EXTRA_CA_CERTS"), Some(Trusted::Nothing));
        assert_eq!(of_name(&[], "SSL_CERT_FILE"), Some(Trusted::System));
        assert_eq!(of_name(&[], "NIX_SSL_CERT_FILE"), None);
        assert_eq!(of_name(both, "SSL_CERT_FILE"), named("SSL_CERT_FILE", "/a"));
        assert_eq!(of_name(both, "REQUESTS_CA_BUNDLE"), named("CURL_CA_BUNDLE", "/b"));
        assert_eq!(of_name(&both[..1], "CURL_CA_BUNDLE"), named("SSL_CERT_FILE", "/a"));
        assert_eq!(of_name(&both[..1], "REQUESTS_CA_BUNDLE"), Some(Trusted::System));
    }
}
