//! The public listeners that are open, and how a reload makes others of them.
//!
//! [`Listeners::prepare`] does all that can fail, and changes nothing; [`Listeners::apply`] cannot fail. An
//! address that stays keeps its sockets: not one connection is refused, whatever becomes of its TLS. One that goes serves
//! whom the kernel has already received, and closes its sockets; its connections finish as at a stop, without a limit of time.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::{net::TcpListener, time::Instant};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    accept::{Accept, LAST_NEWCOMERS, Serving, Terms, accept_all},
    workers::Workers,
};
use crate::{
    downstream::{
        connection::{Entrance, TlsEntrance},
        listen,
        proxy_protocol::Introducers,
        tls::{self, Loaded, Terminator, Terminators},
    },
    message::on_demand::OnDemand,
    observe::metrics::{ListenerKind, Metrics},
    settings::{Hsts, Listen, clash, reload::Change},
    shared_cache::EdgeSecrets,
};

/// All that are open.
pub(super) struct Listeners {
    terminators: Terminators,
    open: Vec<Listener>,
}

/// One address, on a socket of each worker.
pub(super) struct Listener {
    /// As the settings have it.
    listen: Listen,
    /// With the port that the system chose for port 0.
    bound: SocketAddr,
    terminator: Option<Terminator>,
    terms: Arc<ArcSwap<Terms>>,
    closing: CancellationToken,
    /// The accept loops.
    accepting: TaskTracker,
}

/// The listeners to be, in the order of the settings. Dropped, nothing has changed.
pub(super) struct PreparedListeners(Vec<PreparedListener>);

enum PreparedListener {
    /// The open one of this index goes on as this.
    GoesOn(usize, Listen, PreparedTls),
    Opens(Bound),
}

enum PreparedTls {
    Clear,
    Renewed(Loaded),
    Begins(Terminator),
}

/// A listener that is bound, and accepts nobody yet.
struct Bound {
    listen: Listen,
    address: SocketAddr,
    /// One a worker, known to its runtime.
    sockets: Vec<TcpListener>,
    terminator: Option<Terminator>,
}

impl Listeners {
    /// None yet.
    pub(super) fn new(secrets: &EdgeSecrets, on_demand: Arc<OnDemand>) -> anyhow::Result<Self> {
        let EdgeSecrets { challenges, tickets } = secrets.clone();
        let terminators = Terminators::new(challenges, tickets)?.with_on_demand(on_demand);
        Ok(Self { terminators, open: Vec::new() })
    }

    /// Binds every new address, for certificates as [`read_certificates`] returns them.
    ///
    /// # Errors
    /// About the first that cannot be had. Nothing has changed then.
    pub(super) fn prepare(
        &self,
        wanted: &[Listen],
        certificates: Vec<Option<Loaded>>,
        workers: &Workers,
    ) -> anyhow::Result<PreparedListeners> {
        let open: Vec<&Listen> = self.open.iter().map(|listener| &listener.listen).collect();
        let goes_on_as = assign(&open, wanted);
        let going = |index: &usize| !goes_on_as.contains(&Some(*index));
        let going: Vec<SocketAddr> =
            (0..open.len()).filter(going).map(|index| self.open[index].bound).collect();
        // Addresses are bound last: who connects to one that is then given up after all is cut off.
        let mut read = Vec::with_capacity(wanted.len());
        for (loaded, index) in certificates.into_iter().zip(&goes_on_as) {
            let before = index.and_then(|index| self.open[index].terminator.as_ref());
            read.push(self.prepare_tls(loaded, before)?);
        }
        let mut prepared = Vec::with_capacity(wanted.len());
        for ((listen, index), tls) in wanted.iter().zip(goes_on_as).zip(read) {
            prepared.push(match (index, tls) {
                (Some(index), tls) => PreparedListener::GoesOn(index, listen.clone(), tls),
                (None, PreparedTls::Begins(terminator)) => {
                    PreparedListener::Opens(Bound::new(listen, Some(terminator), &going, workers)?)
                }
                (None, PreparedTls::Clear | PreparedTls::Renewed(_)) => {
                    PreparedListener::Opens(Bound::new(listen, None, &going, workers)?)
                }
            });
        }
        Ok(PreparedListeners(prepared))
    }

    /// `before`: what terminates TLS there now.
    fn prepare_tls(
        &self,
        loaded: Option<Loaded>,
        before: Option<&Terminator>,
    ) -> Result<PreparedTls, tls::TlsError> {
        Ok(match (loaded, before) {
            (None, _) => PreparedTls::Clear,
            (Some(loaded), Some(terminator)) if terminator.goes_on_with(&loaded) => {
                PreparedTls::Renewed(loaded)
            }
            (Some(loaded), _) => PreparedTls::Begins(self.terminators.make(loaded)?),
        })
    }

    /// Puts in force what has been prepared from these listeners. Returns those that close, and which certificates are others
    /// than before although the settings are the same.
    pub(super) fn apply(
        &mut self,
        prepared: PreparedListeners,
        serving: &Serving,
        workers: &Workers,
    ) -> (ClosingListeners, Vec<Change>) {
        let mut old: Vec<Option<Listener>> = std::mem::take(&mut self.open).into_iter().map(Some).collect();
        let mut renewed = Vec::new();
        for prepared in prepared.0 {
            match prepared {
                PreparedListener::GoesOn(index, listen, tls) => {
                    let Some(mut listener) = old[index].take() else { continue };
                    renewed.extend(listener.go_on(listen, tls, serving));
                    self.open.push(listener);
                }
                PreparedListener::Opens(bound) => self.open.push(bound.open(serving, workers)),
            }
        }
        self.tell_certificates(&serving.edge.metrics);
        let closing: Vec<Listener> = old.into_iter().flatten().collect();
        for listener in &closing {
            listener.closing.cancel();
            listener.accepting.close();
        }
        (ClosingListeners(closing), renewed)
    }

    /// Whether an address is one of those that are bound now.
    pub(super) fn hold(&self, address: SocketAddr) -> bool {
        self.open.iter().any(|listener| clash(listener.bound, address))
    }

    /// Those that are open, as the settings have them.
    pub(super) fn settings(&self) -> Vec<Listen> {
        self.open.iter().map(|listener| listener.listen.clone()).collect()
    }

    /// How long certificates are good for without being read again, as of now: another program renews what an authority says
    /// of one, and after its time it may not be sent.
    pub(super) fn renewal(&self, now: SystemTime) -> Duration {
        let any = |is: &dyn Fn(&Terminator) -> bool| {
            self.open.iter().filter_map(|listener| listener.terminator.as_ref()).any(is)
        };
        match any(&Terminator::staples) {
            true if any(&|terminator| terminator.lacks_a_staple(now)) => RENEWAL_OF_LATE_STAPLES,
            true => RENEWAL_OF_STAPLES,
            false => RENEWAL,
        }
    }

    fn tell_certificates(&self, metrics: &Metrics) {
        metrics.certificates_in_use(
            self.open.iter().filter_map(|listener| listener.terminator.as_ref()).flat_map(Terminator::ends),
        );
    }

    /// Puts certificates in force that have been read for those that are open.
    ///
    /// # Errors
    /// About the first that cannot be had. Nothing has changed then.
    pub(super) fn renew(
        &mut self,
        certificates: Vec<Option<Loaded>>,
        serving: &Serving,
    ) -> Result<(), tls::TlsError> {
        let mut prepared = Vec::with_capacity(self.open.len());
        for (listener, loaded) in self.open.iter().zip(certificates) {
            prepared.push(self.prepare_tls(loaded, listener.terminator.as_ref())?);
        }
        for (listener, tls) in self.open.iter_mut().zip(prepared) {
            listener.go_on(listener.listen.clone(), tls, serving);
        }
        self.tell_certificates(&serving.edge.metrics);
        Ok(())
    }
}

/// Reads the certificate of each listener that has one.
///
/// # Errors
/// About the first that cannot be used.
pub(super) fn read_certificates(
    wanted: &[Listen],
    now: SystemTime,
) -> Result<Vec<Option<Loaded>>, tls::TlsError> {
    let read = |listen: &Listen| {
        listen.tls.as_ref().map(|source| tls::read(source, listen.address.port(), now)).transpose()
    };
    wanted.iter().map(read).collect()
}

/// Listeners on their way out: they accept nobody new.
pub(super) struct ClosingListeners(Vec<Listener>);

impl ClosingListeners {
    /// Waits until their sockets are closed, as long as that may take.
    pub(super) async fn closed(self) {
        let last = Instant::now() + CLOSED_WITHIN;
        for listener in self.0 {
            if tokio::time::timeout_at(last, listener.accepting.wait()).await.is_err() {
                tracing::warn!("{} is not closed yet: a worker is busy", listener.bound);
            }
            tracing::info!("no longer listening on {}", listener.bound);
        }
    }
}

impl Listener {
    fn go_on(&mut self, listen: Listen, tls: PreparedTls, serving: &Serving) -> Option<Change> {
        let before = std::mem::replace(&mut self.listen, listen);
        let mut renewed = None;
        let same_tls = match tls {
            PreparedTls::Renewed(loaded) => {
                let other = self.terminator.as_ref().is_some_and(|terminator| terminator.renew(loaded));
                renewed = (other && before == self.listen)
                    .then(|| Change::of_content(format!("listen.{}.tls", self.listen.address)));
                true
            }
            PreparedTls::Clear => self.terminator.take().is_none(),
            // Another manner of shaking hands is another listener to those who come, and whoever came by the old one leaves.
            PreparedTls::Begins(terminator) => {
                let other = self.terminator.replace(terminator).is_some();
                renewed = (other && before == self.listen)
                    .then(|| Change::of_content(format!("listen.{}.tls", self.listen.address)));
                false
            }
        };
        if !(same_tls && before.proxy_protocol == self.listen.proxy_protocol) {
            let terms = Terms::new(&self.listen, self.terminator.as_ref(), &self.closing, serving);
            // Whoever was received by the old terms may not go on by them.
            self.terms.swap(Arc::new(terms)).entrance.leave.cancel();
        } else if before.hsts != self.listen.hsts {
            // Connections go on with what they were told at first, and end with the listener as before.
            let terms = self.terms.load();
            let entrance = Entrance { hsts: self.listen.hsts.map(Hsts::to_field), ..terms.entrance.clone() };
            let metrics = terms.metrics.clone();
            self.terms.store(Arc::new(Terms { entrance, metrics }));
        }
        renewed
    }
}

impl Bound {
    fn new(
        listen: &Listen,
        terminator: Option<Terminator>,
        going: &[SocketAddr],
        workers: &Workers,
    ) -> anyhow::Result<Self> {
        let beside_own = going.iter().any(|own| clash(*own, listen.address));
        let bind = if beside_own { listen::bind_beside_own } else { listen::bind };
        let sockets = bind(listen.address, workers.runtimes().len())?;
        let address = sockets[0].local_addr().context("a bound socket has an address")?;
        let mut known = Vec::with_capacity(sockets.len());
        for (socket, runtime) in sockets.into_iter().zip(workers.runtimes()) {
            let _runtime = runtime.enter();
            known.push(TcpListener::from_std(socket).context("a worker cannot use its socket")?);
        }
        Ok(Self { listen: listen.clone(), address, sockets: known, terminator })
    }

    fn open(self, serving: &Serving, workers: &Workers) -> Listener {
        let Self { listen, address, sockets, terminator } = self;
        let (closing, accepting) = (serving.edge.drain.child_token(), TaskTracker::new());
        let terms =
            Arc::new(ArcSwap::from_pointee(Terms::new(&listen, terminator.as_ref(), &closing, serving)));
        for (socket, runtime) in sockets.into_iter().zip(workers.runtimes()) {
            let accept = Accept { socket, terms: Arc::clone(&terms), closing: closing.clone() };
            accepting.spawn_on(accept_all(serving.clone(), accept), runtime);
        }
        let scheme = if terminator.is_some() { "https" } else { "http" };
        tracing::info!("listening on {scheme}://{address}");
        Listener { listen, bound: address, terminator, terms, closing, accepting }
    }
}

impl Terms {
    fn new(
        listen: &Listen,
        terminator: Option<&Terminator>,
        closing: &CancellationToken,
        serving: &Serving,
    ) -> Self {
        let kind = if terminator.is_some() { ListenerKind::Tls } else { ListenerKind::Clear };
        let tls = terminator.map(|terminator| TlsEntrance {
            acceptor: TlsAcceptor::from(terminator.server_config()),
            certificates: terminator.certificates(),
            handshakes: Arc::clone(&serving.handshakes),
        });
        let introducers = Introducers::new(&listen.proxy_protocol).map(Arc::new);
        let hsts = listen.hsts.map(Hsts::to_field);
        let entrance = Entrance { introducers, tls, hsts, leave: closing.child_token() };
        Self { entrance, metrics: serving.edge.metrics.for_listener(kind) }
    }
}

/// Which of the open listeners goes on as each of the wanted ones. Port 0 gives several the same address: those whose files
/// are what they were come first, then those that speak TLS before and after, or neither time, and in the file's order.
fn assign(open: &[&Listen], wanted: &[Listen]) -> Vec<Option<usize>> {
    let alike: [fn(&Listen, &Listen) -> bool; 3] = [
        |one, other| one == other,
        |one, other| one.address == other.address && one.tls.is_some() == other.tls.is_some(),
        |one, other| one.address == other.address,
    ];
    let mut assigned = vec![None; wanted.len()];
    for alike in alike {
        for (place, wanted) in wanted.iter().enumerate() {
            if assigned[place].is_none() {
                let free = |index: &usize| !assigned.contains(&Some(*index)) && alike(open[*index], wanted);
                assigned[place] = (0..open.len()).find(free);
            }
        }
    }
    assigned
}

/// How often certificates are read again without a signal.
const RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);
/// And where an authority's word is sent with one.
const RENEWAL_OF_STAPLES: Duration = Duration::from_secs(60 * 60);
/// And where one is not sent that should be: the program that fetches it may be late.
const RENEWAL_OF_LATE_STAPLES: Duration = Duration::from_secs(60);
/// How long a reload waits for a socket to be closed: longer than a newcomer there may wait for a place.
const CLOSED_WITHIN: Duration = LAST_NEWCOMERS.saturating_mul(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Certificate, ListenTls};

    fn listen(port: u16, files: Option<&str>) -> Listen {
        let tls = files.map(|file| ListenTls::with(Certificate::of_files(file.into(), file.into())));
        Listen { address: ([127, 0, 0, 1], port).into(), tls, proxy_protocol: Vec::new(), hsts: None }
    }

    #[track_caller]
    fn assert_assigned(open: &[Listen], wanted: &[Listen], assigned: &[Option<usize>]) {
        assert_eq!(assign(&open.iter().collect::<Vec<_>>(), wanted), assigned);
    }

    #[test]
    fn an_address_keeps_its_sockets_wherever_its_table_stands() {
        let [one, two] = [listen(1, Some("one")), listen(2, Some("two"))];
        assert_assigned(&[one.clone(), two.clone()], &[two, one], &[Some(1), Some(0)]);
    }

    #[test]
    fn an_address_keeps_its_sockets_whatever_becomes_of_its_tls() {
        assert_assigned(&[listen(1, None)], &[listen(1, Some("a"))], &[Some(0)]);
        assert_assigned(&[listen(1, Some("a"))], &[listen(1, Some("b"))], &[Some(0)]);
        assert_assigned(&[listen(1, None)], &[listen(2, None), listen(1, None)], &[None, Some(0)]);
    }

    #[test]
    fn of_several_whose_port_the_system_chose_each_goes_on_as_what_it_was() {
        let open = [listen(0, None), listen(0, Some("a")), listen(0, Some("b"))];
        assert_assigned(&open, &[listen(0, Some("b"))], &[Some(2)]);
        assert_assigned(&open, &[listen(0, Some("c")), listen(0, Some("b"))], &[Some(1), Some(2)]);
        let wanted = [listen(0, Some("c")), listen(0, Some("b")), listen(0, Some("a")), listen(0, Some("d"))];
        assert_assigned(&open, &wanted, &[Some(0), Some(2), Some(1), None]);
    }
}
