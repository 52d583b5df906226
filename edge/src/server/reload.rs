//! What a running edge is made of, and how other settings are put in force in it: all of them, or none.

use std::{cmp::Ordering, sync::Arc, time::SystemTime};

use super::{
    accept::Serving,
    descriptors,
    listeners::{Listeners, read_certificates},
    operator::Operator,
    reading::FileReader,
    watch::{FileWatch, SourceLooks},
    workers::Workers,
};
use tokio::sync::watch;

use crate::{
    acme::WantedCertificates,
    admin::{
        reload::{MOST_TOLD, ReloadAnswer},
        token::{self, TokenInForce},
    },
    downstream::{places::Places, tls::Loaded},
    message::reasons::reasons,
    observe::{metrics::ReloadOutcome, own_log::OwnLog},
    settings::{
        AdminAddress, Settings, Token,
        reload::{Change, changes, needs_restart},
    },
    upstream::{
        names::{NameServers, Names},
        supervise::Supervisor,
        tls::TlsByUpstream,
    },
};

/// What a reload changes.
pub(super) struct Running {
    pub(super) serving: Serving,
    pub(super) workers: Workers,
    pub(super) listeners: Listeners,
    pub(super) operator: Operator,
    pub(super) token: Arc<TokenInForce>,
    pub(super) names: Arc<Names>,
    pub(super) log: Arc<OwnLog>,
    pub(super) supervisor: Supervisor,
    pub(super) watch: FileWatch,
    pub(super) reader: FileReader,
    /// The certificates that are to be had.
    pub(super) wanted: watch::Sender<WantedCertificates>,
}

/// What the settings name, as it has been read.
struct ReadFiles {
    token: Option<Token>,
    tls: TlsByUpstream,
    name_servers: NameServers,
    certificates: Vec<Option<Loaded>>,
}

impl ReadFiles {
    fn read(wanted: &Settings, now: SystemTime) -> Result<Self, String> {
        Ok(Self {
            token: token::of(wanted).map_err(|error| error.to_string())?,
            tls: TlsByUpstream::load(&wanted.upstreams).map_err(|error| error.to_string())?,
            name_servers: NameServers::new(&wanted.name_servers).map_err(|error| error.to_string())?,
            certificates: read_certificates(&wanted.listeners, now)
                .map_err(|error| reasons(&error.into()))?,
        })
    }
}

impl Running {
    /// Applies new settings, certificates and token, or keeps everything as it is, and says which. When it returns, listeners
    /// that go accept nobody any more.
    pub(super) async fn reload(&mut self) -> Result<ReloadAnswer, String> {
        let edge = Arc::clone(&self.serving.edge);
        match self.try_reload().await {
            Ok(answer) => {
                edge.metrics.reloaded(ReloadOutcome::Applied);
                for warning in &answer.warnings {
                    tracing::warn!("{warning}");
                }
                for change in &answer.changes {
                    tracing::info!("changed {change}");
                }
                let nothing = if answer.changes.is_empty() { ": nothing changed" } else { "" };
                tracing::info!("reloaded {}{nothing}", answer.file);
                Ok(answer)
            }
            Err(why) => {
                edge.metrics.reloaded(ReloadOutcome::Refused);
                let refused = format!("reload refused, the old settings stay in force: {why}");
                tracing::error!("{refused}");
                Err(refused)
            }
        }
    }

    async fn try_reload(&mut self) -> Result<ReloadAnswer, String> {
        self.watch.reads_file();
        let given = self.watch.given().clone();
        let (looks, read) = self.reader.read(move || (SourceLooks::of(&given), given.read())).await?;
        self.watch.reads_sources(looks);
        let (wanted, warnings) = read.map_err(|error| format!("\n{error}"))?;
        self.watch.reads_named(&wanted);
        let edge = Arc::clone(&self.serving.edge);
        let running = edge.state.load_full();
        let fixed = needs_restart(&running.settings, &wanted);
        if !fixed.is_empty() {
            return Err(fixed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
        let (named, now) = (wanted.clone(), edge.clock.wall());
        let ReadFiles { token, tls, name_servers, certificates } =
            self.reader.read(move || ReadFiles::read(&named, now)).await??;
        self.refuse_crossing(&wanted)?;
        let operator = self.operator.prepare(wanted.admin.as_ref()).map_err(|error| reasons(&error))?;
        // Last: a client that connects to an address which is then given up is cut off.
        let listeners = self.listeners.prepare(&wanted.listeners, certificates, &self.workers);
        let listeners = listeners.map_err(|error| reasons(&error))?;
        // Everything has been read and bound, and nothing below can fail: a reload is whole, or is none.
        let mut changes = changes(&running.settings, &wanted);
        let had_token = self.token.get();
        if had_token.is_some() && token.is_some() && had_token != token {
            changes.push(Change::of_content("admin.token_file".to_owned()));
        }
        self.token.set(token);
        self.log.set_format(&wanted.log);
        self.supervisor.apply(&wanted.commands);
        let limit = descriptors::limit();
        if let Some(shortage) = descriptors::shortage(&wanted, limit) {
            tracing::warn!("{shortage}");
        }
        let connections = |settings| descriptors::connections_within(settings, limit);
        seat(&self.serving.places, connections(&running.settings), connections(&wanted));
        seat(&self.serving.handshakes, running.settings.bounds.handshakes, wanted.bounds.handshakes);
        self.watch.in_force(&wanted);
        self.names.ask(name_servers);
        // Also where nothing has changed: what has failed for a `domain` is tried again.
        self.wanted.send_replace(WantedCertificates::of(&wanted));
        edge.reload(wanted, tls);
        let (closing, renewed) = self.listeners.apply(listeners, &self.serving, &self.workers);
        changes.extend(renewed);
        closing.closed().await;
        // Last: who asked for the reload may wait for the answer at the listener that goes.
        self.operator.apply(operator).closed().await;
        let more = changes.len().saturating_sub(MOST_TOLD);
        changes.truncate(MOST_TOLD);
        let warnings = warnings.iter().map(ToString::to_string).collect();
        Ok(ReloadAnswer { file: self.watch.given().to_string(), changes, more, warnings })
    }

    /// An address that clients and the operator would share while both hold it: what is meant for one would reach the other.
    fn refuse_crossing(&self, wanted: &Settings) -> Result<(), String> {
        let refused = |address, holder: &str| {
            Err(format!(
                "{address} is {holder} until this reload is done: move that one first, in a reload of its own"
            ))
        };
        if let Some(listen) = wanted.listeners.iter().find(|listen| self.operator.holds(listen.address)) {
            return refused(listen.address, "the admin address");
        }
        match wanted.admin.as_ref().map(|admin| &admin.address) {
            Some(AdminAddress::Network(address)) if self.listeners.hold(*address) => {
                refused(*address, "a public listener's address")
            }
            _ => Ok(()),
        }
    }

    /// Reads the certificates again, so that one that was renewed on disk, or a local one about to expire, is replaced.
    pub(super) async fn renew(&mut self) {
        let (open, now) = (self.listeners.settings(), self.serving.edge.clock.wall());
        let read = self.reader.read(move || read_certificates(&open, now)).await;
        let read = read.and_then(|read| read.map_err(|error| error.to_string()));
        let renewed = read.and_then(|certificates| {
            self.listeners.renew(certificates, &self.serving).map_err(|error| error.to_string())
        });
        if let Err(error) = renewed {
            tracing::error!("the certificates in use stay: {error}");
        }
    }
}

fn seat(places: &Places, before: usize, after: usize) {
    match after.cmp(&before) {
        Ordering::Greater => places.add(after - before),
        Ordering::Less => places.take_away(before - after),
        Ordering::Equal => {}
    }
}
