//! Whether a window or a block that counts one model counts the model of a request.
//! Providers name models to people in one way and take them in requests in another.

use quota_core::Scope;

/// Whether `model`, as requests name it, is meant by `name`, as people are told it: all words of the name are in it.
///
/// `Opus 4` means `claude-opus-4-5`, and `Opus` means every opus.
pub(crate) fn is_meant(name: &str, model: &str) -> bool {
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

/// Whether what has this scope counts a request for `model`.
///
/// A window of a model that is not named, or of a surface, tells nothing about any request: it holds nobody up.
pub(crate) fn applies(scope: Option<&Scope>, model: Option<&str>) -> bool {
    let Some(scope) = scope else { return true };
    match (&scope.model, &scope.surface, model) {
        (Some(name), None, Some(model)) => is_meant(name, model),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_people_means_the_models_that_have_its_words() {
        assert!(is_meant("Opus", "claude-opus-4-5-20260101"));
        assert!(is_meant("Opus 4", "claude-opus-4-5"));
        assert!(!is_meant("Opus 4", "claude-opus-5"));
        assert!(!is_meant("Opus", "claude-sonnet-4-5"));
    }

    #[test]
    fn a_word_is_meant_whole() {
        assert!(!is_meant("Pro", "prolite"));
    }

    #[test]
    fn a_name_without_words_means_nothing() {
        assert!(!is_meant(" - ", "claude-opus-4-5"));
    }

    #[test]
    fn what_counts_everything_counts_every_request() {
        assert!(applies(None, None) && applies(None, Some("claude-opus-4-5")));
    }

    #[test]
    fn what_counts_a_surface_or_an_unnamed_model_holds_nobody_up() {
        for scope in [Scope::surface("cowork"), Scope::unnamed()] {
            assert!(!applies(Some(&scope), Some("claude-opus-4-5")), "{scope:?}");
        }
    }

    #[test]
    fn a_request_that_names_no_model_is_not_held_up_by_one_models_window() {
        assert!(!applies(Some(&Scope::model("Opus")), None));
    }
}
