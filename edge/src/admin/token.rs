//! The bearer token that changes need: the one in force, shared with whoever checks it.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;

use crate::settings::{Settings, Token, TokenError, read_token};

/// The token in force; `None` lets this machine's users make changes.
#[derive(Default)]
pub struct TokenInForce(ArcSwap<Option<Token>>);

/// Says whether there is one, never which.
impl std::fmt::Debug for TokenInForce {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("TokenInForce").field(&self.0.load().as_ref().as_ref().map(|_| "…")).finish()
    }
}

impl TokenInForce {
    /// Puts another in force, for the next request.
    pub fn set(&self, token: Option<Token>) {
        self.0.store(Arc::new(token));
    }

    /// The one in force now.
    pub fn get(&self) -> Option<Token> {
        Option::clone(&self.0.load())
    }
}

/// The token that these settings name.
///
/// # Errors
/// [`TokenError`] when they name a file that holds none.
pub fn of(settings: &Settings) -> Result<Option<Token>, TokenError> {
    let file = settings.admin.as_ref().and_then(|admin| admin.token_file.as_deref());
    file.map(read).transpose()
}

/// The token in a file.
///
/// # Errors
/// [`TokenError`] when it holds none.
pub fn read(file: &Path) -> Result<Token, TokenError> {
    read_token("admin.token_file", file)
}
