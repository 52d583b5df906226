//! What is kept of accounts, orders and certificates over a restart.
//!
//! Promises: a file is there whole or as it was; nobody but the edge's own user can read it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};

use crate::settings::Acme;

/// The folder of one authority.
#[derive(Clone, Debug)]
pub(super) struct Store(PathBuf);

/// An order that has been placed, and the key that its certificate is for.
#[derive(Serialize, Deserialize)]
pub(super) struct OpenOrder {
    pub(super) url: String,
    /// PEM.
    pub(super) key: String,
}

impl Store {
    pub(super) fn of(acme: &Acme) -> Self {
        Self(acme.home())
    }

    /// The account's credentials, if there is an account.
    pub(super) fn account(&self) -> io::Result<Option<AccountCredentials>> {
        self.read("account.json")
    }

    pub(super) fn keep_account(&self, credentials: &AccountCredentials) -> io::Result<()> {
        self.write("account.json", &serde_json::to_vec(credentials)?)
    }

    /// Forgets an account that the authority does not know any more.
    pub(super) fn forget_account(&self) -> io::Result<()> {
        remove(&self.0.join("account.json"))
    }

    /// The order for a name that is under way, if one is.
    pub(super) fn order(&self, name: &str) -> io::Result<Option<OpenOrder>> {
        self.read(&order_of(name))
    }

    pub(super) fn keep_order(&self, name: &str, order: &OpenOrder) -> io::Result<()> {
        self.write(&order_of(name), &serde_json::to_vec(order)?)
    }

    pub(super) fn forget_order(&self, name: &str) -> io::Result<()> {
        remove(&self.0.join(order_of(name)))
    }

    /// Keeps a certificate with its key in place of the one before.
    pub(super) fn keep_certificate(&self, name: &str, pem: &str) -> io::Result<()> {
        self.write(&format!("{name}.pem"), pem.as_bytes())
    }

    /// What cannot be read as what it is to be is as good as not there: the authority has all that it was.
    fn read<T: for<'de> Deserialize<'de>>(&self, file: &str) -> io::Result<Option<T>> {
        let path = self.0.join(file);
        match fs::read(&path) {
            Ok(content) => Ok(serde_json::from_slice(&content).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))
            }
        }
    }

    /// Under another name first, and on the disk before it has its own.
    fn write(&self, file: &str, content: &[u8]) -> io::Result<()> {
        let path = self.0.join(file);
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            let draft = self.0.join(format!("{file}.new"));
            remove(&draft)?;
            let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            new.write_all(content)?;
            new.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|error| {
            let what = format!("cannot write {}: {error}; let the edge's user write there", path.display());
            io::Error::new(error.kind(), what)
        })
    }
}

fn order_of(name: &str) -> String {
    format!("{name}.order.json")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_kept_is_its_owners_alone_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store(folder.path().join("acme/authority"));
        assert!(store.order("a.test").unwrap().is_none() && store.account().unwrap().is_none());
        // The draft of an edge that was killed.
        fs::create_dir_all(&store.0).unwrap();
        fs::write(store.0.join("a.test.order.json.new"), "half").unwrap();
        let order = OpenOrder { url: "https://ca.test/order/1".to_owned(), key: "key".to_owned() };
        store.keep_order("a.test", &order).unwrap();
        assert_eq!(store.order("a.test").unwrap().unwrap().url, order.url);
        store.keep_certificate("a.test", "KEY\nCHAIN\n").unwrap();
        let file = store.0.join("a.test.pem");
        assert_eq!(fs::read_to_string(&file).unwrap(), "KEY\nCHAIN\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // What somebody has broken is as good as gone.
        fs::write(store.0.join("a.test.order.json"), "{").unwrap();
        assert!(store.order("a.test").unwrap().is_none());
        store.forget_order("a.test").unwrap();
        store.forget_order("a.test").unwrap();
        assert_eq!(fs::read_dir(&store.0).unwrap().count(), 1, "no draft is left");
    }
}
