//! The routes that clients got and may still report, by id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quota::Clock;
use quota::accounts::{FallbackAccountManager, Route};
use quota::clock::Instant;
use quota::model::RequestId;

/// The maximum number of routes in memory.
const MAX_ROUTES: usize = 10_000;
/// How often expired routes are removed.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(60);

/// The open routes of a gateway.
#[derive(Debug)]
pub(crate) struct OpenRoutes {
    table: Mutex<Table>,
    clock: Clock,
}

#[derive(Debug)]
struct Table {
    routes: HashMap<String, OpenRoute>,
    cleaned_at: Instant,
}

/// A route, and the router that made it, which a reload may have replaced since.
#[derive(Debug, Clone)]
pub(crate) struct OpenRoute {
    pub(crate) route: Arc<Route>,
    pub(crate) router: FallbackAccountManager,
    made_at: Instant,
}

impl OpenRoutes {
    /// How long a route may be reported. It is also how long its reservation lasts.
    pub(crate) const TTL: Duration = Duration::from_secs(10 * 60);

    pub(crate) fn new() -> Self {
        let clock = Clock::system();
        let table = Table { routes: HashMap::new(), cleaned_at: clock.instant() };
        Self { table: Mutex::new(table), clock }
    }

    /// Whether there are so many routes that another one would not fit.
    pub(crate) fn is_full(&self) -> bool {
        let mut table = self.table.lock();
        table.clean(self.clock.instant());
        table.routes.len() >= MAX_ROUTES
    }

    /// Adds a route, and returns its id.
    pub(crate) fn add(&self, route: Route, router: FallbackAccountManager) -> String {
        let id = RequestId::random().to_string();
        let made_at = self.clock.instant();
        let mut table = self.table.lock();
        table.clean(made_at);
        table.routes.insert(id.clone(), OpenRoute { route: Arc::new(route), router, made_at });
        id
    }

    /// The route with this id, until it expires. A report leaves it here, so that a client may repeat the report.
    pub(crate) fn get(&self, id: &str) -> Option<OpenRoute> {
        let now = self.clock.instant();
        self.table.lock().routes.get(id).filter(|route| !route.is_expired(now)).cloned()
    }
}

impl Table {
    fn clean(&mut self, now: Instant) {
        let is_due = now.saturating_since(self.cleaned_at) >= CLEANUP_INTERVAL;
        if is_due || self.routes.len() >= MAX_ROUTES {
            self.routes.retain(|_, route| !route.is_expired(now));
            self.cleaned_at = now;
        }
    }
}

impl OpenRoute {
    fn is_expired(&self, now: Instant) -> bool {
        now.saturating_since(self.made_at) >= OpenRoutes::TTL
    }
}

#[cfg(test)]
mod tests {
    use quota::accounts::{AccountsConfig, Request};
    use quota::{MemoryStore, QuotaManager};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_route_expires_with_its_reservation() {
        let manager = QuotaManager::builder(MemoryStore::new()).build().unwrap();
        let config = AccountsConfig::new("anthropic/main".parse().unwrap());
        let router = FallbackAccountManager::builder(config).quota_manager(manager).build().unwrap();
        let routes = OpenRoutes::new();
        let id = routes.add(router.route(Request::new()).await.unwrap(), router.clone());

        assert!(routes.get(&id).is_some() && routes.get("made-up").is_none());
        tokio::time::advance(OpenRoutes::TTL).await;
        assert!(routes.get(&id).is_none());
        assert_eq!(routes.table.lock().routes.len(), 1);
        assert!(!routes.is_full());
        assert_eq!(routes.table.lock().routes.len(), 0);
    }
}
