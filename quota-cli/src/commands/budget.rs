//! `quota budget`: the calls of the trailing hour, who made them, and when the next is allowed.
//! Whether one is allowed is the record's own rule, asked on a copy; nobody is called.

mod json;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use quota::{AccountId, Hold, Policy, Priority, Record, provider_cooldown};

use crate::cli::{BudgetArgs, GlobalOptions};
use crate::exit::{CliError, Exit};
use crate::format::{LocalTime, between};
use crate::read_context::{ReadContext, unavailable};
use crate::scope;
use crate::term::{self, Screen};

const HOUR: Duration = Duration::from_secs(3600);

/// What is shown of an account.
#[derive(Debug, Clone, PartialEq)]
struct Spent {
    account: AccountId,
    made: usize,
    allowed: u32,
    reserve: u32,
    /// Most calls first.
    callers: Vec<Caller>,
    /// When somebody who waits may call; `None` for at once.
    next: Option<Hold>,
    /// The same for calls that nobody waits for.
    next_in_background: Option<Hold>,
}

/// Who made calls.
#[derive(Debug, Clone, PartialEq)]
struct Caller {
    /// In its own words; empty if it did not say.
    by: String,
    made: usize,
    last: Timestamp,
}

/// Shows the calls of every account.
///
/// # Errors
///
/// [`CliError`] if configuration or store cannot be used, or the answer cannot be written.
pub(crate) fn run(options: &BudgetArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        // Hooks may run.
        scope.listen()?;
        let Some(shared) = ReadContext::open(&options.accounts, global).await? else {
            return Ok(Exit::NoAccount);
        };
        let policy = &shared.config.policy;
        let mut local = LocalTime::now();
        let (mut all, mut looks) = (Vec::new(), Vec::new());
        for account in &shared.config.accounts {
            let looked = shared.load(&account.id).await?;
            let quiet = provider_cooldown(&*shared.store, account.id.provider(), policy, looked.now);
            let quiet = quiet.await.map_err(|error| unavailable(&error))?;
            // The store's clock is the one by which calls are counted.
            local.now = looked.now;
            // Without its record nothing is known of its calls.
            if !looked.damage.record {
                all.push(Spent::of(&account.id, &looked.record, quiet.as_ref(), looked.now, policy));
            }
            looks.push(looked);
        }
        let shown = if global.json {
            json::render(&all, &local)
        } else {
            text::render(&all, &local, Screen::stdout())
        };
        term::print(&shown)?;
        shared.run_all_hooks(&looks).await;
        let is_whole = looks.iter().all(|looked| !looked.damage.record);
        Ok(if is_whole { Exit::Success } else { Exit::Incomplete })
    })
}

impl Spent {
    fn of(
        account: &AccountId,
        record: &Record,
        quiet: Option<&Hold>,
        now: Timestamp,
        policy: &Policy,
    ) -> Self {
        let recent = record.calls().iter().filter(|attempt| between(attempt.at, now) < HOUR);
        let mut callers = BTreeMap::<&str, (usize, Timestamp)>::new();
        let mut made = 0;
        for attempt in recent {
            let (count, last) = callers.entry(&attempt.by).or_insert((0, attempt.at));
            (*count, *last) = (*count + 1, attempt.at.max(*last));
            made += 1;
        }
        let caller = |(by, (made, last)): (&str, _)| Caller { by: by.to_owned(), made, last };
        let mut callers: Vec<_> = callers.into_iter().map(caller).collect();
        callers.sort_by_key(|caller| std::cmp::Reverse(caller.made));
        Self {
            account: account.clone(),
            made,
            allowed: policy.budget.per_hour,
            reserve: policy.budget.interactive_reserve,
            callers,
            next: record.hold_for(Priority::Interactive, quiet, now, policy),
            next_in_background: record.hold_for(Priority::Background, quiet, now, policy),
        }
    }

    fn left(&self) -> usize {
        (self.allowed as usize).saturating_sub(self.made)
    }
}

#[cfg(test)]
mod tests;
