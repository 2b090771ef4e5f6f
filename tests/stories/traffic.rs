//! The headers of ordinary responses update readings without a call to the usage endpoint.

use quota::anthropic::parse_headers;
use quota::{Used, WindowId};

use crate::fixture::*;
use crate::messages::Messages;

#[tokio::test]
async fn headers_of_ordinary_responses_are_visible_at_once_without_a_call() {
    let simulator = provider([account("main")]).await;
    let quota = single_process(&simulator, tokens(["main"]), policy());
    let main = quota.account(&id("main"));
    drop(main.get().await.unwrap());

    let response = Messages::to(&simulator).await.send("sim-token-main", "", 12.5).await;
    let headers = response.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let parsed = parse_headers(Some(response.status), headers);
    main.observe(&parsed.usage).unwrap();

    assert_eq!(main.peek().used(&WindowId::five_hour()), Used::Exact(percent(42.5)));
    assert_eq!(simulator.stop().await.account("main").unwrap().calls, 1);
}
