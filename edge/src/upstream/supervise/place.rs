//! Where an instance listens.

use std::{io, sync::Arc};

use super::{
    identity::Identity,
    ports::{Port, Ports},
    shared::{SHARED_DESCRIPTOR, SharedListener, SharedSocket},
    sockets::{SocketFolder, SocketName},
};
use crate::{
    settings::{Command, CommandListen},
    upstream::address::Address,
};

/// Where an instance is told to listen, its own until this is dropped.
pub(super) struct InstancePlaces {
    pub(super) listen: ListenPlace,
    /// For what clients must not reach.
    admin: Option<Port>,
}

impl InstancePlaces {
    pub(super) fn claim(
        command: &Command,
        ports: &Arc<Ports>,
        sockets: &CommandSockets,
        identity: Option<&Identity>,
    ) -> io::Result<Self> {
        let listen = ListenPlace::claim(command, ports, sockets, identity)?;
        let admin = command.admin_port.is_some().then(|| ports.claim()).transpose()?;
        Ok(Self { listen, admin })
    }

    /// The variables in which the instance finds them.
    pub(super) fn variables<'a>(&self, command: &'a Command) -> Vec<(&'a str, String)> {
        let listen = (command.listen.variable(), self.listen.value());
        let admin = command.admin_port.as_deref().zip(self.admin.as_ref());
        let admin = admin.map(|(variable, port)| (variable, port.0.to_string()));
        [Some(listen), admin].into_iter().flatten().collect()
    }

    /// Where the instance tells its metrics, if it does.
    pub(super) fn metrics(&self, command: &Command) -> Option<MetricsPlace> {
        let path = Arc::clone(command.metrics.as_ref()?);
        let address = self.admin.as_ref().map_or_else(|| self.listen.address(), Port::address);
        Some(MetricsPlace { address, path })
    }
}

/// Where an instance tells its metrics.
#[derive(Clone, Debug)]
pub struct MetricsPlace {
    pub(super) address: Address,
    pub(super) path: Arc<str>,
}

/// What an instance takes requests on.
pub(super) enum ListenPlace {
    Port(Port),
    /// The second is the user as whom the instance runs, if it is not the edge's own.
    Socket(SocketName, Option<u32>),
    /// One for all instances.
    Shared(Arc<SharedListener>),
}

/// The sockets of one command.
#[derive(Debug, Default)]
pub(super) struct CommandSockets {
    folder: SocketFolder,
    shared: SharedSocket,
}

impl ListenPlace {
    fn claim(
        command: &Command,
        ports: &Arc<Ports>,
        sockets: &CommandSockets,
        identity: Option<&Identity>,
    ) -> io::Result<Self> {
        Ok(match command.listen {
            CommandListen::Shared => Self::Shared(sockets.shared.claim()?),
            CommandListen::Port => Self::Port(ports.claim()?),
            CommandListen::Unix => {
                Self::Socket(sockets.folder.claim(&command.name, identity)?, identity.map(|who| who.user))
            }
        })
    }

    /// As the instance is told it.
    pub(super) fn value(&self) -> String {
        match self {
            Self::Port(port) => port.0.to_string(),
            Self::Socket(name, _) => name.0.display().to_string(),
            Self::Shared(_) => SHARED_DESCRIPTOR.to_string(),
        }
    }

    /// As the edge reaches it.
    pub(super) fn address(&self) -> Address {
        match self {
            Self::Port(port) => port.address(),
            Self::Shared(listener) => Address::Socket(listener.address),
            Self::Socket(name, None) => Address::Unix(Arc::clone(&name.0)),
            Self::Socket(name, Some(user)) => Address::UnixOf(Arc::clone(&name.0), *user),
        }
    }
}
