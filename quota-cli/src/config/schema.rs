//! The JSON Schema of the configuration, generated from the types of `file`. The tests compare it with
//! `docs/config.schema.json`, and validate the examples in the documentation.

use std::path::Path;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::file::ConfigFile;
use super::{Config, SCHEMA};

/// Set by `scripts/captures`: write the file instead of comparing it.
const WRITE_VARIABLE: &str = "QUOTA_WRITE_CAPTURES";

fn generated() -> String {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<ConfigFile>();
    schema.insert("title".to_owned(), "The configuration of quota".into());
    let mut schema = schema.to_value();
    simplify(&mut schema);
    serde_json::to_string_pretty(&schema).unwrap() + "\n"
}

/// Removes null, which TOML does not have, and links to Rust items in descriptions.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            if let Some(Value::String(text)) = keys.get_mut("description") {
                *text = plain(text);
            }
            if let Some(Value::Array(types)) = keys.get_mut("type") {
                types.retain(|name| name != "null");
                let only = types.pop().filter(|_| types.is_empty()).unwrap();
                keys.insert("type".to_owned(), only);
            }
            if let Some(Value::Array(choices)) = keys.get_mut("anyOf") {
                choices.retain(|choice| choice["type"] != "null");
                if let [Value::Object(only)] = &mut choices[..] {
                    let only = std::mem::take(only);
                    keys.remove("anyOf");
                    keys.extend(only);
                }
            }
            keys.values_mut().for_each(simplify);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(simplify),
        _ => {}
    }
}

fn plain(text: &str) -> String {
    let text = text.replace("\n\n", "\0").replace('\n', " ").replace('\0', "\n\n");
    let mut plain = String::new();
    let mut rest = &*text;
    while let Some((before, link)) = rest.split_once("[`") {
        let (name, after) = link.split_once("`]").unwrap();
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        plain.extend([before, "`", name, "`"]);
        rest = target.map_or(after, |(_, after)| after);
    }
    plain + rest
}

/// Checks the text of a configuration against the schema.
pub(crate) fn assert_valid(text: &str) {
    let errors = errors(text);
    assert!(errors.is_empty(), "{errors:#?} in\n{text}");
}

fn errors(text: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let document = serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
    let errors = validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path()));
    errors.collect()
}

/// The TOML blocks of a page that are configurations.
fn examples(page: &str) -> impl Iterator<Item = &str> {
    let blocks = page.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.filter(|block| !block.contains("[dependencies]"))
}

#[test]
fn the_schema_in_docs_is_current() {
    let current = generated();
    if std::env::var_os(WRITE_VARIABLE).is_some() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        std::fs::write(docs.join("config.schema.json"), &current).unwrap();
    }

    assert!(
        std::env::var_os(WRITE_VARIABLE).is_some() || SCHEMA == current,
        "docs/config.schema.json is outdated; run scripts/captures and review it"
    );
}

#[test]
fn the_examples_of_the_documentation_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut found = 0;
    for page in pages.chain([root.join("README.md")]) {
        let page = std::fs::read_to_string(page).unwrap();
        for example in examples(&page) {
            assert_valid(example);
            found += 1;
        }
    }
    assert!(found >= 3, "{found} examples");
}

#[test]
fn what_the_program_rejects_by_its_form_is_invalid() {
    for text in [
        "polcy = {}",
        "[policy]\nmax_agee = \"5m\"",
        "[policy]\nmax_age = 5",
        "[policy.budget]\nper_hour = \"many\"",
        "[routing]\nmode = \"random\"",
        "[routing]\nwhen_unknown = \"deny_stale\"",
        "[routing]\nkillswitch = 101",
        "[routing]\nfallback_on = [200]",
        "[[accounts]]",
        "[[accounts]]\nid = \"anthropic/main\"\ntoken_command = \"pass\"",
        "[[accounts]]\nid = \"anthropic/main\"\nkeyring = {}",
        "[[providers]]\nname = \"without an id\"",
        "[providers.anthropic]\nid = \"anthropic\"",
        "[[providers]]\nid = \"mine\"\nplan = 5",
        "[[providers]]\nid = \"mine\"\nowner = \"owner\"",
        "[[hooks]]\non = [\"dawn\"]\nrun = [\"true\"]",
        "[[hooks]]\non = []\nrun = [\"true\"]",
        "[[hooks]]\non = [\"reset\"]",
        "[[hooks]]\non = [\"reset\"]\nrun = [\"true\"]\npost = \"https://example.com\"",
    ] {
        assert!(Config::parse(text, Path::new(""), &[]).is_err(), "{text}");
        assert!(!errors(text).is_empty(), "{text}");
    }
}

#[test]
fn what_the_program_accepts_is_valid() {
    for text in [
        "",
        "[policy]\nmax_age = \"2m\"\nrate_limit_backoff = { initial = \"1m\", max = \"5m\" }\ncooldown = { scope = \"account\" }",
        "[policy]\non_store_unavailable = \"fail_closed\"\nbudget = { per_hour = 12 }",
        "[routing]\nmode = \"sticky_balanced\"\nmin_remaining = { every = 20, five_hour = 10.5 }\nfallback_on = [429, 503]",
        "[providers.anthropic]\nbase_url = \"https://proxy.example.com\"\nheaders = { anthropic-beta = \"x\" }",
        "[[accounts]]\nid = \"anthropic/main\"\nkeyring = { service = \"quota\" }\nkillswitch = 5\ndisabled = true",
        "[[accounts]]\nid = \"openai/work\"\nlogin_dir = \"~/.codex-work\"",
    ] {
        assert!(Config::parse(text, Path::new(""), &[]).is_ok(), "{text}");
        assert_valid(text);
    }
}
