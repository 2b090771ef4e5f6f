//! The routes that clients received and may still report, by id.

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
/// How long a route is kept after its report, so that the client can repeat the report.
const REPORTED_TTL: Duration = Duration::from_secs(60);
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

/// A route, and the router that chose it. A reload may have replaced the router since.
#[derive(Debug, Clone)]
pub(crate) struct OpenRoute {
    pub(crate) route: Arc<Route>,
    pub(crate) router: FallbackAccountManager,
    made_at: Instant,
    reported_at: Option<Instant>,
}

impl OpenRoutes {
    /// How long a route may be reported. It is also how long its reservation lasts.
    pub(crate) const TTL: Duration = Duration::from_secs(10 * 60);

    pub(crate) fn new() -> Self {
        let clock = Clock::system();
        let table = Table { routes: HashMap::new(), cleaned_at: clock.instant() };
        Self { table: Mutex::new(table), clock }
    }

    /// Whether the limit on open routes is reached.
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
        table
            .routes
            .insert(id.clone(), OpenRoute { route: Arc::new(route), router, made_at, reported_at: None });
        id
    }

    /// Returns the route with this id for a report, unless it has expired. The route is kept for a minute after its
    /// first report, so that the client can repeat the report.
    pub(crate) fn get_to_report(&self, id: &str) -> Option<OpenRoute> {
        let now = self.clock.instant();
        let mut table = self.table.lock();
        let route = table.routes.get_mut(id).filter(|route| !route.is_expired(now))?;
        route.reported_at.get_or_insert(now);
        Some(route.clone())
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
            || self.reported_at.is_some_and(|at| now.saturating_since(at) >= REPORTED_TTL)
    }
}

#[cfg(test)]
mod tests {
    use quota::accounts::{AccountsConfig, Request};
    use quota::{MemoryStore, QuotaManager};

    use super::*;

    async fn one_route() -> (OpenRoutes, String) {
        let manager = QuotaManager::builder(MemoryStore::new()).build().unwrap();
        let config = AccountsConfig::new("anthropic/main".parse().unwrap());
        let router = FallbackAccountManager::builder(config).quota_manager(manager).build().unwrap();
        let routes = OpenRoutes::new();
        let id = routes.add(router.route(Request::new()).await.unwrap(), router.clone());
        (routes, id)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reported_route_stays_for_a_minute() {
        let (routes, id) = one_route().await;

        assert!(routes.get_to_report(&id).is_some());
        tokio::time::advance(REPORTED_TTL / 2).await;
        assert!(routes.get_to_report(&id).is_some());
        tokio::time::advance(REPORTED_TTL / 2).await;
        assert!(routes.get_to_report(&id).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_expires_with_its_reservation() {
        let (routes, id) = one_route().await;

        tokio::time::advance(OpenRoutes::TTL / 2).await;
        assert!(routes.get_to_report("made-up").is_none());
        tokio::time::advance(OpenRoutes::TTL / 2).await;
        assert!(routes.get_to_report(&id).is_none());
        assert_eq!(routes.table.lock().routes.len(), 1);
        assert!(!routes.is_full());
        assert_eq!(routes.table.lock().routes.len(), 0);
    }
}
