//! Where clients and the operator come in.

use super::{Resolver, Span};
use crate::settings::{
    Admin, AdminAddress, Certificate, Listen, clash,
    file::{WrittenAdmin, WrittenListen, WrittenTls},
    value::{ProxyPeers, Table},
};

impl Resolver<'_> {
    pub(super) fn listeners(&mut self, written: Vec<Table<WrittenListen>>) -> Vec<(Span, Listen)> {
        if written.is_empty() {
            self.fault(
                0..0,
                "no [[listen]]: no client could connect",
                "add [[listen]] with address = \"[::]:8080\"",
            );
        }
        let mut listeners: Vec<(Span, Listen)> = Vec::new();
        for table in written {
            let Table { span, value: table } = table;
            let tls = table.tls.and_then(|tls| self.certificate(tls));
            let place = table.address.as_ref().map(|address| address.span.clone());
            let Some(address) = self.need(table.address, &span, "address", "\"[::]:8080\"") else { continue };
            let place = place.unwrap_or(span);
            if let Some((earlier, other)) = listeners.iter().find(|(_, other)| clash(other.address, address))
            {
                let line = self.line(earlier);
                let message = format!("{address} is taken by the listener {} on line {line}", other.address);
                self.fault(place.clone(), message, "give each listener a port of its own");
            }
            let proxy_protocol = self.or(table.proxy_protocol, ProxyPeers::default()).0;
            if let Some(hsts) = &table.hsts
                && tls.is_none()
                && proxy_protocol.is_empty()
            {
                self.fault(
                    hsts.span.clone(),
                    "what is said over clear text about TLS counts for nothing (RFC 6797 §7.2)",
                    "write it in the table of the listener that has `tls`",
                );
            }
            let hsts = table.hsts.and_then(|hsts| self.value(hsts));
            listeners.push((place, Listen { address, tls, proxy_protocol, hsts }));
        }
        listeners
    }

    fn certificate(&mut self, tls: Table<WrittenTls>) -> Option<Certificate> {
        let Table { span, value: tls } = tls;
        let local_ca = self.or(tls.local_ca, false);
        let certificate = self.need(tls.certificate, &span, "certificate", "\"certs/localhost.pem\"");
        let key = self.need(tls.key, &span, "key", "\"certs/localhost.key\"");
        Some(Certificate { certificate: certificate?, key: key?, local_ca })
    }

    pub(super) fn admin(
        &mut self,
        written: Option<Table<WrittenAdmin>>,
        public: &[(Span, Listen)],
    ) -> Option<Admin> {
        let Table { span, value: WrittenAdmin { address: written, token_file, hosts } } = written?;
        let hosts = hosts.into_iter().filter_map(|host| self.value(host)).map(|host| host.0).collect();
        let token_file = token_file.and_then(|file| self.value(file));
        let place = written.as_ref().map_or(span.clone(), |address| address.span.clone());
        let address = self.need(written, &span, "address", "\"127.0.0.1:9900\"")?;
        let clashes = |listen: &Listen| matches!(address, AdminAddress::Network(address) if clash(listen.address, address));
        if let Some((listener, listen)) = public.iter().find(|(_, listen)| clashes(listen)) {
            let message = format!(
                "the admin address {address} is on the public listener {} of line {}",
                listen.address,
                self.line(listener)
            );
            self.fault(place, message, "give it a port that no client can reach, such as \"127.0.0.1:9900\"");
        }
        Some(Admin { address, token_file, hosts })
    }
}
