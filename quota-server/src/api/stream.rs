//! `GET /v1/events`: the events of all accounts, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::broadcast::error::RecvError;

use super::authorize;
use crate::access::{AccessTokens, Role};
use crate::events::{Cursor, Message, Subscription, missed_json};
use crate::gateway::Gateway;
use crate::metrics::OpenStream;
use crate::problem::Problem;

/// The interval of the comments that keep the connection open. It is shorter than the timeouts of common proxies.
const HEARTBEAT: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Makes nginx forward each event immediately.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const TOO_MANY: Problem =
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many streams of events are open; try again later");

/// Follow what happens to the accounts
///
/// A stream of server-sent events. `ready` comes first, with the position of the client. `journal` is an event of an account: a
/// threshold, a reset, a hold, a failure, a call. `changed` names an account with new values. `missed` names accounts of which the
/// client missed events, so it must read them again. A client that connects with `Last-Event-ID` gets the `journal` events since then.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "the id of the last event that the client got"),
    ),
    responses(
        (status = 200, description = "the events, without end", body = String, content_type = "text/event-stream"),
        (status = 401, description = "no valid token"),
        (status = 503, description = "too many streams are open"),
    ))]
pub(super) async fn events(State(gateway): State<Gateway>, headers: HeaderMap) -> Response {
    // Subscribe before the check. A reload during the request then ends the stream, even if the check used the previous
    // tokens.
    let tokens = gateway.tokens();
    if let Err(refused) = authorize(&gateway, &headers, Role::Read) {
        return refused.into_response();
    }
    let Some(open) = gateway.metrics().open_stream(gateway.max_event_streams()) else {
        return TOO_MANY.into_response();
    };
    // An empty id counts as no id.
    let last = headers.get(LAST_EVENT_ID).filter(|last| !last.is_empty());
    let cursor = last.and_then(|last| Cursor::parse(last.to_str().ok()?));
    let store = gateway.journals().map(|journals| &journals.store);
    let subscription = gateway.events().subscribe(cursor.as_ref(), store).await;
    let is_unknown = last.is_some() && cursor.is_none();
    let client = Client::new(gateway, tokens, subscription, is_unknown, open);
    let events = stream::unfold(client, async |mut client| {
        let message = client.next().await?;
        let event = Event::default().event(message.name).data(&message.data);
        let event = match &message.id {
            Some(id) => event.id(id),
            None => event,
        };
        Some((Ok::<_, Infallible>(event), client))
    });
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    ([(BUFFERING, HeaderValue::from_static("no"))], events).into_response()
}

/// The state of one stream.
#[derive(Debug)]
struct Client {
    gateway: Gateway,
    /// A reload that changes the tokens ends the stream, so that the client must present its token again.
    tokens: Arc<AccessTokens>,
    first: VecDeque<Message>,
    subscription: Subscription,
    _open: OpenStream,
}

impl Client {
    fn new(
        gateway: Gateway,
        tokens: Arc<AccessTokens>,
        subscription: Subscription,
        is_unknown: bool,
        open: OpenStream,
    ) -> Self {
        let id = subscription.cursor.to_string();
        let ready = Message { name: "ready", id: Some(id), data: "{}".to_owned() };
        let missed = |data| Message { name: "missed", id: None, data };
        let mut first = VecDeque::from([ready]);
        if is_unknown {
            first.push_back(missed(missed_json("unknown_id", &gateway.events().accounts())));
        } else if !subscription.missed.is_empty() {
            first.push_back(missed(missed_json("not_in_journal", &subscription.missed)));
        }
        Self { gateway, tokens, first, subscription, _open: open }
    }

    /// The next message; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Arc<Message>> {
        let message = tokio::select! {
            biased;
            () = self.gateway.stopping() => return None,
            message = next(&self.gateway, &mut self.first, &mut self.subscription) => message?,
        };
        (self.gateway.tokens() == self.tokens).then_some(message)
    }
}

async fn next(
    gateway: &Gateway,
    first: &mut VecDeque<Message>,
    subscription: &mut Subscription,
) -> Option<Arc<Message>> {
    if let Some(message) = first.pop_front() {
        return Some(Arc::new(message));
    }
    if let Some(replayed) = subscription.replay.pop_front() {
        subscription.cursor.set(&replayed.account, replayed.mark);
        let id = Some(subscription.cursor.to_string());
        return Some(Arc::new(Message { name: "journal", id, data: replayed.data.as_ref().to_owned() }));
    }
    subscription.permit = None;
    match subscription.live.recv().await {
        Ok(message) => Some(message),
        Err(RecvError::Lagged(_)) => {
            gateway.metrics().count_missed();
            let data = missed_json("slow", &gateway.events().accounts());
            Some(Arc::new(Message { name: "missed", id: None, data }))
        }
        Err(RecvError::Closed) => None,
    }
}

#[cfg(test)]
mod tests {
    use quota::{AccountId, MemoryStore, QuotaManager};

    use super::*;
    use crate::served::ServedAccount;

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_learns_that_it_missed_events_and_goes_on() {
        let account: AccountId = "anthropic/main".parse().unwrap();
        let manager = QuotaManager::builder(MemoryStore::new()).build().unwrap();
        let gateway =
            Gateway::builder(&manager, [ServedAccount::new(account.clone()).disabled(true)]).build();
        let mut subscription = gateway.events().subscribe(None, None).await;
        let mut first = VecDeque::new();

        for _ in 0..1000 {
            gateway.events().changed(&account);
        }

        let missed = next(&gateway, &mut first, &mut subscription).await.unwrap();
        assert_eq!((missed.name, &missed.id), ("missed", &None));
        assert_eq!(missed.data, missed_json("slow", [&account]));
        assert_eq!(next(&gateway, &mut first, &mut subscription).await.unwrap().name, "changed");
    }
}
