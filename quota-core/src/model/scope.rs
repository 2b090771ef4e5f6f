//! The part of an account that a window counts, and the requests that it includes. Providers display a model under one name
//! and accept another in requests; [`model_matches`] compares the two.

use serde::{Deserialize, Serialize};

use super::extra_fields::ExtraFields;

/// The part of an account that a window counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Scope {
    /// The model as the provider displays it; absent if the window counts one model that the source does not name.
    pub model: Option<String>,
    /// The surface (an application of the provider), as the provider names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surface: Option<String>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

impl Scope {
    /// Creates the scope of a window that counts one model.
    #[must_use]
    pub fn model(name: impl Into<String>) -> Self {
        Self { model: Some(name.into()), ..Self::default() }
    }

    /// Creates the scope of a window that counts one surface.
    #[must_use]
    pub fn surface(name: impl Into<String>) -> Self {
        Self { surface: Some(name.into()), ..Self::default() }
    }

    /// Creates the scope of a window that counts one model without a known name.
    #[must_use]
    pub fn unknown_model() -> Self {
        Self::default()
    }

    /// Whether a window with this scope counts requests for `model`, as requests name it.
    ///
    /// A scope with an unnamed model or a surface applies to no request, because it cannot be compared. A model's scope
    /// does not apply to a request without a model.
    ///
    /// ```
    /// use quota_core::model::Scope;
    ///
    /// assert!(Scope::model("Opus 4").applies_to(Some("claude-opus-4-5")));
    /// assert!(!Scope::model("Opus 4").applies_to(Some("claude-sonnet-4-5")));
    /// assert!(!Scope::model("Opus 4").applies_to(None));
    /// ```
    #[must_use]
    pub fn applies_to(&self, model: Option<&str>) -> bool {
        match (&self.model, &self.surface, model) {
            (Some(name), None, Some(model)) => model_matches(name, model),
            _ => false,
        }
    }
}

/// Whether `name`, as a provider displays it, refers to `model`, as requests name it.
///
/// All words of the name must be words of the model, in any order and case: `Opus 4` matches `claude-opus-4-5`, and `Opus`
/// matches every Opus. A name without words matches nothing.
///
/// ```
/// use quota_core::model::model_matches;
///
/// assert!(model_matches("Opus", "claude-opus-4-5-20260101"));
/// assert!(!model_matches("Opus 4", "claude-opus-5"));
/// ```
#[must_use]
pub fn model_matches(name: &str, model: &str) -> bool {
    let mut any = false;
    for word in words(name) {
        any = true;
        if !words(model).any(|other| other.eq_ignore_ascii_case(word)) {
            return false;
        }
    }
    any
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_the_models_that_contain_its_words() {
        assert!(model_matches("Opus", "claude-opus-4-5-20260101"));
        assert!(model_matches("Opus 4", "claude-opus-4-5"));
        assert!(!model_matches("Opus 4", "claude-opus-5"));
        assert!(!model_matches("Opus", "claude-sonnet-4-5"));
    }

    #[test]
    fn only_whole_words_match() {
        assert!(!model_matches("Pro", "prolite"));
    }

    #[test]
    fn a_name_without_words_matches_nothing() {
        assert!(!model_matches(" - ", "claude-opus-4-5"));
    }

    #[test]
    fn a_surface_or_an_unnamed_model_applies_to_no_request() {
        for scope in [Scope::surface("cowork"), Scope::unknown_model()] {
            assert!(!scope.applies_to(Some("claude-opus-4-5")), "{scope:?}");
        }
    }

    #[test]
    fn a_models_scope_does_not_apply_to_a_request_without_a_model() {
        assert!(!Scope::model("Opus").applies_to(None));
    }
}
