//! Where an instance listens.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::{
    identity::Identity,
    ports::{Port, Ports},
    sockets::{SocketFolder, SocketName},
};
use crate::{
    settings::{Command, CommandListen},
    upstream::address::Address,
};

/// What an instance is told to listen on, its own until this is dropped.
pub(super) enum ListenPlace {
    Port(Port),
    /// The second is the user as whom the instance runs, if it is not the edge's own.
    Socket(SocketName, Option<u32>),
}

impl ListenPlace {
    pub(super) fn claim(
        command: &Command,
        ports: &Arc<Ports>,
        sockets: &SocketFolder,
        identity: Option<&Identity>,
    ) -> io::Result<Self> {
        Ok(match command.listen {
            CommandListen::Port => Self::Port(ports.claim()?),
            CommandListen::Unix => {
                Self::Socket(sockets.claim(&command.name, identity)?, identity.map(|who| who.user))
            }
        })
    }

    /// As the instance is told it.
    pub(super) fn value(&self) -> String {
        match self {
            Self::Port(port) => port.0.to_string(),
            Self::Socket(name, _) => name.0.display().to_string(),
        }
    }

    /// As the edge reaches it.
    pub(super) fn address(&self) -> Address {
        match self {
            Self::Port(port) => Address::Socket(SocketAddr::from((Ipv4Addr::LOCALHOST, port.0))),
            Self::Socket(name, None) => Address::Unix(Arc::clone(&name.0)),
            Self::Socket(name, Some(user)) => Address::UnixOf(Arc::clone(&name.0), *user),
        }
    }
}
