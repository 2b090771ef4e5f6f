//! The OpenAPI document of the gateway, generated from the handlers.

use utoipa::OpenApi;

/// The description of the API, which `docs/openapi.json` repeats.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "quota serve",
        description = "How much is left in each LLM account. Errors are problem details (RFC 9457).",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        super::accounts,
        super::account,
        super::refresh,
        super::observe,
        super::changes,
        super::stream::events,
        super::history::history,
        super::history::pace,
        super::routing::explain,
        super::routing::route,
        super::routing::report,
        super::routing::reserve,
        super::routing::release,
    )
)]
struct Document;

/// The OpenAPI 3.1 document of the gateway's own API.
#[must_use]
pub fn openapi() -> serde_json::Value {
    serde_json::to_value(Document::openapi()).expect("the document is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run with `UPDATE_OPENAPI=1` to write the file.
    #[test]
    fn the_committed_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let current = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &current).unwrap();
        }

        let committed = std::fs::read_to_string(path).unwrap_or_default();

        assert!(committed == current, "docs/openapi.json is outdated; run the test with UPDATE_OPENAPI=1");
    }

    #[test]
    fn the_document_is_openapi_3_1() {
        assert!(openapi()["openapi"].as_str().unwrap().starts_with("3.1"));
    }
}
