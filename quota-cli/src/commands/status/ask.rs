//! Asks about all accounts at once, for no longer than a person waits, and says so if it takes a while.
//! What is asked and how often is the manager's business.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use quota::{Account, AccountUsage, Clock, Freshness};

use super::live::Live;
use crate::call_limit;
use crate::config::{self, AccountSettings, Config};
use crate::context;
use crate::exit::CliError;
use crate::scope::CommandScope;
use crate::store::OpenedStore;
use crate::store_probe::{self, StoreProbe};
use crate::term::{self, Screen};
use crate::view::account::{AccountView, FailureView, why};

/// How new the numbers are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// As new as the policy says.
    Fresh,
    /// No older than this.
    Within(Duration),
    /// Asked for now, if the rules allow.
    Now,
    /// What is known, without asking anybody.
    Known,
}

/// How long all of it may take.
const TIMEOUT: Duration = context::COMMAND_TIMEOUT;
/// How long nobody wonders what is going on.
const UNNOTICED: Duration = Duration::from_secs(1);

/// What is known of every account, in the order of the configuration.
///
/// # Errors
///
/// [`CliError`] if the configuration cannot be used at all.
pub(super) async fn about(
    scope: &CommandScope,
    config: &Config,
    store: &OpenedStore,
    wish: Wish,
    live: Option<&mut Live>,
) -> Result<Vec<AccountView>, CliError> {
    let clock = Clock::system();
    let manager = context::open_manager(scope, config, store, "quota status", Some(TIMEOUT))?;
    let accounts: Vec<_> = config.accounts.iter().map(|one| (one, manager.account(&one.id))).collect();
    // By themselves they are asked in the order in which they are first looked at, which is that of the configuration.
    let probe = StoreProbe::new(store);
    let asked = accounts.iter().map(|(settings, account)| view(settings, account, wish, &probe, &clock));
    let views = with_progress(asked.collect(), &clock, live).await;
    probe.warn(&accounts.iter().map(|(_, account)| account.peek()).collect::<Vec<_>>());
    Ok(views)
}

async fn view(
    settings: &AccountSettings,
    account: &Account,
    wish: Wish,
    probe: &StoreProbe,
    clock: &Clock,
) -> AccountView {
    let (mut not_refreshed, mut called_at) = (None, None);
    let wish = if settings.disabled { Wish::Known } else { wish };
    let asked = async {
        if wish != Wish::Known {
            let known = account.sync().await;
            // A person who asks for a refresh gets one, whatever the record is.
            let insists = wish == Wish::Now && known.is_record_damaged();
            if is_due(&known, wish) && !insists && probe.should_skip_refresh(&known).await {
                not_refreshed = Some(store_probe::skip_reason(&known).to_owned());
                return Ok(known);
            }
        }
        match wish {
            Wish::Fresh => account.get().await,
            Wish::Within(age) => account.get_with_max_age(age).await,
            Wish::Now => {
                let refreshed = call_limit::refresh(account).await;
                called_at = call_limit::recent_call(&refreshed);
                refreshed.map(|refreshed| {
                    not_refreshed = refreshed.error.as_ref().map(why);
                    refreshed.answer
                })
            }
            Wish::Known => Ok(account.sync().await),
        }
    };
    let (answer, failure) = match clock.bounded(TIMEOUT, asked).await {
        Some(Ok(answer)) => {
            let is_unknown = !settings.disabled && answer.snapshot().windows().is_empty();
            let failure = match not_refreshed.take_if(|_| is_unknown && answer.is_record_damaged()) {
                Some(why) => {
                    let advice = format!("to replace it: {}", config::clear_hold(&settings.id));
                    Some(FailureView { why, advice: Some(advice) })
                }
                None => (is_unknown && wish == Wish::Known).then(FailureView::of_nothing_known),
            };
            (answer, failure)
        }
        None => {
            let why = format!("no answer within {} s", TIMEOUT.as_secs());
            (account.peek(), Some(FailureView { why, advice: None }))
        }
        Some(Err(error)) => (account.peek(), Some(FailureView::of(&error, || settings.login.advice()))),
    };
    let view = AccountView::of(&settings.id, &answer, failure);
    let not_refreshed = not_refreshed.or(view.not_refreshed);
    AccountView { not_refreshed, called_at, switched_off: settings.disabled, ..view }
}

/// Whether what is known is not what is wished for.
fn is_due(known: &AccountUsage, wish: Wish) -> bool {
    match wish {
        Wish::Fresh => known.freshness() != Freshness::Fresh,
        Wish::Within(age) => known.age().is_none_or(|known| known > age),
        Wish::Now => true,
        Wish::Known => false,
    }
}

/// Runs all of them at once. If that takes a while, it shows those that are there, and how many.
async fn with_progress<F: Future<Output = AccountView>>(
    work: Vec<F>,
    clock: &Clock,
    mut live: Option<&mut Live>,
) -> Vec<AccountView> {
    let mut work: Vec<_> = work.into_iter().map(|one| (Box::pin(one), None)).collect();
    let mut noticed = pin!(clock.sleep(UNNOTICED));
    let mut progress = Progress { of: work.len(), shown: None };
    let mut is_noticed = false;
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
        // A future that was ready must not be polled again.
        is_noticed = is_noticed || noticed.as_mut().poll(context).is_ready();
        if is_noticed && progress.is_news(done.len()) {
            progress.clear();
            if let Some(live) = &mut live {
                live.show(&done);
            }
            progress.show(done.len());
        }
        Poll::Pending
    })
    .await;
    drop(progress);
    work.into_iter().filter_map(|(_, view)| view).collect()
}

/// A line on a terminal's standard error that is written over, and gone in the end.
struct Progress {
    of: usize,
    shown: Option<usize>,
}

impl Progress {
    fn is_news(&self, done: usize) -> bool {
        self.shown != Some(done)
    }

    fn show(&mut self, done: usize) {
        self.shown = Some(done);
        if Screen::stderr().is_tty {
            term::eprint(&format!(
                "{}asking: {done} of {} accounts have answered",
                term::CLEAR_LINE,
                self.of
            ));
        }
    }

    fn clear(&self) {
        if self.shown.is_some() && Screen::stderr().is_tty {
            term::eprint(term::CLEAR_LINE);
        }
    }
}

impl Drop for Progress {
    /// However the command ends, the shell's line is its own.
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
    async fn nobody_is_kept_waiting_for_longer_than_half_a_minute() {
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
        let views = about(&CommandScope::default(), &config, &store, Wish::Fresh, None).await.unwrap();

        let why = views[0].failure.as_ref().map(|failure| &*failure.why);
        assert_eq!(why, Some("no answer within 30 s"));
    }
}
