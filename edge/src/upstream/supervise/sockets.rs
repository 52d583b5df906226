//! A Unix socket for each instance, in a folder that is the command's own.
//!
//! The folder lies in another one, which is the edge's: a user who owned it in a place that all may write to could put
//! something else there, and the edge would act upon that.

use std::{
    fs::{self, DirBuilder},
    hash::{BuildHasher as _, RandomState},
    io,
    os::unix::fs::{DirBuilderExt as _, chown},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rustix::process::{getegid, geteuid};

use super::identity::Identity;

/// Bytes of a socket's path, by unix(7), without the one that ends it.
const LONGEST_PATH: usize = 107;

/// The folder of a command's sockets: made when the first is needed, removed when this is dropped.
#[derive(Debug, Default)]
pub(super) struct SocketFolder {
    path: Mutex<Option<PathBuf>>,
    given: AtomicU64,
}

impl SocketFolder {
    /// A name at which nothing is yet. Only this user may enter its folder, and root.
    pub(super) fn claim(&self, command: &str, identity: Option<&Identity>) -> io::Result<SocketName> {
        let folder = self.folder(identity)?;
        // No name twice: the socket of an instance that is being replaced is still in use.
        let number = self.given.fetch_add(1, Ordering::Relaxed) + 1;
        let path = folder.join(format!("{command}-{number}.sock"));
        if path.as_os_str().len() > LONGEST_PATH {
            let what = format!("{} is too long for a socket: give TMPDIR a shorter path", path.display());
            return Err(io::Error::other(what));
        }
        Ok(SocketName(path.into()))
    }

    fn folder(&self, identity: Option<&Identity>) -> io::Result<PathBuf> {
        let mut made = self.path.lock();
        let path = match &*made {
            Some(path) => path.clone(),
            None => {
                let name = format!("gatehouse-{:016x}", RandomState::new().hash_one(()));
                let path = std::env::temp_dir().join(name);
                // Fails when it is there: nobody can have put it in our way.
                DirBuilder::new().mode(0o711).create(&path)?;
                made.insert(path).clone()
            }
        };
        let inner = path.join("run");
        match DirBuilder::new().mode(0o700).create(&inner) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let owner = identity.map_or((geteuid().as_raw(), getegid().as_raw()), |who| (who.user, who.group));
        chown(&inner, Some(owner.0), Some(owner.1))?;
        Ok(inner)
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        if let Some(path) = self.path.get_mut() {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// The path of a socket; what is there is removed when this is dropped.
#[derive(Debug)]
pub(super) struct SocketName(pub(super) Arc<Path>);

impl Drop for SocketName {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt as _, net::UnixListener};

    use super::*;

    #[test]
    fn names_are_given_once_in_a_folder_for_nobody_else_and_nothing_is_left() {
        let sockets = SocketFolder::default();
        let (one, two) = (sockets.claim("app", None).unwrap(), sockets.claim("app", None).unwrap());
        assert_ne!(one.0, two.0);
        assert!(one.0.ends_with("app-1.sock"), "{:?}", one.0);
        let inner = one.0.parent().unwrap();
        assert_eq!(fs::metadata(inner).unwrap().permissions().mode() & 0o777, 0o700);
        let folder = inner.parent().unwrap().to_owned();
        let _listener = UnixListener::bind(&one.0).unwrap();
        let path = one.0.to_path_buf();
        drop(one);
        assert!(!path.exists());
        drop((two, sockets));
        assert!(!folder.exists());
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let said = SocketFolder::default().claim(&"a".repeat(100), None).unwrap_err().to_string();
        assert!(said.contains("too long"), "{said}");
    }
}
