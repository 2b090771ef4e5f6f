//! Queries all accounts concurrently within a time limit, and reports the progress of a slow query.
//! The manager decides which accounts call their provider.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use quota::{Account, AccountUsage, Clock, Freshness};

use crate::call_limit;
use crate::config::{self, AccountSettings, Config};
use crate::context;
use crate::exit::CliError;
use crate::local_usage;
use crate::scope::CommandScope;
use crate::store::OpenedStore;
use crate::store_probe::{self, StoreProbe};
use crate::term::{self, Screen};
use crate::view::account::{AccountView, FailureView, why};

/// Which readings are new enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefreshMode {
    /// Readings within the policy's max age.
    IfStale,
    /// Readings up to this age.
    MaxAge(Duration),
    /// No reading: refresh if rate limits allow.
    Force,
    /// Any reading: make no calls.
    Offline,
}

/// The time limit for all accounts.
const TIMEOUT: Duration = context::COMMAND_TIMEOUT;
/// The time after which progress is shown.
const PROGRESS_DELAY: Duration = Duration::from_secs(1);

/// Shows the accounts that have finished so far.
pub(crate) type ShowProgress<'a> = &'a mut dyn FnMut(&[&AccountView]);

/// Returns every account with its usage, in the order of the configuration. Its calls are counted under `name`.
///
/// # Errors
///
/// [`CliError`] if the configuration cannot be used at all.
pub(crate) async fn query_all(
    scope: &CommandScope,
    config: &Config,
    store: &OpenedStore,
    name: &str,
    mode: RefreshMode,
    progress: Option<ShowProgress<'_>>,
) -> Result<Vec<AccountView>, CliError> {
    let clock = Clock::system();
    let manager = context::open_manager(scope, config, store, name, Some(TIMEOUT))?;
    let accounts: Vec<_> = config.accounts.iter().map(|one| (one, manager.account(&one.id))).collect();
    // The manager calls the providers in the order of the requests, which is the order of the configuration.
    let probe = StoreProbe::new(store);
    let queries = accounts.iter().map(|(settings, account)| view(settings, account, mode, &probe, &clock));
    let views = with_progress(queries.collect(), &clock, progress).await;
    probe.warn(&accounts.iter().map(|(_, account)| account.peek()).collect::<Vec<_>>());
    Ok(views)
}

async fn view(
    settings: &AccountSettings,
    account: &Account,
    mode: RefreshMode,
    probe: &StoreProbe,
    clock: &Clock,
) -> AccountView {
    let (mut not_refreshed, mut called_at) = (None, None);
    let mode = if settings.disabled { RefreshMode::Offline } else { mode };
    let query = async {
        if mode != RefreshMode::Offline {
            let cached = local_usage::sync(account, settings).await;
            // --refresh calls the provider even without a store that remembers the call.
            let is_forced = mode == RefreshMode::Force;
            if is_due(&cached, mode) && !is_forced && probe.should_skip_refresh(&cached).await {
                not_refreshed = Some(store_probe::skip_reason(&cached).to_owned());
                return Ok(cached);
            }
        }
        match mode {
            RefreshMode::IfStale => account.get().await,
            RefreshMode::MaxAge(age) => account.get_with_max_age(age).await,
            RefreshMode::Force => {
                let refreshed = call_limit::refresh(account).await;
                called_at = call_limit::recent_call(&refreshed);
                refreshed.map(|refreshed| {
                    not_refreshed = refreshed.error.as_ref().map(why);
                    refreshed.usage
                })
            }
            RefreshMode::Offline => Ok(local_usage::sync(account, settings).await),
        }
    };
    let (usage, failure) = match clock.bounded(TIMEOUT, query).await {
        Some(Ok(usage)) => {
            let is_unknown = !settings.disabled && usage.snapshot().windows().is_empty();
            let failure = match not_refreshed.take_if(|_| is_unknown && usage.is_record_damaged()) {
                Some(why) => {
                    let advice = format!("to replace it: {}", config::clear_hold(&settings.id));
                    Some(FailureView { why, advice: Some(advice) })
                }
                None => (is_unknown && mode == RefreshMode::Offline).then(FailureView::no_data),
            };
            (usage, failure)
        }
        None => {
            let why = format!("no response within {} s", TIMEOUT.as_secs());
            (account.peek(), Some(FailureView { why, advice: None }))
        }
        Some(Err(error)) => (account.peek(), Some(FailureView::of(&error, || settings.login.hint()))),
    };
    let view = AccountView::of(&settings.id, &usage, failure);
    let not_refreshed = not_refreshed.or(view.not_refreshed);
    AccountView { not_refreshed, called_at, disabled: settings.disabled, ..view }
}

/// Whether the cached readings are too old for `mode`.
fn is_due(cached: &AccountUsage, mode: RefreshMode) -> bool {
    match mode {
        RefreshMode::IfStale => cached.freshness() != Freshness::Fresh,
        RefreshMode::MaxAge(max) => cached.age().is_none_or(|age| age > max),
        RefreshMode::Force => true,
        RefreshMode::Offline => false,
    }
}

/// Runs all queries concurrently. After [`PROGRESS_DELAY`], shows the finished accounts and their number.
async fn with_progress<F: Future<Output = AccountView>>(
    work: Vec<F>,
    clock: &Clock,
    mut show: Option<ShowProgress<'_>>,
) -> Vec<AccountView> {
    let mut work: Vec<_> = work.into_iter().map(|one| (Box::pin(one), None)).collect();
    let mut delay = pin!(clock.sleep(PROGRESS_DELAY));
    let mut progress = Progress { of: work.len(), shown: None };
    let mut is_delayed = false;
    poll_fn(|context| {
        for (one, view) in work.iter_mut().filter(|(_, view)| view.is_none()) {
            if let Poll::Ready(done) = one.as_mut().poll(context) {
                *view = Some(done);
            }
        }
        let done: Vec<_> = work.iter().filter_map(|(_, view)| view.as_ref()).collect();
        if done.len() == work.len() {
            return Poll::Ready(());
        }
        // A future that completed must not be polled again.
        is_delayed = is_delayed || delay.as_mut().poll(context).is_ready();
        if is_delayed && progress.has_changed(done.len()) {
            progress.clear();
            if let Some(show) = &mut show {
                show(&done);
            }
            progress.show(done.len());
        }
        Poll::Pending
    })
    .await;
    drop(progress);
    work.into_iter().filter_map(|(_, view)| view).collect()
}

/// A progress line on standard error, if that is a terminal. It is cleared when this is dropped.
struct Progress {
    of: usize,
    shown: Option<usize>,
}

impl Progress {
    fn has_changed(&self, done: usize) -> bool {
        self.shown != Some(done)
    }

    fn show(&mut self, done: usize) {
        self.shown = Some(done);
        if Screen::stderr().is_tty {
            term::eprint(&format!("{}refreshing: {done} of {} accounts done", term::CLEAR_LINE, self.of));
        }
    }

    fn clear(&self) {
        if self.shown.is_some() && Screen::stderr().is_tty {
            term::eprint(term::CLEAR_LINE);
        }
    }
}

impl Drop for Progress {
    /// Clears the line on every exit path.
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use quota_sim::{Account as SimAccount, Answer, Phase, Script, Simulator};

    use super::*;
    use crate::config::LoginSource;

    #[tokio::test(start_paused = true)]
    async fn a_hanging_provider_ends_the_query_after_30_s() {
        let hangs = SimAccount::new("main").answers([Phase::new(Answer::Hang)]);
        let simulator = Simulator::builder(Script::new([hangs])).start().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, "sim-token-main").unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut config = Config::default_account();
        config.policy = config.policy.fetch_timeout(TIMEOUT * 2);
        config.accounts[0].login = LoginSource::TokenFile(token);
        config.accounts[0].base_url = Some(simulator.url());

        let store = crate::store::open(Some("memory:")).unwrap();
        let scope = CommandScope::default();
        let views = query_all(&scope, &config, &store, "test", RefreshMode::IfStale, None).await.unwrap();

        let why = views[0].failure.as_ref().map(|failure| &*failure.why);
        assert_eq!(why, Some("no response within 30 s"));
    }
}
