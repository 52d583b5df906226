//! The bearer token that changes need: read from a file, the one in force shared with whoever checks it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;

use crate::settings::Settings;

/// Characters of a token at least.
const SHORTEST: usize = 16;

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("admin.token_file {}: {source}; write a long random word into it", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds no word, or a short one.
    #[error("admin.token_file {}: one word of at least {SHORTEST} printable characters is needed", path.display())]
    NoWord {
        /// The file.
        path: PathBuf,
    },
}

/// The token in force; `None` lets this machine's users make changes.
#[derive(Default)]
pub struct Token(ArcSwap<Option<Arc<str>>>);

/// Says whether there is one, never which.
impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Token").field(&self.0.load().as_ref().as_ref().map(|_| "…")).finish()
    }
}

impl Token {
    /// Puts another in force, for the next request.
    pub fn set(&self, token: Option<Arc<str>>) {
        self.0.store(Arc::new(token));
    }

    /// The one in force now.
    pub fn get(&self) -> Option<Arc<str>> {
        Option::clone(&self.0.load())
    }
}

/// The token that these settings name.
///
/// # Errors
/// [`TokenError`] when they name a file that holds none.
pub fn of(settings: &Settings) -> Result<Option<Arc<str>>, TokenError> {
    let file = settings.admin.as_ref().and_then(|admin| admin.token_file.as_deref());
    file.map(read).transpose()
}

/// The token in a file.
///
/// # Errors
/// [`TokenError`] when it holds none.
pub fn read(file: &Path) -> Result<Arc<str>, TokenError> {
    let path = || file.to_owned();
    let text = fs::read_to_string(file).map_err(|source| TokenError::Unread { path: path(), source })?;
    // Some editors begin a text with a byte order mark.
    let token = text.trim_start_matches('\u{feff}').trim();
    if token.len() >= SHORTEST && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(token.into())
    } else {
        Err(TokenError::NoWord { path: path() })
    }
}
