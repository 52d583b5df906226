//! Why a listener has no TLS.

use std::{io, path::PathBuf};

use super::local_ca::LocalCaError;
use crate::settings::{FolderError, credentials::CredentialError};

/// Why there is no TLS. The message names the file and ends with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; correct the path, or let the edge make a local certificate (`local_ca = true`)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Credential(CredentialError),
    /// A folder of certificates cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A folder was to hold the listener's certificates.
    #[error("the folder {} holds no certificate: put NAME.crt with NAME.key there, or NAME/fullchain.pem with NAME/privkey.pem", path.display())]
    NoCertificate {
        /// The folder.
        path: PathBuf,
    },
    /// No certificate has the name that stands for all unknown ones.
    #[error(
        "no certificate of this listener is for {name}, which is `default`: name one of those that `edge check` lists"
    )]
    NoDefault {
        /// The name.
        name: Box<str>,
    },
    /// More than are held in memory.
    #[error("this listener has {found} {what}, and may have {most}: give some to a listener of their own")]
    TooMany {
        /// How many.
        found: usize,
        /// How many it may have.
        most: usize,
        /// Of what.
        what: &'static str,
    },
    /// A certificate of an authority for clients is none.
    #[error("{} holds a certificate of an authority that cannot be used: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The local certificate could not be made.
    #[error(transparent)]
    LocalCa(#[from] LocalCaError),
    /// rustls takes no configuration at all: no randomness, or a broken provider.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}

impl From<CredentialError> for TlsError {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Read { path, source } => Self::Read { path, source },
            other => Self::Credential(other),
        }
    }
}
