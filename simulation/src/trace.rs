//! The trace of a simulation: every message, call and result, in order. Two runs of one plan have equal traces.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule, as a short stable name.
    pub rule: &'static str,
    /// What happened.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

/// The result of one simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The violations, the first of each rule.
    pub violations: Vec<Violation>,
    /// The hash of the trace. Two runs of one plan have the same.
    pub trace_hash: u64,
    /// The number of events in the trace.
    pub events: usize,
    /// The number of calls to the provider.
    pub calls: usize,
    /// The number of those until the callers and the faults ended.
    pub planned_calls: usize,
    /// The readings that the callers received.
    pub reads: Reads,
    /// The trace, if the caller requested it.
    pub lines: Vec<String>,
}

/// Statistics of the readings that the callers of a simulation received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// The calls that return readings.
    pub count: usize,
    /// How many of them had readings.
    pub with_readings: usize,
    /// How many of them had readings that were not fresh.
    pub stale: usize,
    /// The age of the oldest readings that a caller received.
    pub oldest: Duration,
    /// The longest wait of a caller.
    pub longest_wait: Duration,
}

/// The hash of all lines, and the lines themselves if the caller wants to print them.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: DefaultHasher,
    lines: Option<Vec<String>>,
    count: usize,
}

impl Trace {
    /// Creates an empty trace. Without `keeps_lines` it only counts and hashes them.
    pub(crate) fn new(keeps_lines: bool) -> Self {
        Self { lines: keeps_lines.then(Vec::new), ..Self::default() }
    }

    /// Adds an event. `line` describes it, and `content` determines its hash; a trace without lines does not compute the line.
    pub(crate) fn push(&mut self, content: impl Hash, line: impl FnOnce() -> String) {
        content.hash(&mut self.hasher);
        self.count += 1;
        if let Some(lines) = &mut self.lines {
            lines.push(line());
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
