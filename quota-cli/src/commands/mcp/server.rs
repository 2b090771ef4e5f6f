//! Answers the requests of a client with the tools and the resources.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use futures_util::future::join_all;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, CustomRequest, CustomResult,
    ErrorCode, ErrorData, Implementation, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    ResourceContents, ResourceUpdatedNotificationParam, ServerCapabilities, ServerConfig,
    SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::{RoleServer, ServerHandler};
use serde_json::Value;
use tokio::task::{AbortHandle, JoinSet};

use super::calls::Calls;
use super::events::{self, EventsUri};
use super::tools::{self, Purpose, ToolCall};
use super::waiting::Waiter;
use crate::exit::CliError;
use crate::view::decision_json;

const INSTRUCTIONS: &str = "\
quota knows how much is left in the user's LLM accounts, such as the 5-hour and 7-day windows of a Claude or Codex subscription. Call \
quota_status to see the windows, quota_pick to choose the account for the next work, and quota_wait in place of sleeping when all \
accounts are exhausted. It shares its readings with other programs, so its tools are cheap.";

/// The methods of this server. If a request for one of them cannot be parsed, its parameters are wrong.
const METHODS: [&str; 9] = [
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
];

/// The server of one connection.
pub(super) struct Server {
    calls: Rc<Calls>,
    /// The tasks that follow subscribed resources. They end when this value is dropped.
    followers: RefCell<JoinSet<()>>,
    subscriptions: RefCell<HashMap<String, AbortHandle>>,
}

impl Server {
    pub(super) fn new(calls: Rc<Calls>) -> Self {
        Self { calls, followers: RefCell::default(), subscriptions: RefCell::default() }
    }

    async fn run(&self, call: ToolCall, context: &RequestContext<RoleServer>) -> Result<String, CliError> {
        let (calls, cancelled) = (&*self.calls, &context.ct);
        match call {
            ToolCall::Status(params) => {
                calls.run(cancelled, async |scope| tools::status(calls, scope, params).await).await
            }
            ToolCall::Pick(request) => {
                let (decision, _) = tools::decide(calls, cancelled, &request, Purpose::Pick).await?;
                Ok(decision_json::pick(&decision))
            }
            ToolCall::Explain(request) => tools::explain(calls, cancelled, &request).await,
            ToolCall::Wait(request, max_wait) => {
                let progress = context.meta.get_progress_token();
                let waiter = Waiter { calls, cancelled, peer: &context.peer, progress };
                waiter.wait(&request, max_wait).await
            }
        }
    }

    /// The resource with this name.
    async fn resource(&self, uri: &str) -> Result<EventsUri, ErrorData> {
        let parsed = EventsUri::parse(uri);
        match parsed {
            Some(parsed) if parsed.exists(&self.calls).await => Ok(parsed),
            _ => Err(ErrorData::resource_not_found(
                "there is no resource with this name; resources/list lists them",
                None,
            )),
        }
    }
}

fn failed(error: &CliError) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_resources_subscribe()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("quota", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::list()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let call = ToolCall::parse(&request.name, request.arguments.unwrap_or_default())?;
        let result = match self.run(call, &context).await {
            Ok(document) => {
                let document: Value = serde_json::from_str(&document).expect("it is a JSON document");
                CallToolResult::structured(document)
            }
            Err(error) => CallToolResult::error(vec![ContentBlock::text(error.to_string())]),
        };
        Ok(result.into())
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resources = events::list(&self.calls).await.map_err(|error| failed(&error))?;
        Ok(ListResourcesResult::with_all_items(resources))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(vec![events::template()]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let resource = self.resource(&request.uri).await?;
        let text = resource.read(&self.calls, &context.ct).await.map_err(|error| failed(&error))?;
        let contents = ResourceContents::text(text, request.uri).with_mime_type(events::MIME_TYPE);
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let resource = self.resource(&request.uri).await?;
        let (calls, peer, uri) = (Rc::clone(&self.calls), context.peer, request.uri.clone());
        let follower = async move {
            let notify = async || {
                let updated = ResourceUpdatedNotificationParam::new(uri.clone());
                peer.notify_resource_updated(updated).await.is_ok()
            };
            resource.follow(&calls, notify).await;
        };
        let mut followers = self.followers.borrow_mut();
        // Tasks that were aborted.
        while followers.try_join_next().is_some() {}
        let follower = followers.spawn_local(follower);
        if let Some(previous) = self.subscriptions.borrow_mut().insert(request.uri, follower) {
            previous.abort();
        }
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if let Some(follower) = self.subscriptions.borrow_mut().remove(&request.uri) {
            follower.abort();
        }
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let uris = requested.resource_subscriptions.iter().flatten();
        let known: Vec<_> = uris.filter(|uri| EventsUri::parse(uri).is_some()).cloned().collect();
        Some(SubscriptionFilter::builder().resource_subscriptions(known).build())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let uris = context.accepted().resource_subscriptions.clone().unwrap_or_default();
        let followers =
            uris.iter().filter_map(|uri| Some((uri, EventsUri::parse(uri)?))).map(|(uri, resource)| {
                let sink = context.sink();
                async move {
                    resource
                        .follow(&self.calls, async || sink.notify_resource_updated(uri).await.is_ok())
                        .await;
                }
            });
        tokio::select! {
            _ = join_all(followers) => {}
            () = context.cancelled() => {}
        }
        Ok(())
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        if METHODS.contains(&&*request.method) {
            return Err(ErrorData::invalid_params("the parameters of the request are invalid", None));
        }
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "the server does not have this method", None))
    }
}
