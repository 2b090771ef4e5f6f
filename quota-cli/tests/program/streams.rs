//! Results go to standard output, messages to standard error, and colors only to terminals. No output has a secret.

use std::process::Stdio;

use quota_sim::{Account, Answer, Phase, Script};

use super::support::{Ended, Machine, Provider, argument};

#[test]
fn an_unknown_command_ends_with_64() {
    for arguments in [
        &["stauts"][..],
        &[],
        &["status", "--jsn"],
        &["demo", "--accounts", "51"],
        &["parse", "unknown", "x"],
    ] {
        let ended = Machine::new().run(arguments);

        assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""), "{arguments:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for arguments in
        [&["--help"][..], &["--version"], &["status", "--help"], &["demo", "-h"], &["help", "sim"]]
    {
        let ended = Machine::new().run(arguments);

        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(!ended.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = Machine::new().run(&["completions", shell]);

        assert_eq!(ended.code, Some(0));
        assert!(ended.stdout.contains("status"), "{shell}");
        for hidden in ["refresh-detached", "run-hooks", "update-journals"] {
            assert!(!ended.stdout.contains(hidden), "{shell}: {hidden}");
        }
    }
}

#[test]
fn a_closed_pipe_ends_without_a_message() {
    let provider = Provider::play(Script::default());
    let (machine, config) = provider.configure(Machine::new());
    let runs: [&[&str]; 4] = [
        &["status", "--config", argument(&config)],
        &["completions", "bash"],
        &["demo", "--seconds", "1", "--consumers", "1"],
        &["--help"],
    ];

    for arguments in runs {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Ended::of(machine.command(arguments).stdout(writer).output().unwrap());

        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_ends_with_74() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();

    let ended = Ended::of(Machine::new().command(&["completions", "bash"]).stdout(full).output().unwrap());

    assert_eq!(ended.code, Some(74));
    assert!(ended.stderr.starts_with("quota: could not write the output: "), "{}", ended.stderr);
}

#[test]
fn without_a_terminal_there_are_no_colors() {
    let provider = Provider::play(Script::default());
    let (machine, config) = provider.configure(Machine::new().set("TERM", "xterm-256color"));

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert!(!ended.stdout.contains('\u{1b}'), "{}", ended.stdout);
}

#[test]
fn clicolor_force_adds_colors_and_no_color_removes_them() {
    let provider = Provider::play(Script::default());
    let (machine, config) = provider.configure(Machine::new().set("CLICOLOR_FORCE", "1"));
    let arguments = ["status", "--config", argument(&config)];

    let forced = machine.run(&arguments);
    let refused = machine.set("NO_COLOR", "1").run(&arguments);

    assert!(forced.stdout.contains("\u{1b}[1manthropic/main"), "{}", forced.stdout);
    assert!(!refused.stdout.contains('\u{1b}'), "{}", refused.stdout);
}

#[test]
fn no_output_contains_a_token() {
    const TOKEN: &str = "sim-token-whisper";
    let answers = [Answer::Ok, Answer::Unauthorized, Answer::ThrottleZero, Answer::Html, Answer::Scope];
    for answer in answers {
        let account = Account::new("main").with_token(TOKEN).answers([Phase::new(answer)]);
        let provider = Provider::play(Script::new([account]));
        let machine = Machine::new().set("TOKEN", TOKEN);
        machine.log_in(TOKEN);
        let token_file = machine.write("token", TOKEN);
        let sources = [
            String::new(),
            "token_env = \"TOKEN\"".to_owned(),
            format!("token_file = \"{}\"", token_file.display()),
            format!("token_env = \"{TOKEN}\""),
            format!("token = \"{TOKEN}\""),
            format!("base_url = \"http://me:{TOKEN}@127.0.0.1\""),
        ];
        for source in sources {
            let url = provider.url();
            let config = format!(
                "[providers.anthropic]\nbase_url = \"{url}\"\n[[accounts]]\nid = \"anthropic/main\"\n{source}\n"
            );
            let config = machine.write("config.toml", config);
            for arguments in [&["status"][..], &["status", "--json"]] {
                let arguments = [arguments, &["--config", argument(&config)]].concat();
                let ended = machine.run(&arguments);
                let output = format!("{}{}", ended.stdout, ended.stderr);
                assert!(!output.contains("whisper") && !output.contains("ort01"), "{source}: {output}");
            }
        }
    }
}

#[test]
fn standard_error_may_be_closed() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let status = Machine::new().command(&["status"]).stdout(Stdio::null()).stderr(writer).status().unwrap();

    assert_eq!(status.code(), Some(3));
}
