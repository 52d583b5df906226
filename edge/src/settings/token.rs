//! Words that prove who asks, from files.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Characters of a token at least.
const SHORTEST: usize = 16;

/// A long random word. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// Whether that is it. Takes as long for every wrong word of the right length.
    pub fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        own.len() == given.len() && own.iter().zip(given).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }

    /// To be sent to whom it is for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("{key} {}: {source}; write a long random word into it", path.display())]
    Unread {
        /// By which the settings name the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds no word, or a short one.
    #[error("{key} {}: one word of at least {SHORTEST} printable characters is needed", path.display())]
    NoWord {
        /// By which the settings name the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
}

/// The token in a file that the settings name by this key.
///
/// # Errors
/// [`TokenError`] when it holds none.
pub fn read_token(key: &'static str, file: &Path) -> Result<Token, TokenError> {
    let path = || file.to_owned();
    let text = fs::read_to_string(file).map_err(|source| TokenError::Unread { key, path: path(), source })?;
    // Some editors begin a text with a byte order mark.
    let token = text.trim_start_matches('\u{feff}').trim();
    if token.len() >= SHORTEST && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(Token(token.into()))
    } else {
        Err(TokenError::NoWord { key, path: path() })
    }
}

#[cfg(test)]
impl From<&str> for Token {
    fn from(word: &str) -> Self {
        Self(word.into())
    }
}
