//! What is kept of accounts, orders and certificates over a restart.
//!
//! Promises: a file is there whole or as it was; nobody but the edge's own user can read it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};

use crate::settings::Acme;

/// The folder of one authority.
#[derive(Clone, Debug)]
pub(super) struct Store {
    /// Where the account lies.
    home: PathBuf,
    /// Where orders and certificates lie, by their names.
    of_names: PathBuf,
}

/// An order that has been placed, and the key that its certificate is for.
#[derive(Serialize, Deserialize)]
pub(super) struct OpenOrder {
    pub(super) url: String,
    /// PEM.
    pub(super) key: String,
}

impl Store {
    pub(super) fn of(acme: &Acme) -> Self {
        Self { home: acme.home(), of_names: acme.home() }
    }

    /// The same account, and what clients have asked for.
    pub(super) fn on_demand(acme: &Acme) -> Self {
        Self { home: acme.home(), of_names: acme.on_demand_home() }
    }

    /// The account's credentials, if there is an account.
    pub(super) fn account(&self) -> io::Result<Option<AccountCredentials>> {
        read(&self.home.join("account.json"))
    }

    pub(super) fn keep_account(&self, credentials: &AccountCredentials) -> io::Result<()> {
        write(&self.home, "account.json", &serde_json::to_vec(credentials)?)
    }

    /// Forgets an account that the authority does not know any more.
    pub(super) fn forget_account(&self) -> io::Result<()> {
        remove(&self.home.join("account.json"))
    }

    /// The order for a name that is under way, if one is.
    pub(super) fn order(&self, name: &str) -> io::Result<Option<OpenOrder>> {
        read(&self.of_names.join(order_of(name)))
    }

    pub(super) fn keep_order(&self, name: &str, order: &OpenOrder) -> io::Result<()> {
        write(&self.of_names, &order_of(name), &serde_json::to_vec(order)?)
    }

    pub(super) fn forget_order(&self, name: &str) -> io::Result<()> {
        remove(&self.of_names.join(order_of(name)))
    }

    /// Where orders and certificates lie.
    pub(super) fn of_names(&self) -> &Path {
        &self.of_names
    }

    /// The certificates that are kept, by name, each in a file with its key.
    pub(super) fn certificates(&self) -> io::Result<Vec<(Box<str>, PathBuf)>> {
        let named = |path: PathBuf| Some((path.file_name()?.to_str()?.strip_suffix(".pem")?.into(), path));
        Ok(self.files()?.into_iter().filter_map(named).collect())
    }

    /// Removes what is left of orders that nobody went on with for [`ORDERS_KEPT`]. What cannot be removed is told of and stays: it
    /// takes room, and nothing else.
    pub(super) fn clear_orders(&self, now: SystemTime) {
        let is_order = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(&order_of("")))
        };
        let clear = |path: &Path| {
            let written = fs::metadata(path)?.modified()?;
            let is_old = now.duration_since(written).is_ok_and(|age| age > ORDERS_KEPT);
            if is_old { remove(path) } else { Ok(()) }
        };
        // Who cannot read the folder says so where certificates are read.
        let orders = self.files().unwrap_or_default().into_iter().filter(is_order);
        let mut stay = orders.filter_map(|path| clear(&path).err().map(|error| (path, error)));
        if let Some((path, error)) = stay.next() {
            let others = stay.count();
            tracing::warn!(others, "an order that is over stays in {}: {error}", path.display());
        }
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(&self.of_names) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.map(|entry| Ok(entry?.path())).collect(),
        }
    }

    /// Forgets a name's certificate.
    pub(super) fn forget_certificate(&self, name: &str) -> io::Result<()> {
        remove(&self.of_names.join(format!("{name}.pem")))
    }

    /// Keeps a certificate with its key in place of the one before.
    pub(super) fn keep_certificate(&self, name: &str, pem: &str) -> io::Result<()> {
        write(&self.of_names, &format!("{name}.pem"), pem.as_bytes())
    }
}

/// What cannot be read as what it is to be is as good as not there: the authority has all that it was.
fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(content) => Ok(serde_json::from_slice(&content).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))),
    }
}

/// Under another name first, and on the disk before it has its own.
fn write(folder: &Path, file: &str, content: &[u8]) -> io::Result<()> {
    let path = folder.join(file);
    let write = || {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let draft = folder.join(format!("{file}.new"));
        remove(&draft)?;
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        new.write_all(content)?;
        new.sync_all()?;
        fs::rename(&draft, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| {
        let what = format!("cannot write {}: {error}; let the edge's user write there", path.display());
        io::Error::new(error.kind(), what)
    })
}

/// Longer than an authority goes on with one.
const ORDERS_KEPT: Duration = Duration::from_secs(30 * 86_400);

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
        let home = folder.path().join("acme/authority");
        let store = Store { home: home.clone(), of_names: home };
        assert!(store.order("a.test").unwrap().is_none() && store.account().unwrap().is_none());
        // The draft of an edge that was killed.
        fs::create_dir_all(&store.home).unwrap();
        fs::write(store.home.join("a.test.order.json.new"), "half").unwrap();
        let order = OpenOrder { url: "https://ca.test/order/1".to_owned(), key: "key".to_owned() };
        store.keep_order("a.test", &order).unwrap();
        assert_eq!(store.order("a.test").unwrap().unwrap().url, order.url);
        store.keep_certificate("a.test", "KEY\nCHAIN\n").unwrap();
        let file = store.home.join("a.test.pem");
        assert_eq!(fs::read_to_string(&file).unwrap(), "KEY\nCHAIN\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // What somebody has broken is as good as gone.
        fs::write(store.home.join("a.test.order.json"), "{").unwrap();
        assert!(store.order("a.test").unwrap().is_none());
        store.forget_order("a.test").unwrap();
        store.forget_order("a.test").unwrap();
        assert_eq!(fs::read_dir(&store.home).unwrap().count(), 1, "no draft is left");
    }

    /// One old order that could not be removed had all certificates be as if there were none.
    #[test]
    fn old_orders_are_cleared_beside_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store { home: folder.path().to_owned(), of_names: folder.path().to_owned() };
        let order = OpenOrder { url: "https://ca.test/order/1".to_owned(), key: "key".to_owned() };
        for name in ["a.test", "c.test"] {
            store.keep_order(name, &order).unwrap();
        }
        // Nobody removes a folder as a file.
        fs::create_dir(folder.path().join("b.test.order.json")).unwrap();
        store.keep_certificate("a.test", "KEY\nCHAIN\n").unwrap();
        let file = folder.path().join("a.test.order.json");
        let written = fs::metadata(file).unwrap().modified().unwrap();
        store.clear_orders(written);
        assert!(store.order("a.test").unwrap().is_some(), "it may go on");
        store.clear_orders(written + ORDERS_KEPT + Duration::from_secs(60));
        assert!(store.order("a.test").unwrap().is_none() && store.order("c.test").unwrap().is_none());
        assert_eq!(store.certificates().unwrap(), [("a.test".into(), folder.path().join("a.test.pem"))]);
    }
}
