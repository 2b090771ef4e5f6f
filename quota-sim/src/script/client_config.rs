//! The configuration that makes the program `quota` use a simulator. This module only formats text. It neither reads nor sets
//! environment variables.

use std::fmt::Write as _;

use url::Url;

use super::Account;

pub(super) fn write(accounts: &[Account], url: &Url) -> String {
    let base = url.as_str().trim_end_matches('/');
    let mut text = format!(
        "# The accounts of a simulated provider at {base}; their tokens only work here.\n\
         # Export the tokens before you start the program:\n#\n"
    );
    for account in accounts {
        let _ = writeln!(text, "#   export {}={}", account.env_name(), account.token());
    }
    for account in accounts {
        let _ = write!(
            text,
            "\n[[accounts]]\nid = \"{}/{}\"\nbase_url = \"{base}\"\ntoken_env = \"{}\"\n",
            account.provider_name(),
            account.name(),
            account.env_name()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Script;

    #[test]
    fn the_config_has_every_account_and_its_token_variable() {
        let url = "http://127.0.0.1:8123/".parse().unwrap();

        let config = Script::new([Account::new("main"), Account::new("spare-2")]).client_config(&url);

        assert_eq!(
            config,
            "\
# The accounts of a simulated provider at http://127.0.0.1:8123; their tokens only work here.
# Export the tokens before you start the program:
#
#   export QUOTA_SIM_MAIN=sim-token-main
#   export QUOTA_SIM_SPARE_2=sim-token-spare-2

[[accounts]]
id = \"anthropic/main\"
base_url = \"http://127.0.0.1:8123\"
token_env = \"QUOTA_SIM_MAIN\"

[[accounts]]
id = \"anthropic/spare-2\"
base_url = \"http://127.0.0.1:8123\"
token_env = \"QUOTA_SIM_SPARE_2\"
"
        );
    }

    #[test]
    fn the_config_is_toml() {
        let url = "http://127.0.0.1:8123/".parse().unwrap();

        let config: toml::Table = Script::default().client_config(&url).parse().unwrap();

        assert_eq!(config["accounts"].as_array().unwrap().len(), 3);
    }
}
