//! `quota guard`: whether there is enough left to begin, as an exit code for scripts.
//! What is enough is decided in `judge`; when the provider is asked, by the rules, as everywhere.

mod judge;

use std::sync::Arc;
use std::time::Duration;

use quota::{Account, Answer, Clock, QuotaStore};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::judge::{Terms, Verdict, judge};
use crate::args::{GuardArgs, Unknown};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::gateway;
use crate::journal;
use crate::scope;
use crate::sharing::Sharing;
use crate::status::model::FailureView;
use crate::term::{self, harmless};
use crate::unnamed_model;
use crate::words::rfc3339;

/// While waiting it is looked again after this, whatever was heard: a window may have reset, a hold may be over. The
/// provider is asked no more often for that: only what is not fresh is asked for at all.
const LOOK: Duration = Duration::from_secs(15);

/// How long the provider is waited for in one look.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says whether to go on, and waits for that if it was asked to.
///
/// # Errors
///
/// [`Failure`] if the configuration, the account or the store cannot be used, or the answer cannot be written.
pub(crate) fn run(options: &GuardArgs, store: Option<&str>) -> Result<Exit, Failure> {
    let store = gateway::store(store)?;
    let config = Arc::new(Config::named_or_usual(options.config.as_deref())?);
    let settings = match &options.account {
        Some(name) => config.account(name)?,
        None => config.first()?,
    };
    if settings.disabled {
        let id = &settings.id;
        let why = format!("{id} is switched off; switch it on with: quota accounts enable {id}");
        return Err(Failure::new(Exit::Unavailable, why));
    }
    let terms = Terms {
        min_remaining: options.min_remaining,
        window: options.window.as_deref(),
        model: options.model.as_deref(),
    };
    scope::run(async |scope| {
        store.check().await?;
        let clock = Clock::system();
        // One that waits without end is no command that ends: its calls may take their time.
        let timeout = options.timeout.or((!options.wait).then_some(gateway::COMMAND_TIMEOUT));
        let manager = gateway::open(scope, &config, &store, "quota guard", timeout)?;
        let account = manager.account(&settings.id);
        let keeper = Keeper::start(&config, &store.store);
        let sharing = Sharing::on(&store);
        let advice = || settings.login.advice();
        let waited = wait(&account, &terms, options, &clock, &keeper, &sharing, &advice);
        let (answer, verdict) = match options.timeout {
            // What stands when the time is over is judged once more, without asking the provider.
            Some(most) => match clock.bounded(most, waited).await {
                Some(judged) => judged,
                None => judged(account.load().await, &terms),
            },
            None => waited.await,
        };
        let exit = exit_of(&verdict, options.unknown);
        unnamed_model::warn(terms.model, [(account.id(), answer.snapshot())]);
        tell(&answer, &account, &verdict, exit, options, &advice)?;
        sharing.tell([&answer]);
        // After the answer: nobody waits for what hooks do, but a script that goes on by the exit code.
        keeper.end().await;
        Ok(exit)
    })
}

/// Looks, and looks again for as long as it is to be waited.
async fn wait(
    account: &Account,
    terms: &Terms<'_>,
    options: &GuardArgs,
    clock: &Clock,
    keeper: &Keeper,
    sharing: &Sharing,
    advice: &dyn Fn() -> String,
) -> (Answer, Verdict) {
    let mut news = account.watch();
    let mut told = None;
    loop {
        let asked = async {
            let known = account.load().await;
            if known.is_stale_for(terms.model) && sharing.leaves_it_at(&known).await {
                return Some(known);
            }
            account.get_for(terms.model).await.ok()
        };
        // Whatever fails, the answer says what is known and how certain it is.
        let answer = clock.bounded(PATIENCE, asked).await.flatten().unwrap_or_else(|| account.peek());
        let (answer, verdict) = judged(answer, terms);
        if !options.wait || exit_of(&verdict, options.unknown) == Exit::Done {
            return (answer, verdict);
        }
        // Whoever waits for a number that cannot come is to know why.
        let cause = cause(&answer, advice).filter(|_| matches!(verdict, Verdict::Unknown { .. }));
        if let Some(cause) = cause.filter(|cause| told.as_ref() != Some(cause)) {
            term::tell(&format!("quota: {}: {cause}; waiting\n", account.id()));
            told = Some(cause);
        }
        drop(answer);
        keeper.look();
        let _ = clock.bounded(LOOK, news.next()).await;
    }
}

/// Writes down what happens meanwhile, and runs the hooks for it, in a task of its own: a slow hook holds up no waiting, and
/// the end of the waiting ends no hook.
struct Keeper {
    looks: mpsc::Sender<()>,
    task: JoinSet<()>,
}

impl Keeper {
    fn start(config: &Arc<Config>, store: &Arc<dyn QuotaStore>) -> Self {
        let (config, store) = (Arc::clone(config), Arc::clone(store));
        let (looks, mut asked) = mpsc::channel(1);
        let mut task = JoinSet::new();
        task.spawn(async move {
            while asked.recv().await.is_some() {
                journal::tell(&config, store.as_ref()).await;
            }
        });
        Self { looks, task }
    }

    /// Has it look; one look that has not begun yet is enough for all that ask.
    fn look(&self) {
        let _ = self.looks.try_send(());
    }

    /// Has it look once more, and waits for that.
    async fn end(mut self) {
        self.look();
        drop(self.looks);
        let _ = self.task.join_next().await;
    }
}

fn judged(answer: Answer, terms: &Terms<'_>) -> (Answer, Verdict) {
    let verdict = judge(answer.snapshot(), answer.now(), answer.fresh_for(), terms);
    (answer, verdict)
}

fn exit_of(verdict: &Verdict, unknown: Unknown) -> Exit {
    match (verdict, unknown) {
        (Verdict::Go { .. }, _) | (Verdict::Unknown { .. }, Unknown::Allow) => Exit::Done,
        (Verdict::Below { .. }, _) => Exit::Gaps,
        (Verdict::Unknown { .. }, Unknown::Deny) => Exit::Unavailable,
    }
}

fn tell(
    answer: &Answer,
    account: &Account,
    verdict: &Verdict,
    exit: Exit,
    options: &GuardArgs,
    advice: &dyn Fn() -> String,
) -> Result<(), Failure> {
    let (word, window, left) = match verdict {
        Verdict::Go { window, left } => ("go", Some(&**window), Some(*left)),
        Verdict::Below { window, left } => ("below", Some(&**window), Some(*left)),
        Verdict::Unknown { window, .. } => ("unknown", window.as_deref(), None),
    };
    if options.json {
        let document = Document {
            version: 1,
            now: rfc3339(answer.now()),
            account: account.id().as_str(),
            go: exit == Exit::Done,
            verdict: word,
            window,
            left_percent: left,
            min_remaining_percent: options.min_remaining,
        };
        let text = serde_json::to_string(&document).expect("it has only text keys");
        return term::answer(&(text + "\n"));
    }
    if exit != Exit::Done {
        let cause = cause(answer, advice).filter(|_| matches!(verdict, Verdict::Unknown { .. }));
        let cause = cause.map_or_else(String::new, |cause| cause + "; ");
        term::tell(&format!("quota: {}: {cause}{}\n", account.id(), harmless(&verdict.to_string())));
    }
    Ok(())
}

/// Why there is no newer number, and what to do about it.
fn cause(answer: &Answer, advice: &dyn Fn() -> String) -> Option<String> {
    let FailureView { why, advice } = FailureView::of(answer.error()?, advice);
    let advice = advice.map_or_else(String::new, |advice| format!("; {advice}"));
    Some(harmless(&format!("{why}{advice}")))
}

/// What `quota guard --json` writes; its fields are told in docs/guard-json.md.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    now: String,
    account: &'a str,
    go: bool,
    verdict: &'static str,
    window: Option<&'a str>,
    left_percent: Option<f64>,
    min_remaining_percent: f64,
}
