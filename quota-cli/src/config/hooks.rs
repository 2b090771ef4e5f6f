//! Validates the values of a hook.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use quota::{AccountId, Percent};
use url::{Host, Url};

use super::error::{ConfigError, nearest};
use super::file::{EVENT_KINDS as KINDS, HookTable};
use super::spanned::Spanned;
use quota_journal::{Action, Hook, SecretUrl};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum timeout of a hook.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn hook(
    written: Spanned<HookTable>,
    accounts: &BTreeSet<&AccountId>,
    directory: &Path,
) -> Result<Hook, ConfigError> {
    let whole = written.span();
    let written = written.into_inner();
    if written.on.is_empty() {
        return Err(ConfigError::at(
            whole,
            format!("`on` is empty (expected one or more of: {})", KINDS.join(", ")),
        ));
    }
    let on = written.on.into_iter().map(kind).collect::<Result<Vec<_>, _>>()?;
    for account in &written.accounts {
        known(account, accounts)?;
    }
    if let Some(first) = written.thresholds.first()
        && !on.contains(&"threshold")
    {
        let why = "`thresholds` needs \"threshold\" in `on`; add it there, or remove `thresholds`";
        return Err(ConfigError::at(first.span(), why));
    }
    let thresholds = written.thresholds.into_iter().map(threshold).collect::<Result<Vec<_>, _>>()?;
    let action = match (written.run, written.post) {
        (Some(run), None) => command(run, directory)?,
        (None, Some(post)) => address(&post)?,
        (Some(_), Some(post)) => {
            return Err(ConfigError::at(
                post.span(),
                "a hook has either `run` or `post`; remove one, or write two hooks",
            ));
        }
        (None, None) => {
            let why = "the hook has no action; add run = [\"program\", \"argument\"] or post = \"https://…\"";
            return Err(ConfigError::at(whole, why));
        }
    };
    Ok(Hook {
        on,
        accounts: written.accounts.into_iter().map(Spanned::into_inner).collect(),
        windows: written.windows,
        thresholds,
        action,
        timeout: written.timeout.map_or(Ok(DEFAULT_TIMEOUT), |text| timeout(&text))?,
    })
}

fn kind(word: Spanned<String>) -> Result<&'static str, ConfigError> {
    let name = word.get_ref();
    if let Some(kind) = KINDS.into_iter().find(|kind| kind == name) {
        return Ok(kind);
    }
    let hint = match nearest(name, KINDS) {
        Some(nearest) => format!("; did you mean \"{nearest}\"?"),
        None => format!(" (expected one of: {})", KINDS.join(", ")),
    };
    Err(ConfigError::at(word.span(), format!("unknown event{hint}")))
}

fn known(account: &Spanned<AccountId>, accounts: &BTreeSet<&AccountId>) -> Result<(), ConfigError> {
    let id = account.get_ref();
    if accounts.contains(id) {
        return Ok(());
    }
    let hint = match nearest(id.as_str(), accounts.iter().map(|known| known.as_str())) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => "use one of [[accounts]]".to_owned(),
    };
    Err(ConfigError::at(account.span(), format!("unknown account {id}; {hint}")))
}

fn threshold(percent: Spanned<f64>) -> Result<u32, ConfigError> {
    let value = *percent.get_ref();
    let basis_points = Percent::from_percent(value).map(Percent::basis_points);
    basis_points.filter(|basis_points| (1..=100_000).contains(basis_points)).ok_or_else(|| {
        ConfigError::at(percent.span(), "a threshold must be a percentage above 0, such as 80")
    })
}

fn command(run: Spanned<Vec<String>>, directory: &Path) -> Result<Action, ConfigError> {
    let span = run.span();
    let mut words = run.into_inner().into_iter();
    let Some(program) = words.next().filter(|program| !program.is_empty()) else {
        return Err(ConfigError::at(
            span,
            "the program is missing; write it like run = [\"notify-send\", \"quota\"]",
        ));
    };
    // A name without a slash is looked up in PATH. A path is relative to the configuration.
    let program = if program.contains('/') { directory.join(program) } else { program.into() };
    Ok(Action::Run { program, arguments: words.collect() })
}

fn address(post: &Spanned<String>) -> Result<Action, ConfigError> {
    // The error does not repeat the URL, because it is a secret.
    let url = Url::parse(post.get_ref()).map_err(|error| {
        ConfigError::at(post.span(), format!("not a URL ({error}); write it like \"https://…\""))
    })?;
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && is_local) {
        let why = "must begin with https:// (http:// is allowed only for 127.0.0.1, [::1] and localhost)";
        return Err(ConfigError::at(post.span(), why));
    }
    Ok(Action::Post(SecretUrl::new(url)))
}

fn timeout(text: &Spanned<String>) -> Result<Duration, ConfigError> {
    let duration = text
        .get_ref()
        .parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok());
    duration.filter(|duration| !duration.is_zero() && *duration <= MAX_TIMEOUT).ok_or_else(|| {
        ConfigError::at(
            text.span(),
            "a timeout must be a duration of at most one minute; write it like \"10s\"",
        )
    })
}
