//! Warns about a model that no window names. It may be a typo that would otherwise go unnoticed. quota-core decides which windows
//! apply to a model.

use std::collections::BTreeSet;

use quota::{AccountId, Snapshot};

use crate::sanitize::sanitize;
use crate::term;

/// Warns on standard error if no window in the complete reports of these accounts names the model.
pub(crate) fn warn<'a>(
    model: Option<&str>,
    accounts: impl IntoIterator<Item = (&'a AccountId, &'a Snapshot)>,
) {
    if let Some(line) = model.and_then(|model| warning(model, accounts)) {
        term::eprint(&format!("quota: {line}\n"));
    }
}

fn warning<'a>(
    model: &str,
    accounts: impl IntoIterator<Item = (&'a AccountId, &'a Snapshot)>,
) -> Option<String> {
    // Response headers have no windows of models, so only a complete report has them.
    let accounts: Vec<_> =
        accounts.into_iter().filter(|(_, snapshot)| snapshot.complete_at().is_some()).collect();
    let of_models = |snapshot: &'a Snapshot| {
        snapshot.windows().iter().filter(|window| window.scope().is_some_and(|scope| scope.model.is_some()))
    };
    let unreadable = |snapshot: &'a Snapshot| snapshot.unreadable().filter(|id| id.part().is_some());
    let is_named = accounts.iter().any(|(_, snapshot)| {
        of_models(snapshot).any(|window| window.applies_to(Some(model)))
            || unreadable(snapshot).any(|id| id.applies_to(Some(model)))
    });
    let scope = match &accounts[..] {
        _ if is_named => return None,
        [] => return None,
        [(id, _)] => id.to_string(),
        _ => "any account".to_owned(),
    };
    let read = accounts.iter().flat_map(|(_, snapshot)| of_models(snapshot).map(|window| window.id()));
    let ids = read.chain(accounts.iter().flat_map(|(_, snapshot)| unreadable(snapshot)));
    let known: BTreeSet<_> = ids.map(|id| id.part().unwrap_or(id.as_str())).collect();
    let known = if known.is_empty() { "none".to_owned() } else { Vec::from_iter(known).join(", ") };
    Some(sanitize(&format!("no window of {scope} names model {model:?} (known: {known})")))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use quota::model::Scope;
    use quota::{Percent, UsageReport, WindowId, WindowReading};

    use super::*;

    fn id(name: &str) -> AccountId {
        format!("anthropic/{name}").parse().expect("a name")
    }

    fn with_windows_of(models: &[&str]) -> Snapshot {
        let week = WindowId::seven_day();
        let of = |model: &&str| {
            let reading = WindowReading::new(week.for_model(model).expect("a name"), Percent::FULL);
            reading.scope(Scope::model(*model))
        };
        let all = WindowReading::new(week.clone(), Percent::FULL);
        Snapshot::of(&UsageReport::polled(models.iter().map(of).chain([all])), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn an_unknown_model_is_reported_with_the_known_models() {
        let (main, snapshot) = (id("main"), with_windows_of(&["Opus", "Fable"]));
        let warning = |model| warning(model, [(&main, &snapshot)]);

        let line = r#"no window of anthropic/main names model "claude-opsu-4" (known: fable, opus)"#;
        assert_eq!(warning("claude-opsu-4").as_deref(), Some(line));
        assert_eq!(warning("claude-opus-4-5"), None);
        assert_eq!(warning("fable"), None);
    }

    #[test]
    fn without_model_windows_the_warning_lists_none() {
        let line = warning("opus", [(&id("main"), &with_windows_of(&[]))]);

        assert_eq!(line.as_deref(), Some(r#"no window of anthropic/main names model "opus" (known: none)"#));
    }

    #[test]
    fn a_model_of_one_account_is_not_reported() {
        let (main, work) = (id("main"), id("work"));
        let (without, with) = (with_windows_of(&[]), with_windows_of(&["Opus"]));

        assert_eq!(warning("opus", [(&main, &without), (&work, &with)]), None);
        let line = warning("sonnet", [(&main, &without), (&work, &with)]);
        assert_eq!(line.as_deref(), Some(r#"no window of any account names model "sonnet" (known: opus)"#));
    }

    #[test]
    fn nothing_is_reported_before_a_complete_report() {
        assert_eq!(warning("opus", [(&id("main"), &Snapshot::default())]), None);
    }
}
