//! The operator's listener: an address and a port, or a Unix socket that only the edge's own user and root may connect
//! to.
//!
//! A Unix socket's file is created under another name, with permissions closed to others, and only then renamed into
//! place: nobody can connect before. A file left by a killed edge is replaced; one with a listener is not.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, UnixListener};

use crate::{downstream::listen::ListenError, message::byte_stream::ByteStream, settings::AdminAddress};

/// The bound listener. A Unix socket's file is removed with it.
#[derive(Debug)]
pub enum AdminSocket {
    Network(TcpListener),
    /// The file is removed before the listener closes: an edge that starts meanwhile never loses its own file to this
    /// one.
    Unix(SocketFile, UnixListener),
}

/// The peer of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Caller {
    /// A peer with this address.
    Network(IpAddr),
    /// A process of the edge's own user, or of root.
    Unix,
}

/// Why the operator's listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The network address cannot be bound.
    #[error(transparent)]
    Network(#[from] ListenError),
    /// The name belongs to something else.
    #[error("cannot listen on unix:{}: {what}", .path.display())]
    Taken {
        path: PathBuf,
        /// The present owner of the name, and what to do.
        what: &'static str,
    },
    /// The system refuses the socket.
    #[error("cannot listen on unix:{}: {source}; the folder must be there, and the edge's user may write to it", .path.display())]
    Unix {
        /// The name.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl AdminSocket {
    /// Listens; inside a runtime. `bind` binds an address: alone, or beside an own one that goes
    /// ([`listen`](crate::downstream::listen)).
    ///
    /// # Errors
    /// [`AdminError`], which says what to do about it.
    pub fn bind(
        address: &AdminAddress,
        bind: impl Fn(SocketAddr, usize) -> Result<Vec<std::net::TcpListener>, ListenError>,
    ) -> Result<Self, AdminError> {
        match address {
            AdminAddress::Network(address) => {
                let refused = |source| ListenError { address: *address, source };
                let bound = bind(*address, 1)?.pop();
                let bound = bound.ok_or_else(|| refused(ErrorKind::NotFound.into()))?;
                Ok(Self::Network(TcpListener::from_std(bound).map_err(refused)?))
            }
            AdminAddress::Unix(path) => {
                vacant(path)?;
                let (file, listener) =
                    bind_unix(path).map_err(|source| AdminError::Unix { path: path.clone(), source })?;
                Ok(Self::Unix(file, listener))
            }
        }
    }

    /// The bound address, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn address(&self) -> io::Result<AdminAddress> {
        Ok(match self {
            Self::Network(listener) => AdminAddress::Network(listener.local_addr()?),
            Self::Unix(file, _) => AdminAddress::Unix(file.0.clone()),
        })
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// Those of the system call; the next attempt may succeed.
    pub async fn accept(&self) -> io::Result<(Box<dyn ByteStream>, Caller)> {
        Ok(match self {
            Self::Network(listener) => {
                let (stream, peer): (_, SocketAddr) = listener.accept().await?;
                (Box::new(stream), Caller::Network(peer.ip()))
            }
            Self::Unix(_, listener) => (Box::new(listener.accept().await?.0), Caller::Unix),
        })
    }
}

/// The name of a Unix socket, removed when it is dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether the name may be taken.
fn vacant(path: &Path) -> Result<(), AdminError> {
    let taken = |what| Err(AdminError::Taken { path: path.to_owned(), what });
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            taken("there is a file of this name that is no socket: choose another name")
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            taken("another process listens there: stop it or choose another name")
        }
        _ => Ok(()),
    }
}

fn bind_unix(path: &Path) -> io::Result<(SocketFile, UnixListener)> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&unfinished)?;
    let file = SocketFile(unfinished.clone());
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600))?;
    fs::rename(&unfinished, path)?;
    // Its old name is gone already.
    drop(file);
    Ok((SocketFile(path.to_owned()), listener))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::listen;

    fn bind(path: &Path) -> Result<AdminSocket, AdminError> {
        AdminSocket::bind(&AdminAddress::Unix(path.to_owned()), listen::bind)
    }

    #[tokio::test]
    async fn only_its_own_user_may_enter_and_its_name_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let client = tokio::net::UnixStream::connect(&path).await.unwrap();
        assert!(matches!(socket.accept().await.unwrap().1, Caller::Unix));
        drop((client, socket));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_killed_edge_left_is_replaced_and_what_is_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let running = bind(&path).unwrap();
        let refused = bind(&path).unwrap_err().to_string();
        assert!(refused.contains("another process listens there"), "{refused}");
        drop(running);
        fs::write(&path, "precious").unwrap();
        let refused = bind(&path).unwrap_err().to_string();
        assert!(refused.contains("no socket"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_named() {
        let refused = bind(Path::new("/nowhere/admin.sock")).unwrap_err().to_string();
        assert!(refused.contains("unix:/nowhere/admin.sock") && refused.contains("folder"), "{refused}");
    }
}
