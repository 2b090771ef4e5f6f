//! What was found, for people: a line for each thing, and below it what to do.
//! What is looked at is decided in `doctor`.

use std::fmt::Write as _;

use super::{Area, Check};
use crate::term::{Ink, Screen, harmless};

pub(super) fn render(checks: &[Check], screen: Screen) -> String {
    let mut text = String::new();
    for check in checks {
        let (ink, mark) = match check.advice {
            None => (Ink::Good, "good"),
            Some(_) => (Ink::Bad, "look"),
        };
        let told = harmless(&format!("{}: {}", check.subject, check.told));
        let _ = writeln!(text, "{}  {:<8}  {told}", screen.paint(ink, mark), area(check.area));
        if let Some(advice) = &check.advice {
            let _ = writeln!(text, "                → {}", harmless(advice));
        }
    }
    let found = checks.iter().filter(|check| check.advice.is_some()).count();
    let _ = match found {
        0 => writeln!(text, "\nAll is well."),
        1 => writeln!(text, "\n1 finding."),
        _ => writeln!(text, "\n{found} findings."),
    };
    text
}

fn area(area: Area) -> &'static str {
    match area {
        Area::Config => "config",
        Area::Store => "store",
        Area::Login => "login",
        Area::Clock => "clock",
        Area::Provider => "provider",
    }
}
