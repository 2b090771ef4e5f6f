//! Describes where a provider's own program stores its login, as plain data. The provider's description contains it,
//! and `quota-credentials` reads the login.

/// The file in which a provider's own program stores its login, and the location of the token in it.
///
/// Fields are JSON pointers (RFC 6901) in order of preference: the first that finds a string or number counts. A key
/// that ends with `*` matches any key with that prefix; all fields are then read from the first entry with a token. In
/// a pointer with a `#`, the first part finds a JSON Web Token, and the second part is a pointer into its claims.
///
/// ```
/// use quota_core::provider::ProgramLogin;
///
/// const LOGIN: ProgramLogin = ProgramLogin::new("Codex", "codex login", ".codex", &["auth.json"])
///     .dir_variable("CODEX_HOME")
///     .token(&["/tokens/access_token"])
///     .account_id(&["/tokens/account_id"])
///     .expires_at(&["/tokens/access_token#/exp"]);
/// assert_eq!(LOGIN.program, "Codex");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgramLogin {
    /// The name of the program.
    pub program: &'static str,
    /// The command that logs in.
    pub log_in: &'static str,
    /// The folder of the program, relative to the home directory.
    pub dir: &'static str,
    /// The environment variable that names another folder, if the program has one.
    pub dir_variable: Option<&'static str>,
    /// The folder relative to the one that the variable names; empty for that folder itself.
    pub below_variable: &'static str,
    /// The possible names of the file. The first one that exists is used.
    pub files: &'static [&'static str],
    /// The access token.
    pub token: &'static [&'static str],
    /// The provider's id of the account.
    pub account_id: &'static [&'static str],
    /// The provider's id of the user, if several users share an account but not its quota.
    pub user_id: &'static [&'static str],
    /// When the token expires.
    pub expires_at: &'static [&'static str],
    /// The plan of the account.
    pub plan: &'static [&'static str],
}

impl ProgramLogin {
    /// Describes the login of `program`, which the command `log_in` creates in one of these files in the folder `dir`
    /// below the home directory.
    #[must_use]
    pub const fn new(
        program: &'static str,
        log_in: &'static str,
        dir: &'static str,
        files: &'static [&'static str],
    ) -> Self {
        Self {
            program,
            log_in,
            dir,
            dir_variable: None,
            below_variable: "",
            files,
            token: &[],
            account_id: &[],
            user_id: &[],
            expires_at: &[],
            plan: &[],
        }
    }

    /// Sets the environment variable that names another folder, such as `CODEX_HOME`.
    #[must_use]
    pub const fn dir_variable(mut self, name: &'static str) -> Self {
        self.dir_variable = Some(name);
        self
    }

    /// Sets an environment variable with the parent of the folder, such as `XDG_CONFIG_HOME`, and the folder's name in it.
    #[must_use]
    pub const fn dir_variable_below(mut self, name: &'static str, below: &'static str) -> Self {
        self.dir_variable = Some(name);
        self.below_variable = below;
        self
    }

    /// Sets where the access token is.
    #[must_use]
    pub const fn token(mut self, pointers: &'static [&'static str]) -> Self {
        self.token = pointers;
        self
    }

    /// Sets where the provider's id of the account is. It identifies the login, and some requests must name it.
    #[must_use]
    pub const fn account_id(mut self, pointers: &'static [&'static str]) -> Self {
        self.account_id = pointers;
        self
    }

    /// Sets where the provider's id of the user is, if users of one account have separate quotas.
    #[must_use]
    pub const fn user_id(mut self, pointers: &'static [&'static str]) -> Self {
        self.user_id = pointers;
        self
    }

    /// Sets where the expiry of the token is: a Unix time in seconds or milliseconds, or an ISO 8601 date.
    #[must_use]
    pub const fn expires_at(mut self, pointers: &'static [&'static str]) -> Self {
        self.expires_at = pointers;
        self
    }

    /// Sets where the plan of the account is.
    #[must_use]
    pub const fn plan(mut self, pointers: &'static [&'static str]) -> Self {
        self.plan = pointers;
        self
    }
}
