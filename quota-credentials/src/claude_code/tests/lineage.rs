//! Whose login it is.
//! What is read from the state file is tested beside its parser.

use super::*;

#[tokio::test]
async fn a_lineage_stays_when_the_token_is_renewed() {
    let home = Home::new();
    home.write(".claude.json", state("account-a", "org-a"));
    home.write(".claude/.credentials.json", login("sk-ant-oat01-old", EARLIER));
    let old = home.lineage().await;

    home.write(".claude/.credentials.json", login("sk-ant-oat01-new", LATER));
    let new = home.lineage().await;

    assert!(old.is_some());
    assert_eq!(new, old);
}

#[tokio::test]
async fn a_lineage_changes_when_somebody_else_logs_in() {
    let home = Home::new();
    home.write(".claude.json", state("account-a", "org-a"));
    home.write(".claude/.credentials.json", login("sk-ant-oat01-a", EARLIER));
    let a = home.lineage().await;

    home.write(".claude.json", state("account-b", "org-b"));
    let b = home.lineage().await;

    assert!(b.is_some());
    assert_ne!(a, b);
}

#[tokio::test]
async fn without_a_state_file_there_is_no_lineage() {
    for contents in [None, Some("{"), Some("{}")] {
        let home = Home::new();
        home.write(".claude/.credentials.json", login("sk-ant-oat01-a", EARLIER));
        if let Some(contents) = contents {
            home.write(".claude.json", contents);
        }

        assert_eq!(home.lineage().await, None, "{contents:?}");
    }
}

#[tokio::test]
async fn a_directory_of_its_own_has_a_state_file_of_its_own() {
    let home = Home::new();
    let own = home.path("own");
    let home = home.with("CLAUDE_CONFIG_DIR", own);
    home.write("own/.credentials.json", login("sk-ant-oat01-own", LATER));
    home.write(".claude.json", state("account-a", "org-a"));
    let of_the_home = home.lineage().await;

    home.write("own/.claude.json", state("account-b", "org-b"));
    let of_its_own = home.lineage().await;

    assert_eq!(of_the_home, None);
    assert!(of_its_own.is_some());
}

#[tokio::test]
async fn the_directory_claude_code_uses_by_itself_keeps_its_state_in_the_home_directory() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    home.write(".claude.json", state("account-a", "org-a"));

    let source = ClaudeCode::in_dir_on_machine("~/.claude".into(), &home.environment(), None);

    assert!(credential_of(&source).await.unwrap().login.lineage.is_some());
}

#[tokio::test]
async fn a_state_file_of_32_mebibytes_is_read_and_a_larger_one_is_not() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    let state = state("account-a", "org-a");

    home.write(".claude.json", padded(&state, 32 << 20));
    let whole = home.lineage().await;
    home.write(".claude.json", padded(&state, (32 << 20) + 1));
    let larger = home.lineage().await;

    assert!(whole.is_some());
    assert_eq!(larger, None);
}

#[tokio::test]
async fn what_else_the_state_file_holds_does_not_matter() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    let rest = r#"{"projects":{"/a":{"history":[null,1e999,"\ud800"]}},"#;
    home.write(".claude.json", state("account-a", "org-a").replacen('{', rest, 1));

    assert!(home.lineage().await.is_some());
}

#[tokio::test]
async fn a_copy_that_does_not_count_does_not_say_whose_it_is() {
    let home = Home::new();
    home.write(".claude.json", state("account-a", "org-a"));
    home.write(".claude/.credentials.json", login("sk-ant-oat01-first", EARLIER));
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-second", LATER));

    let copies = home.source().discover().await;

    let lineages = copies.iter().map(|copy| copy.result.as_ref().unwrap().login.lineage.is_some());
    assert_eq!(lineages.collect::<Vec<_>>(), [false, true]);
}
