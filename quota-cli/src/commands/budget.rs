//! `quota budget`: the calls of the trailing hour, their callers, and when the next call is allowed.
//! It applies the record's own rules to a copy of the record, and makes no provider calls.

mod json;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use quota::clock::is_from_future;
use quota::record::{CallRecord, Hold, Priority, Record, provider_cooldown};
use quota::{AccountId, Policy};

use crate::cli::{BudgetArgs, GlobalOptions};
use crate::exit::{CliError, Exit};
use crate::format::{LocalTime, between};
use crate::read_context::{ReadContext, unavailable};
use crate::scope;
use crate::term::{self, Screen};

const HOUR: Duration = Duration::from_secs(3600);

/// The calls of one account, and when the next call is allowed.
#[derive(Debug, Clone, PartialEq)]
struct CallBudget {
    account: AccountId,
    calls: usize,
    allowed: u32,
    reserve: u32,
    /// Sorted by the number of calls, in descending order.
    callers: Vec<Caller>,
    /// The hold for interactive calls; `None` if a call is allowed now.
    next: Option<Hold>,
    /// The hold for background calls.
    next_in_background: Option<Hold>,
}

/// A process that made calls.
#[derive(Debug, Clone, PartialEq)]
struct Caller {
    /// The name of the process; empty if it has none.
    name: String,
    calls: usize,
    last: Timestamp,
}

/// Shows the calls of every account.
///
/// # Errors
///
/// [`CliError`] if the configuration or the store cannot be used, or the output cannot be written.
pub(crate) fn run(options: &BudgetArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        // A signal ends the command with its exit code.
        scope.listen()?;
        let Some(shared) = ReadContext::open(&options.accounts, global).await? else {
            return Ok(Exit::NoAccount);
        };
        let mut local = LocalTime::now();
        let (mut all, mut updates) = (Vec::new(), Vec::new());
        for account in &shared.config.accounts {
            let update = shared.load(&account.id).await?;
            let policy = shared.config.policy_of(account.id.provider());
            let cooldown = provider_cooldown(&*shared.store, account.id.provider(), &policy, update.now);
            let cooldown = cooldown.await.map_err(|error| unavailable(&error))?;
            // The record uses the store's clock.
            local.now = update.now;
            // A damaged record has no calls to show.
            if !update.damage.record {
                all.push(CallBudget::of(&account.id, &update.record, cooldown.as_ref(), update.now, &policy));
            }
            updates.push(update);
        }
        let output = if global.json {
            json::render(&all, &local)
        } else {
            let screen = Screen::stdout();
            screen.show(&text::lines(&all, &local, screen.width))
        };
        term::print(&output)?;
        shared.print_hook_failures().await;
        let is_any_damaged = updates.iter().any(|update| update.damage.record);
        Ok(if is_any_damaged { Exit::Incomplete } else { Exit::Success })
    })
}

impl CallBudget {
    fn of(
        account: &AccountId,
        record: &Record,
        cooldown: Option<&Hold>,
        now: Timestamp,
        policy: &Policy,
    ) -> Self {
        let is_recent = |call: &&CallRecord| !is_from_future(call.at, now) && between(call.at, now) < HOUR;
        let recent = record.calls().iter().filter(is_recent);
        let mut callers = BTreeMap::<&str, (usize, Timestamp)>::new();
        let mut calls = 0;
        for attempt in recent {
            let (count, last) = callers.entry(&attempt.by).or_insert((0, attempt.at));
            (*count, *last) = (*count + 1, attempt.at.max(*last));
            calls += 1;
        }
        let caller = |(name, (calls, last)): (&str, _)| Caller { name: name.to_owned(), calls, last };
        let mut callers: Vec<_> = callers.into_iter().map(caller).collect();
        callers.sort_by_key(|caller| std::cmp::Reverse(caller.calls));
        Self {
            account: account.clone(),
            calls,
            allowed: policy.budget.per_hour,
            reserve: policy.budget.interactive_reserve,
            callers,
            next: record.hold_for(Priority::Interactive, cooldown, now, policy),
            next_in_background: record.hold_for(Priority::Background, cooldown, now, policy),
        }
    }

    fn left(&self) -> usize {
        (self.allowed as usize).saturating_sub(self.calls)
    }
}

#[cfg(test)]
mod tests;
