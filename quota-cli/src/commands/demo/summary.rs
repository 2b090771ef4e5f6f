//! The result of a demo, as text and as one line of JSON.
//! The simulated provider counts the calls.

use std::collections::BTreeMap;
use std::time::Duration;

use quota_sim::{AccountLedger, Ledger};
use serde::Serialize;

use super::counters::Counters;
use super::plan::Plan;
use crate::format::{pluralize, thousands};
use crate::view::json;
use crate::view::line::{self, Line, Style};
use crate::view::wrap::{self, padded, truncate};

const INDENT: usize = 2;
/// The width of an account's figures.
const FIGURES: usize = "  calls   max at once  during a hold".len();

/// The result of a demo.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    consumers: u32,
    accounts: usize,
    seconds: f64,
    seed: u64,
    reads: u64,
    stale_reads: BTreeMap<&'static str, u64>,
    provider_calls: BTreeMap<String, u64>,
    max_concurrent_per_account: BTreeMap<String, u64>,
    calls_during_hold: BTreeMap<String, u64>,
    throttled_answers: u64,
    naive_calls: u64,
    peek_ns_p50: f64,
    /// The planned duration in seconds.
    #[serde(skip)]
    planned: u64,
    /// The accounts in order; the maps are sorted by name.
    #[serde(skip)]
    order: Vec<String>,
}

impl Summary {
    pub(crate) fn new(
        plan: &Plan,
        duration: Duration,
        counters: &Counters,
        ledger: &Ledger,
        peek_ns_p50: f64,
    ) -> Self {
        let empty = AccountLedger::default();
        let of = |name: &str| ledger.account(name).unwrap_or(&empty);
        let each = |figure: fn(&AccountLedger) -> u64| {
            plan.ids().map(|id| (id.as_str().to_owned(), figure(of(id.name())))).collect()
        };
        Self {
            consumers: plan.consumers,
            accounts: plan.script.accounts().len(),
            seconds: (duration.as_secs_f64() * 10.0).round() / 10.0,
            seed: plan.seed,
            reads: counters.reads(),
            stale_reads: counters.stale(),
            provider_calls: each(|one| one.calls),
            max_concurrent_per_account: each(|one| one.max_concurrent),
            calls_during_hold: each(|one| one.calls_during_hold),
            throttled_answers: plan.ids().map(|id| of(id.name()).answered(429)).sum(),
            naive_calls: counters.naive_calls(),
            peek_ns_p50,
            planned: plan.duration.as_secs(),
            order: plan.ids().map(|id| id.as_str().to_owned()).collect(),
        }
    }

    /// Renders one line of JSON.
    pub(crate) fn json(&self) -> String {
        json::one_line(self)
    }

    /// Renders the text.
    pub(crate) fn lines(&self, width: usize) -> Vec<Line> {
        const LABEL: usize = "calls sent during backoff".len() + 2;
        /// In a narrower terminal, a value goes on the line below its label.
        const NARROWEST_VALUE: usize = 20;
        let calls: u64 = self.provider_calls.values().sum();
        let early: u64 = self.calls_during_hold.values().sum();
        let figures = [
            (
                "reads",
                format!(
                    "{} by {} in {} s",
                    thousands(self.reads),
                    pluralize(self.consumers.into(), "consumer"),
                    self.seconds
                ),
            ),
            ("calls to the provider", thousands(calls)),
            ("without quota", format!("{} calls", thousands(self.naive_calls))),
            ("stale reads", self.stale_text()),
            ("429s", thousands(self.throttled_answers)),
            ("calls sent during backoff", thousands(early)),
            ("read latency", format!("{} ns (median)", self.peek_ns_p50.round())),
        ];
        let mut lines = self.table(width);
        lines.push(Line::default());
        for (label, value) in figures {
            if width < LABEL + NARROWEST_VALUE {
                lines.extend(line::wrapped(Style::Plain, label, 0, width));
                lines.extend(line::wrapped(Style::Plain, &value, INDENT, width));
            } else {
                lines.extend(Line::plain(label).padded(LABEL).hanging(Style::Plain, &value, LABEL, width));
            }
        }
        lines.extend([Line::default(), Line::plain("Replay:")]);
        lines.extend(self.replay(width));
        lines
    }

    /// The command that repeats the run. In a narrow terminal, each line ends with a backslash, so that a shell accepts the command.
    fn replay(&self, width: usize) -> Vec<Line> {
        let (accounts, consumers, seconds, seed) = (self.accounts, self.consumers, self.planned, self.seed);
        let command = format!(
            "quota demo{} --accounts {accounts} --consumers {consumers} --seconds {seconds} --seed {seed}",
            self.provider_option()
        );
        let mut lines = line::wrapped(Style::Plain, &command, INDENT, width);
        if lines.len() > 1 {
            lines = line::wrapped(Style::Plain, &command, INDENT, width.saturating_sub(" \\".len()));
        }
        if let Some((_, all_but_last)) = lines.split_last_mut() {
            all_but_last.iter_mut().for_each(|line| line.push(Style::Plain, " \\"));
        }
        lines
    }

    /// The option that selects the simulated providers, unless they are the default.
    fn provider_option(&self) -> String {
        let mut providers = Vec::new();
        for (provider, _) in self.order.iter().filter_map(|id| id.split_once('/')) {
            if !providers.contains(&provider) {
                providers.push(provider);
            }
        }
        match providers[..] {
            ["anthropic"] => String::new(),
            _ => format!(" --provider {}", providers.join(",")),
        }
    }

    /// The calls by account, as counted by the provider.
    fn table(&self, width: usize) -> Vec<Line> {
        let figures = |id: &String| {
            let figures = [&self.provider_calls, &self.max_concurrent_per_account, &self.calls_during_hold];
            figures.map(|figure| figure[id].to_string())
        };
        let names = self.order.iter().map(|name| wrap::width(name)).chain(["account".len()]);
        let widest = names.max().unwrap_or_default();
        if width < widest + FIGURES {
            let block = |id: &String| {
                let [calls, at_once, early] = figures(id);
                let text = format!("calls {calls}, max at once {at_once}, on hold {early}");
                let name = Line::plain(truncate(id, width));
                std::iter::once(name).chain(line::wrapped(Style::Plain, &text, INDENT, width))
            };
            return self.order.iter().flat_map(block).collect();
        }
        let row = |name: &str, calls: &str, at_once: &str, early: &str| {
            Line::plain(format!("{}  {calls:>5}  {at_once:>12}  {early:>13}", padded(name, widest)))
        };
        let mut lines = vec![row("account", "calls", "max at once", "during a hold")];
        lines.extend(self.order.iter().map(|id| {
            let [calls, at_once, early] = figures(id);
            row(id, &calls, &at_once, &early)
        }));
        lines
    }

    fn stale_text(&self) -> String {
        let share = |reads: u64| format!("{:.1} %", reads as f64 * 100.0 / self.reads.max(1) as f64);
        let all: u64 = self.stale_reads.values().sum();
        if all == 0 {
            return "none".to_owned();
        }
        let by_reason = self
            .stale_reads
            .iter()
            .map(|(word, reads)| format!("{} {}", word.replace('_', " "), share(*reads)));
        format!("{}: {}", share(all), by_reason.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures::assert_fits;
    use crate::view::line::print;

    fn summary() -> Summary {
        let by_account = |main, fallback| {
            [("anthropic/main", main), ("anthropic/fallback-1", fallback)]
                .map(|(id, figure)| (id.to_owned(), figure))
                .into()
        };
        Summary {
            consumers: 1000,
            accounts: 2,
            seconds: 10.0,
            seed: 7,
            reads: 98_709,
            stale_reads: [("on_hold", 4_935), ("never_read", 99)].into(),
            provider_calls: by_account(12, 10),
            max_concurrent_per_account: by_account(1, 1),
            calls_during_hold: by_account(0, 0),
            throttled_answers: 2,
            naive_calls: 18_016,
            peek_ns_p50: 12.4,
            planned: 10,
            order: ["anthropic/main", "anthropic/fallback-1"].map(ToOwned::to_owned).into(),
        }
    }

    #[test]
    fn a_summary_at_eighty_columns() {
        insta::assert_snapshot!(print(&summary().lines(80), false));
    }

    #[test]
    fn a_summary_in_a_narrow_terminal() {
        insta::assert_snapshot!(print(&summary().lines(40), false));
    }

    #[test]
    fn no_line_of_a_summary_is_wider_than_the_terminal() {
        for width in 26..=100 {
            assert_fits(&summary().lines(width), width);
        }
    }

    #[test]
    fn a_summary_in_json() {
        insta::assert_snapshot!(summary().json());
    }

    #[test]
    fn a_replay_selects_the_same_providers() {
        let order =
            ["openai/main", "anthropic/fallback-1", "openai/fallback-2"].map(ToOwned::to_owned).into();

        let text = print(&Summary { order, ..summary() }.replay(200), false);

        assert!(text.contains("quota demo --provider openai,anthropic --accounts"), "{text}");
    }

    #[test]
    fn stale_text_without_stale_reads_is_none() {
        assert_eq!(Summary { stale_reads: BTreeMap::new(), ..summary() }.stale_text(), "none");
    }
}
