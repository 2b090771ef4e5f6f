//! Ordinary traffic tells what is used, without a call to the usage endpoint.

use quota::anthropic::parse_headers;
use quota::{Used, WindowId};

use crate::messages::Messages;
use crate::world::*;

#[tokio::test]
async fn headers_of_ordinary_answers_are_seen_at_once_and_cost_no_call() {
    let simulator = provider([account("main")]).await;
    let quota = lone_process(&simulator, tokens(["main"]), policy());
    let main = quota.account(&id("main"));
    drop(main.get().await.unwrap());

    let told = Messages::to(&simulator).await.send("sim-token-main", "", 12.5).await;
    let headers = told.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let parsed = parse_headers(Some(told.status), headers);
    main.observe(&parsed.usage).unwrap();

    assert_eq!(main.peek().used(&WindowId::five_hour()), Used::Exact(percent(42.5)));
    assert_eq!(simulator.stop().await.account("main").unwrap().calls, 1);
}
