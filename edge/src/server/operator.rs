//! The operator's listener that is open, and how a reload makes another of it. As with the public ones, all that can fail is
//! done before anything changes.

use std::net::SocketAddr;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Service, socket::AdminSocket},
    downstream::listen,
    settings::{Admin, AdminAddress, clash},
};

/// The operator's listener, or none.
pub(super) struct Operator {
    service: Service,
    /// The end of the edge.
    end: CancellationToken,
    open: Option<Open>,
}

struct Open {
    /// As the settings have it.
    address: AdminAddress,
    /// With the port that the system chose.
    bound: AdminAddress,
    stop: CancellationToken,
    closed: oneshot::Receiver<()>,
}

/// The operator's listener to be.
pub(super) enum PreparedOperator {
    Same,
    Other(Option<(AdminAddress, AdminSocket)>),
}

impl Operator {
    /// None yet.
    pub(super) fn new(service: Service, end: CancellationToken) -> Self {
        Self { service, end, open: None }
    }

    /// Binds the address, where it is another.
    ///
    /// # Errors
    /// When it cannot be had. Nothing has changed then.
    pub(super) fn prepare(&self, wanted: Option<&Admin>) -> anyhow::Result<PreparedOperator> {
        let wanted = wanted.map(|admin| &admin.address);
        if wanted == self.open.as_ref().map(|open| &open.address) {
            return Ok(PreparedOperator::Same);
        }
        bind(wanted, self.network())
    }

    /// Whether an address is the one that is bound now.
    pub(super) fn holds(&self, address: SocketAddr) -> bool {
        self.network().is_some_and(|own| clash(own, address))
    }

    fn network(&self) -> Option<SocketAddr> {
        match self.open.as_ref()?.bound {
            AdminAddress::Network(address) => Some(address),
            AdminAddress::Unix(_) => None,
        }
    }

    /// Serves on what has been prepared. Returns the old listener, where it is another.
    pub(super) fn apply(&mut self, prepared: PreparedOperator) -> ClosingOperator {
        let PreparedOperator::Other(socket) = prepared else { return ClosingOperator(None) };
        let open = socket.map(|(address, socket)| self.serve(address, socket));
        let old = std::mem::replace(&mut self.open, open);
        if let Some(old) = &old {
            old.stop.cancel();
        }
        ClosingOperator(old)
    }

    fn serve(&self, address: AdminAddress, socket: AdminSocket) -> Open {
        let bound = socket.address().unwrap_or_else(|_| address.clone());
        match &bound {
            AdminAddress::Network(address) => tracing::info!("admin on http://{address}"),
            AdminAddress::Unix(_) => tracing::info!("admin on {bound}"),
        }
        let (stop, (closes, closed)) = (self.end.child_token(), oneshot::channel());
        let serving = admin::serve(socket, self.service.clone(), stop.clone());
        tokio::spawn(async move {
            let open = serving.await;
            // Nobody may wait for it.
            let _ = closes.send(());
            open.finish().await;
        });
        Open { address, bound, stop, closed }
    }
}

/// Binds the first, with the service still to come.
///
/// # Errors
/// When the address cannot be had.
pub(super) fn first(wanted: Option<&Admin>) -> anyhow::Result<PreparedOperator> {
    bind(wanted.map(|admin| &admin.address), None)
}

fn bind(wanted: Option<&AdminAddress>, own: Option<SocketAddr>) -> anyhow::Result<PreparedOperator> {
    let Some(wanted) = wanted else { return Ok(PreparedOperator::Other(None)) };
    let bind = match (wanted, own) {
        (AdminAddress::Network(wanted), Some(own)) if clash(*wanted, own) => listen::bind_beside_own,
        _ => listen::bind,
    };
    Ok(PreparedOperator::Other(Some((wanted.clone(), AdminSocket::bind(wanted, bind)?))))
}

/// The operator's listener on its way out: requests there are still answered.
pub(super) struct ClosingOperator(Option<Open>);

impl ClosingOperator {
    /// Waits until its socket is closed.
    pub(super) async fn closed(self) {
        if let Some(Open { bound, closed, .. }) = self.0 {
            let _ = closed.await;
            tracing::info!("admin no longer on {bound}");
        }
    }
}
