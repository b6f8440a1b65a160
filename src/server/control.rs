//! TLS of the control connections, which tokio-postgres makes; the only home of tokio-postgres-rustls.
//!
//! The modes are those of the hop to the server ([`UpstreamTls`]). Where the server offers SCRAM-SHA-256-PLUS the login is
//! bound to its certificate, so that nobody in between can pass it on.
use std::pin::Pin;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::{UpstreamTls, UpstreamTlsConfig};
use crate::keys::registry::{Connector, Plain};

/// Control connections by these rules, whatever their settings say of TLS; a unix socket never has it.
#[derive(Clone)]
pub struct ControlTls(pub UpstreamTls);

impl Connector for ControlTls {
    fn connect<'a>(&'a self, config: &'a Config) -> Pin<Box<dyn Future<Output = Result<Client, Error>> + Send + 'a>> {
        match &self.0 {
            _ if is_local(config) => Plain.connect(config),
            UpstreamTls::Disable => Plain.connect(config),
            UpstreamTls::Prefer(tls) => Box::pin(protected(config, SslMode::Prefer, tls)),
            UpstreamTls::Require(tls) => Box::pin(protected(config, SslMode::Require, tls)),
        }
    }
}

/// True when all hosts are directories of unix sockets, or empty, which leads nowhere.
pub fn is_local(config: &Config) -> bool {
    let is_socket = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name.is_empty(),
    };
    config.get_hosts().iter().all(is_socket) && config.get_hostaddrs().is_empty()
}

async fn protected(config: &Config, mode: SslMode, tls: &UpstreamTlsConfig) -> Result<Client, Error> {
    let mut config = config.clone();
    config.ssl_mode(mode);
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls.client_config())).await?;
    // Ends when the client is dropped or the server goes; the client then says that it is closed.
    tokio::spawn(connection);
    Ok(client)
}
