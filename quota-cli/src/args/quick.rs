//! The usual command lines of a statusline, read without building all commands and their help first.
//! Whatever is not one of them is left to the whole command line, which knows what to say of it.

use std::ffi::OsString;

use clap::ValueEnum as _;

use super::{Arguments, Command, Preset, StatuslineArgs};

/// Reads `statusline` and its options. `None` if it is anything else, or may be wrong.
pub(super) fn read(arguments: impl IntoIterator<Item = OsString>) -> Option<Arguments> {
    let mut words = arguments.into_iter().skip(1);
    if words.next()? != "statusline" {
        return None;
    }
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
        if value.as_encoded_bytes().starts_with(b"-") {
            return None;
        }
        let is_said_twice = match name {
            "--config" => config.replace(value.into()).is_some(),
            _ => {
                let value = value.into_string().ok()?;
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
    let preset = preset.map_or(Ok(Preset::Plain), |name| Preset::from_str(&name, false)).ok()?;
    let options = StatuslineArgs { format, preset, account, json, config };
    is_one_kind.then_some(Arguments { store, command: Command::Statusline(options) })
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
        ] {
            let quick = read(words(line)).unwrap_or_else(|| panic!("{line} is a usual one"));
            let whole = Arguments::try_parse_from(words(line)).unwrap();
            assert_eq!(format!("{quick:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn whatever_may_be_wrong_is_left_to_the_whole_command_line() {
        for line in [
            "status",
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
            "statusline --json=yes",
            "statusline --colour red",
            "statusline --config --json",
        ] {
            assert!(read(words(line)).is_none(), "{line}");
        }
    }
}
