//! The changes that commands make to the text of a configuration, and the text that they keep.

use quota::accounts::{AccountLimits, Limits};
use quota::{Percent, WindowId};

use super::*;
use crate::config::LoginSource;

const DIRECTORY: &str = "/etc/quota";

/// A file from `quota init` that a user has edited.
const TEXT: &str = r#"# The accounts of `quota`.
# This file has no tokens.

# The login of Claude Code, read-only.
[[accounts]]
id = "anthropic/main"
killswitch = 5   # agreed with the team

[policy]
freshness = "2m"  # often enough

# paid by the project
[[accounts]]
id = 'anthropic/work'
token_env   = "QUOTA_WORK"
# killswitch = 10

# Not used any more.

[[accounts]]
id = "anthropic/spare"
token_command = [
    "pass", # the password store
    "show", "spare",
]

# [routing]
# min_remaining = 20
"#;

fn parsed(text: &str) -> Config {
    Config::parse(text, Path::new(DIRECTORY), &[])
        .unwrap_or_else(|error| panic!("{}", error.message("text", text)))
}

fn edited(text: &str, change: impl FnOnce(&mut Vec<AccountSettings>)) -> Result<String, EditError> {
    let before = parsed(text);
    let mut wanted = before.accounts.clone();
    change(&mut wanted);
    with_accounts(text, Path::new(DIRECTORY), &before, &wanted)
}

fn id(name: &str) -> AccountId {
    format!("anthropic/{name}").parse().unwrap()
}

fn account(name: &str, variable: &str) -> AccountSettings {
    AccountSettings::new(id(name), LoginSource::TokenEnv(variable.to_owned()))
}

fn percent(percent: f64) -> Percent {
    Percent::from_percent(percent).unwrap()
}

fn by_name<'a>(accounts: &'a mut [AccountSettings], name: &str) -> &'a mut AccountSettings {
    accounts.iter_mut().find(|account| account.id.name() == name).unwrap()
}

fn order(accounts: &mut [AccountSettings], names: &[&str]) {
    accounts.sort_by_key(|account| names.iter().position(|name| account.id.name() == *name));
}

/// The lines that are in only one of the texts. Removed lines have a leading `-`.
fn difference(before: &str, after: &str) -> Vec<String> {
    let without = |text: &str, other: &str| -> Vec<String> {
        let mut other: Vec<_> = other.lines().collect();
        let mut lines = Vec::new();
        for line in text.lines() {
            match other.iter().position(|one| *one == line) {
                Some(at) => drop(other.remove(at)),
                None => lines.push(line.to_owned()),
            }
        }
        lines
    };
    let removed = without(before, after).into_iter().map(|line| format!("-{line}"));
    removed.chain(without(after, before)).collect()
}

#[test]
fn disabling_an_account_adds_one_line() {
    let text = edited(TEXT, |accounts| by_name(accounts, "work").disabled = true).unwrap();

    assert_eq!(difference(TEXT, &text), ["disabled = true"]);
    assert!(text.contains("token_env   = \"QUOTA_WORK\"\ndisabled = true\n# killswitch = 10\n"), "{text}");
}

#[test]
fn disabling_and_enabling_restores_the_text() {
    let disabled = edited(TEXT, |accounts| by_name(accounts, "work").disabled = true).unwrap();

    assert_eq!(edited(&disabled, |accounts| by_name(accounts, "work").disabled = false).unwrap(), TEXT);
}

#[test]
fn a_key_with_comments_is_edited_in_place() {
    let text = "[[accounts]]\nid = \"anthropic/a\"\n# until payday\ndisabled = true # really\n";

    let text = edited(text, |accounts| accounts[0].disabled = false).unwrap();

    assert_eq!(text, "[[accounts]]\nid = \"anthropic/a\"\n# until payday\ndisabled = false # really\n");
}

#[test]
fn a_changed_limit_keeps_its_position_and_comment() {
    let text = edited(TEXT, |accounts| {
        by_name(accounts, "main").limits.killswitch = Some(Limits::of(percent(7.5)));
        by_name(accounts, "work").limits.min_remaining = Some(Limits::of(percent(20.0)));
    })
    .unwrap();

    assert_eq!(
        difference(TEXT, &text),
        [
            "-killswitch = 5   # agreed with the team",
            "killswitch = 7.5   # agreed with the team",
            "min_remaining = 20"
        ]
    );
}

#[test]
fn the_comments_of_a_removed_limit_are_kept() {
    let text =
        "[[accounts]]\nid = \"anthropic/a\" # the first\n# low\nkillswitch = 5 # agreed\ntoken_env = \"A\"\n";

    let text = edited(text, |accounts| accounts[0].limits = AccountLimits::none()).unwrap();

    assert_eq!(text, "[[accounts]]\nid = \"anthropic/a\" # the first\n# low\n# agreed\ntoken_env = \"A\"\n");
}

#[test]
fn the_comments_of_a_removed_first_key_move_to_the_next_key() {
    let text = "[[accounts]]\n# low\nkillswitch = 5\nid = \"anthropic/a\"\n";

    let text = edited(text, |accounts| accounts[0].limits = AccountLimits::none()).unwrap();

    assert_eq!(text, "[[accounts]]\n# low\nid = \"anthropic/a\"\n");
}

#[test]
fn per_window_limits_are_kept_in_every_form() {
    for (form, expected) in [
        ("killswitch = { every = 5, five_hour = 10 }\n", "killswitch = { every = 20, five_hour = 10 }\n"),
        ("killswitch = { five_hour = 10 }\n", "killswitch = { five_hour = 10, every = 20 }\n"),
        (
            "killswitch.every = 5\nkillswitch.five_hour = 10\n",
            "killswitch.every = 20\nkillswitch.five_hour = 10\n",
        ),
        ("killswitch.five_hour = 10\n", "killswitch.five_hour = 10\nkillswitch.every = 20\n"),
        (
            "\n# low\n[accounts.killswitch]\nfive_hour = 10 # short\n\"seven_day/opus\" = 3\n",
            "\n# low\n[accounts.killswitch]\nfive_hour = 10 # short\n\"seven_day/opus\" = 3\nevery = 20\n",
        ),
    ] {
        let head = "[[accounts]]\nid = \"anthropic/a\"\n";
        let tail = "\n[[accounts]]\nid = \"anthropic/b\"\ntoken_env = \"B\"\n";

        let text = edited(&format!("{head}{form}{tail}"), |accounts| {
            let stop = accounts[0].limits.killswitch.take().unwrap();
            let every = Limits::of(percent(20.0));
            accounts[0].limits.killswitch =
                Some(stop.windows().fold(every, |all, (window, left)| all.window(window.clone(), left)));
        });

        assert_eq!(text.unwrap(), format!("{head}{expected}{tail}"));
    }
}

#[test]
fn a_limits_subtable_moves_with_its_account() {
    let text = "[[accounts]]\nid = \"anthropic/a\"\n[accounts.killswitch]\nevery = 1\n[policy]\ngap = \"2s\"\n\
                [[accounts]]\nid = \"anthropic/b\"\ntoken_env = \"B\"\n[accounts.min_remaining]\nevery = 2\n";

    let text = edited(text, |accounts| order(accounts, &["b", "a"])).unwrap();

    assert_eq!(
        text,
        "[[accounts]]\nid = \"anthropic/b\"\ntoken_env = \"B\"\n[accounts.min_remaining]\nevery = 2\n[policy]\ngap = \"2s\"\n\
         [[accounts]]\nid = \"anthropic/a\"\n[accounts.killswitch]\nevery = 1\n"
    );
}

#[test]
fn a_new_account_is_inserted_before_the_comments_at_the_end() {
    let text = edited(TEXT, |accounts| accounts.push(account("new", "NEW"))).unwrap();

    let added = "]\n\n[[accounts]]\nid = \"anthropic/new\"\ntoken_env = \"NEW\"\n\n# [routing]\n";
    assert!(text.contains(added), "{text}");
    assert_eq!(
        difference(TEXT, &text),
        ["[[accounts]]", "id = \"anthropic/new\"", "token_env = \"NEW\"", ""]
    );
}

#[test]
fn a_commented_out_setting_stays_with_its_account() {
    let text = "[[accounts]]\nid = \"anthropic/a\"\n# killswitch = 5\n\n# The end.\n";

    let text = edited(text, |accounts| accounts.push(account("b", "B"))).unwrap();

    assert_eq!(
        text,
        "[[accounts]]\nid = \"anthropic/a\"\n# killswitch = 5\n\n[[accounts]]\nid = \"anthropic/b\"\ntoken_env = \"B\"\n\n# The end.\n"
    );
}

#[test]
fn a_new_first_account_is_inserted_after_the_file_header() {
    let text = edited(TEXT, |accounts| accounts.insert(0, account("new", "NEW"))).unwrap();

    let head =
        "# The accounts of `quota`.\n# This file has no tokens.\n\n[[accounts]]\nid = \"anthropic/new\"\n";
    assert!(text.starts_with(head), "{text}");
    assert!(
        text.contains("\n# The login of Claude Code, read-only.\n[[accounts]]\nid = \"anthropic/main\"\n"),
        "{text}"
    );
}

#[test]
fn accounts_are_reordered_with_their_own_comments() {
    let text = edited(TEXT, |accounts| order(accounts, &["spare", "work", "main"])).unwrap();

    insta::assert_snapshot!(text);
}

#[test]
fn an_account_is_removed_with_its_own_comments_only() {
    let without = |name: &str| edited(TEXT, |accounts| accounts.retain(|one| one.id.name() != name)).unwrap();

    insta::assert_snapshot!([without("main"), without("work"), without("spare")].join("~~~\n"));
}

#[test]
fn a_commented_out_setting_moves_and_is_removed_with_its_account() {
    let text = "[[accounts]]\nid = \"anthropic/a\"\n# killswitch = 5\n\n[[accounts]]\nid = \"anthropic/b\"\ntoken_env = \"B\"\n";

    let moved = edited(text, |accounts| order(accounts, &["b", "a"])).unwrap();
    let removed = edited(text, |accounts| drop(accounts.remove(0))).unwrap();

    assert_eq!(
        moved,
        "[[accounts]]\nid = \"anthropic/b\"\ntoken_env = \"B\"\n\n[[accounts]]\nid = \"anthropic/a\"\n# killswitch = 5\n"
    );
    assert_eq!(removed, "[[accounts]]\nid = \"anthropic/b\"\ntoken_env = \"B\"\n");
}

#[test]
fn all_accounts_can_be_removed_and_others_added() {
    let none = edited(TEXT, Vec::clear).unwrap();
    assert!(parsed(&none).accounts.is_empty());

    let text = edited(&none, |accounts| accounts.push(account("new", "NEW"))).unwrap();

    assert!(text.starts_with("# The accounts of `quota`.\n"), "{text}");
    assert!(text.contains("freshness = \"2m\"  # often enough\n"), "{text}");
}

#[test]
fn a_first_account_is_inserted_after_the_comments() {
    let text = edited("# Mine.\n# gap = 1\n", |accounts| accounts.push(account("a", "A"))).unwrap();

    assert_eq!(text, "# Mine.\n# gap = 1\n\n[[accounts]]\nid = \"anthropic/a\"\ntoken_env = \"A\"\n");
    let text = edited("", |accounts| accounts.push(account("a", "A"))).unwrap();
    assert_eq!(text, "[[accounts]]\nid = \"anthropic/a\"\ntoken_env = \"A\"\n");
}

#[test]
fn every_setting_of_a_new_account_is_written() {
    let limits = Limits::of(percent(2.5)).window(WindowId::new("seven_day/opus").unwrap(), percent(10.0));
    let logins = [
        LoginSource::ClaudeCode,
        LoginSource::ClaudeConfigDir("~/.claude-\"work\"".into()),
        LoginSource::TokenEnv("A".into()),
        LoginSource::TokenFile("/run/token".into()),
        LoginSource::TokenCommand(vec!["pass".into(), "show".into(), "a b".into()]),
    ];

    let text = edited("[policy]\ngap = \"2s\"\n", |accounts| {
        for (at, login) in logins.into_iter().enumerate() {
            let mut account = AccountSettings::new(id(&format!("a{at}")), login);
            account.limits =
                AccountLimits::none().min_remaining(Limits::of(percent(20.0))).killswitch(limits.clone());
            account.base_url = Some("https://proxy.example.com/".parse().unwrap());
            account.disabled = true;
            accounts.push(account);
        }
    });

    insta::assert_snapshot!(text.unwrap());
}

#[test]
fn accounts_in_an_array_are_edited_in_it() {
    for (text, expected) in [
        (
            "accounts = [{ id = \"anthropic/a\" }, { id = \"anthropic/b\", token_env = \"B\" }]\n",
            "accounts = [{ id = \"anthropic/b\", token_env = \"B\", disabled = true }, { id = \"anthropic/a\" }, { id = \"anthropic/c\", token_env = \"C\" }]\n",
        ),
        (
            "accounts = [\n  { id = \"anthropic/a\" },\n  { id = \"anthropic/b\", token_env = \"B\" },\n]\n\n[policy]\ngap = \"2s\"\n",
            "accounts = [\n  { id = \"anthropic/b\", token_env = \"B\", disabled = true },\n  { id = \"anthropic/a\" },\n  { id = \"anthropic/c\", token_env = \"C\" },\n]\n\n[policy]\ngap = \"2s\"\n",
        ),
    ] {
        let edited = edited(text, |accounts| {
            order(accounts, &["b", "a"]);
            accounts[0].disabled = true;
            accounts.push(account("c", "C"));
        });

        assert_eq!(edited.unwrap(), expected);
    }
}

#[test]
fn a_new_key_has_the_indent_of_its_account() {
    let text = "  [[accounts]] # first\n  id = \"anthropic/a\"\n\n  [[accounts]]\n  id = \"anthropic/b\"\n  token_env = \"B\"\n";

    let text = edited(text, |accounts| {
        accounts.reverse();
        accounts[1].disabled = true;
    });

    assert_eq!(
        text.unwrap(),
        "  [[accounts]]\n  id = \"anthropic/b\"\n  token_env = \"B\"\n\n  [[accounts]] # first\n  id = \"anthropic/a\"\n  disabled = true\n"
    );
}

#[test]
fn a_trailing_comment_is_not_attached_to_the_next_account() {
    let text = "[[accounts]]\nid = \"anthropic/a\"\n[[accounts]]\nid = \"anthropic/b\"\ntoken_env = \"B\"\n# killswitch = 5";

    let text = edited(text, |accounts| accounts.reverse()).unwrap();

    assert_eq!(
        text,
        "[[accounts]]\nid = \"anthropic/b\"\ntoken_env = \"B\"\n# killswitch = 5\n\n[[accounts]]\nid = \"anthropic/a\"\n"
    );
}

#[test]
fn a_new_key_in_a_multiline_inline_table_gets_its_own_line() {
    let text = "accounts = [\n  {\n    id = \"anthropic/a\",\n    killswitch = 5,\n  },\n] # mine\n";

    let disabled = edited(text, |accounts| accounts[0].disabled = true).unwrap();

    assert_eq!(disabled, text.replace("5,\n", "5,\n    disabled = true,\n"));
    assert_eq!(edited(&disabled, |accounts| accounts[0].disabled = false).unwrap(), text);
}

#[test]
fn an_array_with_comments_cannot_be_edited() {
    let text = "[policy]\ngap = \"2s\"\n";
    let text = format!("accounts = [\n  {{ id = \"anthropic/a\" }}, # main\n]\n{text}");

    let error = edited(&text, |accounts| accounts[0].disabled = true).unwrap_err();

    assert_eq!(error, EditError::Form { line: 1 });
}

#[test]
fn a_limit_whose_comments_would_be_lost_cannot_be_removed() {
    for form in ["[accounts.killswitch]\nevery = 5 # agreed\n", "# low\n[accounts.killswitch]\nevery = 5\n"] {
        let text = format!("\n[[accounts]]\nid = \"anthropic/a\"\n{form}");

        let error = edited(&text, |accounts| accounts[0].limits = AccountLimits::none()).unwrap_err();

        assert_eq!(error, EditError::Form { line: 3 }, "{form}");
    }
}

#[test]
fn an_account_that_a_hook_names_is_not_removed() {
    let text =
        format!("{TEXT}[[hooks]]\non = [\"reset\"]\naccounts = [\"anthropic/work\"]\nrun = [\"true\"]\n");

    let error = edited(&text, |accounts| accounts.retain(|one| one.id.name() != "work")).unwrap_err();

    let line = text.lines().position(|line| line.starts_with("accounts = ")).unwrap() + 1;
    assert_eq!(error, EditError::Hook { line, account: id("work") });
}

#[test]
fn line_endings_and_a_byte_order_mark_are_kept() {
    let windows = format!("\u{feff}{}", TEXT.replace('\n', "\r\n"));

    let text = edited(&windows, |accounts| by_name(accounts, "work").disabled = true).unwrap();

    let plain = edited(TEXT, |accounts| by_name(accounts, "work").disabled = true).unwrap();
    assert_eq!(text, format!("\u{feff}{}", plain.replace('\n', "\r\n")));
}

#[test]
fn an_unchanged_list_does_not_change_the_text() {
    let odd = "accounts=[{id='anthropic/a'}]#x\n\n\n";

    assert_eq!(edited(odd, |_| ()).unwrap(), odd);
}

#[test]
fn by_hand_describes_the_change_in_one_line() {
    let before = parsed(TEXT).accounts;
    let mut wanted = before.clone();
    wanted.push(AccountSettings::new(
        id("vault"),
        LoginSource::TokenCommand(vec!["pass".into(), "show".into()]),
    ));
    by_name(&mut wanted, "work").disabled = true;
    by_name(&mut wanted, "main").limits.killswitch = None;
    by_name(&mut wanted, "work").limits.min_remaining = Some(Limits::of(percent(20.0)));
    wanted.remove(2);

    let line = by_hand(&before, &wanted);
    let moved = by_hand(&before, &[before[1].clone(), before[0].clone(), before[2].clone()]);

    assert_eq!(
        line,
        "remove killswitch of anthropic/main; set disabled = true for anthropic/work; set min_remaining = 20 for anthropic/work; \
         add [[accounts]] with id = \"anthropic/vault\", token_command = [\"pass\", …]; remove anthropic/spare"
    );
    assert_eq!(moved, "put the accounts in this order: anthropic/work, anthropic/main, anthropic/spare");
}

/// Any sequence of changes keeps the rest of the text byte for byte, and loses no comment.
mod generated {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Add(u8, bool),
        Disable(u8, bool),
        Limit(u8, Option<u32>),
        Move(u8, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (any::<u8>(), any::<bool>()).prop_map(|(name, is_first)| Step::Add(name, is_first)),
            (any::<u8>(), any::<bool>()).prop_map(|(at, disabled)| Step::Disable(at, disabled)),
            (any::<u8>(), prop::option::of(0_u32..=10_000)).prop_map(|(at, left)| Step::Limit(at, left)),
            (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Step::Move(from, to)),
        ]
    }

    fn apply(accounts: &mut Vec<AccountSettings>, step: &Step) {
        let at = |at: u8, accounts: &[AccountSettings]| usize::from(at) % accounts.len();
        match *step {
            Step::Add(name, is_first) => {
                let new = account(&format!("new-{name}"), &format!("NEW_{name}"));
                if accounts.iter().all(|account| account.id != new.id) {
                    accounts.insert(if is_first { 0 } else { accounts.len() }, new);
                }
            }
            Step::Disable(index, disabled) => {
                let at = at(index, accounts);
                accounts[at].disabled = disabled;
            }
            Step::Limit(index, left) => {
                let at = at(index, accounts);
                accounts[at].limits.killswitch = left.map(Percent::from_basis_points).map(Limits::of);
            }
            Step::Move(from, to) => {
                let moved = accounts.remove(at(from, accounts));
                let to = usize::from(to) % (accounts.len() + 1);
                accounts.insert(to, moved);
            }
        }
    }

    fn comments(text: &str) -> Vec<&str> {
        let mut comments: Vec<_> =
            text.lines().filter_map(|line| line.find('#').map(|at| &line[at..])).collect();
        comments.sort_unstable();
        comments
    }

    proptest! {
        #[test]
        fn every_change_is_read_back_and_no_comment_is_lost(steps in prop::collection::vec(step(), 1..12)) {
            let mut text = TEXT.to_owned();
            for step in &steps {
                text = edited(&text, |accounts| apply(accounts, step)).expect("tables are always editable");
            }

            prop_assert_eq!(comments(&text), comments(TEXT));
            prop_assert!(text.contains("[policy]\nfreshness = \"2m\"  # often enough\n"));
        }
    }
}
