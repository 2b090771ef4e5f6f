//! Changes of accounts and credentials while the gateway runs.

use quota::Secret;
use quota::credentials::{CredentialMap, StaticCredential};
use quota_server::{LastResponses, ServedAccount};
use quota_sim::{Account, Change, Window};

use super::support::{Setup, main, manager};

const PATH: &str = "/api/oauth/usage";

fn accounts() -> [Account; 2] {
    let account = |name: &str, used| Account::new(name).windows([Window::five_hour().used(used)]);
    [account("main", 62.0), account("other", 5.0)]
}

#[tokio::test]
async fn a_rotated_credential_is_known_with_its_first_use() {
    let gateway = Setup::new(accounts()).start().await;
    gateway.simulator.set("main", Change::token("sim-token-rotated")).unwrap();
    gateway.main().set_credentials(StaticCredential::new(Secret::new("sim-token-rotated")));

    let response = gateway.get_with(PATH, "sim-token-rotated").await;

    assert_eq!(response.status(), 200, "{response:?}");
    // Its source states no login, so the previous credential may belong to another one.
    assert_eq!(gateway.get_with(PATH, "sim-token-main").await.status(), 401);
}

#[tokio::test]
async fn replaced_accounts_are_served_at_once() {
    let gateway = Setup::new(accounts()).start().await;
    let source = StaticCredential::new(Secret::new("sim-token-other"));
    let sources = CredentialMap::new().with(main(), source);
    let other = manager(&gateway.simulator, &LastResponses::default(), Some(sources));

    gateway.gateway.replace_accounts(&other, [ServedAccount::new(main())]).await;

    let response = gateway.get("/account/anthropic/main/api/oauth/usage", "").await;
    assert_eq!(response.json()["five_hour"]["utilization"], 5.0, "{response:?}");
    assert_eq!(gateway.get("/account/anthropic/other/api/oauth/usage", "").await.status(), 404);
    assert_eq!(gateway.get_with(PATH, "sim-token-main").await.status(), 401);
}
