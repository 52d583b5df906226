//! The recipes of the book (`docs/recipes/`), as tests run them.

use crate::binaries::repository;

/// The settings of a recipe, with what a test has elsewhere: each text that a recipe has, and what stands in its place.
///
/// # Panics
/// When the recipe is not there, or has one of the texts no more.
#[track_caller]
#[must_use]
pub fn settings(name: &str, instead: &[(&str, &str)]) -> String {
    let path = repository().join("docs/recipes").join(name).join("edge.toml");
    let mut text =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (written, here) in instead {
        assert!(text.contains(written), "{} has no {written:?}", path.display());
        text = text.replace(written, here);
    }
    text
}
