//! The JSON format of stored logins.

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
    let login = file.logins.get_mut(&main()).unwrap();
    login.login_id = LoginId::new("a-login");
    login.used_refresh_tokens = vec![CredentialFingerprint::from_hash(7)];
    login.last_failure = Some(RenewalFailure {
        fingerprint: CredentialFingerprint::from_hash(8),
        kind: FailureKind::Transient,
        at: at(1),
        retry_at: at(31),
        attempts: 1,
        reason: "the provider answered with status 503".into(),
        unknown: Map::new(),
    });
    file
}

#[test]
fn the_stored_format() {
    insta::assert_json_snapshot!(file());
}

#[test]
fn written_logins_are_read_back() {
    let text = serde_json::to_string(&file()).unwrap();

    let read: LoginsFile = serde_json::from_str(&text).unwrap();

    assert_eq!(serde_json::to_string(&read).unwrap(), text);
}

#[test]
fn fields_and_kinds_of_a_newer_program_are_preserved() {
    let text = r#"{"version":2,"logins":{"anthropic/main":{"access_token":"a","login_id":"l","colour":"green",
        "last_failure":{"fingerprint":"0000000000000007","kind":"new","at_ms":0,"retry_at_ms":9,"attempts":1,"reason":"w","size":"big"}}},
        "shape":"round"}"#;

    let mut file: LoginsFile = serde_json::from_str(text).unwrap();
    assert!(serde_json::to_string(&file).unwrap().contains(r#""kind":"new""#));
    let _ = file.put(main(), NewLogin::new(Secret::new("b")), at(0));
    let written = serde_json::to_string(&file).unwrap();

    assert!(written.contains("green") && written.contains("round"), "{written}");
}

#[test]
fn debug_shows_no_token() {
    let text = format!("{:?}", file().logins);

    assert!(
        !text.contains("token\"") && !text.contains("an-access") && !text.contains("a-refresh"),
        "{text}"
    );
}
