//! The environment variables that pass a login to a provider's own program, as plain data. `quota run` sets them.

/// How `quota run` passes an account to the provider's own program.
///
/// ```
/// use quota_http::CommandEnvironment;
///
/// const ENVIRONMENT: CommandEnvironment =
///     CommandEnvironment::new().dir("CODEX_HOME", ".codex").remove(&["OPENAI_API_KEY"]);
/// assert_eq!(ENVIRONMENT.dir_variable, Some("CODEX_HOME"));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandEnvironment {
    /// The variable for the token; `None` if the program takes no token from its environment.
    pub token: Option<&'static str>,
    /// Other variables from which the program reads a login. `quota run` removes them if the account's login is not in
    /// the environment.
    pub other_tokens: &'static [&'static str],
    /// Whether the program needs the token even for the default login, because it does not read that login's file.
    pub is_token_required: bool,
    /// The variable for the folder in which the program keeps its login.
    pub dir_variable: Option<&'static str>,
    /// The default folder, relative to the home directory.
    pub default_dir: &'static str,
    /// The variable for the URL to which the program sends requests.
    pub base_url: Option<&'static str>,
    /// The variable for headers that the program adds to requests. `quota run` removes it if the headers contain a
    /// login.
    pub headers: Option<&'static str>,
    /// Variables that select another login, provider or host, so that another account would be billed.
    pub remove: &'static [&'static str],
}

impl CommandEnvironment {
    /// Creates an environment without variables.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            token: None,
            other_tokens: &[],
            is_token_required: false,
            dir_variable: None,
            default_dir: "",
            base_url: None,
            headers: None,
            remove: &[],
        }
    }

    /// Sets the variable for the token, and other variables from which the program reads a login.
    #[must_use]
    pub const fn token(mut self, name: &'static str, others: &'static [&'static str]) -> Self {
        self.token = Some(name);
        self.other_tokens = others;
        self
    }

    /// States that the program does not read the file of the default login, so that it always needs the token.
    #[must_use]
    pub const fn require_token(mut self) -> Self {
        self.is_token_required = true;
        self
    }

    /// Sets the variable for the program's folder, and the default folder relative to the home directory.
    #[must_use]
    pub const fn dir(mut self, name: &'static str, default: &'static str) -> Self {
        self.dir_variable = Some(name);
        self.default_dir = default;
        self
    }

    /// Sets the variable for the URL.
    #[must_use]
    pub const fn base_url(mut self, name: &'static str) -> Self {
        self.base_url = Some(name);
        self
    }

    /// Sets the variable for headers.
    #[must_use]
    pub const fn headers(mut self, name: &'static str) -> Self {
        self.headers = Some(name);
        self
    }

    /// Sets the variables that select another login, provider or host.
    #[must_use]
    pub const fn remove(mut self, names: &'static [&'static str]) -> Self {
        self.remove = names;
        self
    }
}
