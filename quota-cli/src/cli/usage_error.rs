//! Sanitizes clap's own errors: masks secrets on the command line, and removes suggestions of hidden commands.

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Error};

use super::Arguments;
use crate::sanitize::sanitize;
use crate::token_like::{looks_like_a_token, without_tokens};

/// Removes from the error everything that must not be shown.
pub(super) fn safe(mut error: Error) -> Error {
    let context: Vec<_> = error.context().map(|(kind, value)| (kind, value.clone())).collect();
    for (kind, value) in context {
        match shown(kind, value) {
            Some(value) => error.insert(kind, value),
            None => error.remove(kind),
        };
    }
    error
}

/// The value without secrets; `None` if nothing may be shown.
fn shown(kind: ContextKind, value: ContextValue) -> Option<ContextValue> {
    let text = |text: &String| sanitize(&without_tokens(text));
    Some(match value {
        ContextValue::String(word) if kind == ContextKind::SuggestedSubcommand && is_hidden(&word) => {
            return None;
        }
        ContextValue::String(word) => ContextValue::String(text(&word)),
        ContextValue::Strings(words) if kind == ContextKind::SuggestedSubcommand => {
            let words: Vec<_> = words.iter().filter(|word| !is_hidden(word)).map(text).collect();
            if words.is_empty() {
                return None;
            }
            ContextValue::Strings(words)
        }
        ContextValue::Strings(words) => ContextValue::Strings(words.iter().map(text).collect()),
        // A tip may repeat a token, for example to explain how to pass it as a value.
        ContextValue::StyledStr(tip) if looks_like_a_token(&tip.to_string()) => return None,
        ContextValue::StyledStrs(mut tips) => {
            tips.retain(|tip| !looks_like_a_token(&tip.to_string()));
            ContextValue::StyledStrs(tips)
        }
        other => other,
    })
}

fn is_hidden(command: &str) -> bool {
    Arguments::command().find_subcommand(command).is_some_and(clap::Command::is_hide_set)
}
