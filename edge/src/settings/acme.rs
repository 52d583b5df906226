//! Whom certificates are had from, for listeners that write a `domain`.

use std::{fmt::Write as _, path::PathBuf, sync::Arc};

use http::Uri;
use sha2::{Digest as _, Sha256};

use super::HostPattern;

/// A certificate authority that speaks ACME (RFC 8555), and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The URL of its directory.
    pub directory: Box<str>,
    /// Where it writes to when something is wrong with a certificate.
    pub email: Option<Box<str>>,
    /// Whether its terms are agreed to; where not, nothing may be had from it.
    pub terms_agreed: bool,
    /// One of those that the authority offers.
    pub profile: Option<Box<str>>,
    pub key_type: KeyType,
    /// An account that the operator has there already.
    pub eab: Option<ExternalAccount>,
    /// Where accounts, orders and certificates are kept.
    pub folder: PathBuf,
    /// The certificates of the authorities that certify the authority's own site; the system's where `None`.
    pub ca: Option<PathBuf>,
    /// For which names certificates are made when clients ask for them, at listeners that are so.
    pub on_demand: Option<Arc<OnDemandSettings>>,
}

/// For which names certificates are made when clients ask for them, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDemandSettings {
    /// Names that need no further word. A star is one label, as in certificates.
    pub names: Vec<HostPattern>,
    /// Who is asked about any other; they are refused where it is `None`.
    pub ask: Option<Uri>,
    /// How many certificates are kept.
    pub certificates: usize,
    /// How many names may get their first in any hour.
    pub orders_per_hour: usize,
}

impl OnDemandSettings {
    /// Whether a name in lower case needs no further word.
    pub fn lists(&self, name: &str) -> bool {
        let parent = name.find('.').map_or("", |dot| &name[dot..]);
        self.names.iter().any(|pattern| match pattern {
            HostPattern::Exact(exact) => **exact == *name,
            HostPattern::Below(suffix) => **suffix == *parent,
        })
    }
}

/// How many certificates are kept where the file does not say.
pub const ON_DEMAND_CERTIFICATES: usize = 1000;
/// And how many names get their first in an hour: Let's Encrypt takes 300 orders of an account in three.
pub const ON_DEMAND_ORDERS: usize = 60;

/// The kind of the certificates' keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyType {
    #[default]
    P256,
    P384,
}

/// An account outside of ACME that one in it is bound to (RFC 8555 §7.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    pub key_id: Box<str>,
    /// The file of its key, in base64url.
    pub key_file: PathBuf,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            directory: LETS_ENCRYPT.into(),
            email: None,
            terms_agreed: true,
            profile: None,
            key_type: KeyType::default(),
            eab: None,
            folder: "certs/acme".into(),
            ca: None,
            on_demand: None,
        }
    }
}

impl Acme {
    /// Where what comes from this authority is kept: each has a folder of its own.
    pub fn home(&self) -> PathBuf {
        let host = self.directory.split_once("://").map_or(&*self.directory, |(_, rest)| rest);
        let host = host.split(['/', ':', '@']).next().unwrap_or_default();
        let digest = Sha256::digest(self.directory.as_bytes());
        let print = digest.iter().take(4).fold(String::new(), |mut text, octet| {
            // A String takes whatever is written.
            let _ = write!(text, "{octet:02x}");
            text
        });
        self.folder.join(format!("{host}-{print}"))
    }

    /// The file of a name's certificate and key, together so that one always is of the other.
    pub fn file_of(&self, name: &str) -> PathBuf {
        self.home().join(format!("{name}.pem"))
    }

    /// Where those lie that clients have asked for.
    pub fn on_demand_home(&self) -> PathBuf {
        self.home().join("on-demand")
    }

    /// And each of them.
    pub fn on_demand_file_of(&self, name: &str) -> PathBuf {
        self.on_demand_home().join(format!("{name}.pem"))
    }
}

/// The directory of the authority that is asked where the file names none.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The one to try things with: nobody believes its certificates, and its limits are generous.
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// A name whose certificate the edge sees to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// In lower case.
    pub name: Box<str>,
    /// Where its certificate and key lie, once they are there.
    pub file: PathBuf,
}
