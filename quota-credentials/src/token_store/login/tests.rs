//! The form in which logins are kept.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn main() -> AccountId {
    "anthropic/main".parse().unwrap()
}

fn file() -> LoginsFile {
    let mut file = LoginsFile::default();
    let login = NewLogin::new(Secret::new("an-access-token")).refresh_token(Secret::new("a-refresh-token"));
    let _ = file.put(main(), login.expires_at(at(3600)).plan("max"), at(0));
    let kept = file.logins.get_mut(&main()).unwrap();
    kept.lineage = LoginId::new("a-lineage");
    kept.spent = vec![CredentialFingerprint::from_hash(7)];
    kept.trouble = Some(Trouble {
        mark: CredentialFingerprint::from_hash(8),
        kind: TroubleKind::Transient,
        since: at(1),
        until: at(31),
        tries: 1,
        why: "the provider answered with status 503".into(),
        unknown: Map::new(),
    });
    file
}

#[test]
fn logins_are_kept_in_this_form() {
    insta::assert_json_snapshot!(file());
}

#[test]
fn what_is_written_is_read_again() {
    let text = serde_json::to_string(&file()).unwrap();

    let read: LoginsFile = serde_json::from_str(&text).unwrap();

    assert_eq!(serde_json::to_string(&read).unwrap(), text);
}

// B97
#[test]
fn fields_and_kinds_of_a_newer_program_survive() {
    let text = r#"{"version":1,"logins":{"anthropic/main":{"access_token":"a","lineage":"l","colour":"green",
        "trouble":{"mark":"0000000000000007","kind":"new","since_ms":0,"until_ms":9,"tries":1,"why":"w","size":"big"}}},
        "shape":"round"}"#;

    let mut file: LoginsFile = serde_json::from_str(text).unwrap();
    assert!(serde_json::to_string(&file).unwrap().contains(r#""kind":"new""#));
    let _ = file.put(main(), NewLogin::new(Secret::new("b")), at(0));
    let written = serde_json::to_string(&file).unwrap();

    assert!(written.contains("green") && written.contains("round"), "{written}");
}

#[test]
fn nothing_of_a_login_is_shown() {
    let shown = format!("{:?}", file().logins);

    assert!(
        !shown.contains("token\"") && !shown.contains("an-access") && !shown.contains("a-refresh"),
        "{shown}"
    );
}
