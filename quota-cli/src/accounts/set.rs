//! `quota accounts set`: other limits for an account that is there.
//! They are kept in the accounts file; those of a configuration are changed by whoever wrote it.

use quota::Percent;
use quota::accounts::{AccountLimits, Limits};

use super::{change, done, with};
use crate::args::{Limit, SetArgs};
use crate::config::{self, AccountSettings, Config, Origin};
use crate::exit::{Exit, Failure};
use crate::words;

/// Sets the limits that are named, and leaves the others as they are.
pub(super) fn run(options: &SetArgs) -> Result<Exit, Failure> {
    let (minimum, stop) = (options.min_remaining, options.killswitch);
    with(Config::named_or_usual(None)?, async |config| {
        let account = config.account(&options.name)?;
        check(&config, account, options)?;
        let named = [("minimum", minimum), ("killswitch", stop)];
        let named = named.into_iter().filter_map(|(what, limit)| Some((what, limit?)));
        let told: Vec<_> = named.map(|(what, limit)| told(account, what, limit)).collect();
        let id = account.id.clone();
        change(&config, move |accounts| {
            if let Some(account) = accounts.account_mut(&id) {
                put(&mut account.limits.minimum, minimum);
                put(&mut account.limits.stop, stop);
            }
        })
        .await?;
        done(&told)
    })
}

/// Whether what is to be set is a matter of the accounts file: of an account of the configuration that is only what it says
/// already, which then counts.
fn check(config: &Config, account: &AccountSettings, options: &SetArgs) -> Result<(), Failure> {
    let Origin::Configured { line } = account.origin else { return Ok(()) };
    let kept = config::kept()?;
    let none = AccountLimits::none();
    let own = kept.accounts().iter().find(|kept| kept.id == account.id).map_or(&none, |kept| &kept.limits);
    let is_hidden = |named: Option<Limit>, own: &Option<Limits>| named.is_none() || own.is_some();
    if is_hidden(options.min_remaining, &own.minimum) && is_hidden(options.killswitch, &own.stop) {
        return Ok(());
    }
    let id = &account.id;
    let why = format!(
        "{id} stands in {}, line {line}, and its limits are to be changed there: `min_remaining` and `killswitch`, in percent",
        config.told_path()
    );
    Err(Failure::new(Exit::Usage, why))
}

fn put(place: &mut Option<Limits>, named: Option<Limit>) {
    if let Some(Limit(share)) = named {
        *place = share.and_then(Percent::from_percent).map(Limits::of);
    }
}

fn told(account: &AccountSettings, what: &str, Limit(share): Limit) -> String {
    let now = match (share.and_then(Percent::from_percent), account.origin) {
        (Some(share), _) => words::percent(share),
        (None, Origin::Configured { .. }) => "that of the configuration".to_owned(),
        (None, _) => "that of [routing]".to_owned(),
    };
    format!("{}: {what} {now}", account.id)
}
