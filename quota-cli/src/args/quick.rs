//! The usual command lines of what is run most, read without building all commands and their help first.
//! Whatever is not one of them is left to the whole command line, which knows what to say of it.

use std::ffi::OsString;

use clap::ValueEnum as _;

use super::before::Before;
use super::{Arguments, Command, Preset, StatusArgs, StatuslineArgs};

/// Reads `statusline`, or `status`, and its options. `None` if it is anything else, or may be wrong.
pub(super) fn read(arguments: impl IntoIterator<Item = OsString>) -> Option<Arguments> {
    let mut words = arguments.into_iter().skip(1);
    match words.next()?.to_str()? {
        "statusline" => statusline(words),
        "status" => status(words),
        _ => None,
    }
}

/// Without `--account`, `--max-age`, and what goes with nothing else.
fn status(mut words: impl Iterator<Item = OsString>) -> Option<Arguments> {
    let (mut store, mut config, mut json) = (None, None, false);
    while let Some(word) = words.next() {
        let is_said_twice = match word.to_str()? {
            "--json" => std::mem::replace(&mut json, true),
            "--config" => config.replace(value(words.next()?)?.into()).is_some(),
            "--store" => store.replace(value(words.next()?)?.into_string().ok()?).is_some(),
            _ => return None,
        };
        if is_said_twice {
            return None;
        }
    }
    let accounts = Vec::new();
    let options = StatusArgs { accounts, max_age: None, refresh: false, offline: false, json, config };
    Some(Arguments { store, before: Before::default(), command: Command::Status(options) })
}

/// What follows an option, unless it looks like another one.
fn value(word: OsString) -> Option<OsString> {
    if word.as_encoded_bytes().starts_with(b"-") { None } else { Some(word) }
}

fn statusline(mut words: impl Iterator<Item = OsString>) -> Option<Arguments> {
    let (mut store, mut format, mut preset, mut account, mut config) = (None, None, None, None, None);
    let mut json = false;
    while let Some(word) = words.next() {
        let word = word.into_string().ok()?;
        if word == "--json" && !json {
            json = true;
            continue;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, OsString::from(value)),
            None => (&*word, words.next()?),
        };
        let value = self::value(value)?;
        let is_said_twice = match name {
            "--config" => config.replace(value.into()).is_some(),
            _ => {
                let value = value.into_string().ok()?;
                if name == "--account" && value.contains(',') {
                    return None;
                }
                let place = match name {
                    "--store" => &mut store,
                    "--format" => &mut format,
                    "--preset" => &mut preset,
                    "--account" => &mut account,
                    _ => return None,
                };
                place.replace(value).is_some()
            }
        };
        if is_said_twice {
            return None;
        }
    }
    // What does not go together is told by the others.
    let is_one_kind =
        [format.is_some(), preset.is_some(), json].into_iter().filter(|said| *said).count() <= 1;
    let preset = preset.map(|name| Preset::from_str(&name, false)).transpose().ok()?;
    let options = StatuslineArgs { format, preset, account, json, config };
    let command = Command::Statusline(options);
    is_one_kind.then(|| Arguments { store, before: Before::default(), command })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        ["quota"].into_iter().chain(line.split(' ')).map(OsString::from).collect()
    }

    #[test]
    fn what_is_read_quickly_is_read_as_by_the_whole_command_line() {
        for line in [
            "statusline",
            "statusline --json",
            "statusline --json --config=x --store memory:",
            "statusline --format {five_hour.used} --account main",
            "statusline --format={five_hour.used}={age} --config ./x.toml",
            "statusline --preset powerline --store=sqlite:///x",
            "status",
            "status --json",
            "status --config x --json --store memory:",
        ] {
            let quick = read(words(line)).unwrap_or_else(|| panic!("{line} is a usual one"));
            let whole = Arguments::try_parse_from(words(line)).unwrap();
            assert_eq!(format!("{quick:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn whatever_may_be_wrong_is_left_to_the_whole_command_line() {
        for line in [
            "guard",
            "status x",
            "status --account main",
            "status --help",
            "status --json --json",
            "status --json=yes",
            "status --config",
            "status --config --json",
            "status --store a --store b",
            "status --refresh --offline",
            "--store memory: statusline",
            "statusline --help",
            "statusline -h",
            "statusline x",
            "statusline --format",
            "statusline --format --json",
            "statusline --json --json",
            "statusline --json --format x",
            "statusline --preset plain --format x",
            "statusline --preset plian",
            "statusline --account a --account b",
            "statusline --account a,b",
            "--json status",
            "statusline --json=yes",
            "statusline --colour red",
            "statusline --config --json",
        ] {
            assert!(read(words(line)).is_none(), "{line}");
        }
    }
}
