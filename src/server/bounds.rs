//! What of the settings may change while the proxy runs: bounds and the certificate shown to clients.
use std::path::Path;
use std::time::Duration;

use super::listener::{ServerHandle, ServerSettings};
use super::tls::{Certificate, ListenTls, TlsError};

/// Bounds on sessions.
#[derive(Debug, Clone, Copy)]
pub struct SessionBounds {
    /// How many sessions at once; the next one gets 53300.
    pub sessions_max: usize,
    /// For TLS, startup and authentication together.
    pub login_timeout: Duration,
    /// How long sessions may go on after [`ServerHandle::drain`].
    pub drain_timeout: Duration,
}

impl SessionBounds {
    /// Those that a server begins with.
    pub(super) fn of(settings: &ServerSettings) -> SessionBounds {
        let ServerSettings { sessions_max, login_timeout, drain_timeout, .. } = *settings;
        SessionBounds { sessions_max, login_timeout, drain_timeout }
    }
}

impl ServerHandle {
    /// Bounds sessions by these from now on. Those that exist stay.
    pub fn bound(&self, bounds: SessionBounds) {
        self.shared.bounds.store(bounds.into());
    }

    /// Reads another certificate and key for clients, to be shown by [`ServerHandle::show`]; `None` where the proxy has no
    /// TLS towards clients.
    ///
    /// # Errors
    /// [`TlsError`]; what is in use stays in use.
    pub fn read_certificate(&self, certificate: &Path, key: &Path) -> Result<Option<Certificate>, TlsError> {
        self.shared.settings.tls.as_ref().map(|_| Certificate::from_files(certificate, key)).transpose()
    }

    /// Shows this certificate to clients from now on. Connections that exist keep what they had.
    pub fn show(&self, certificate: Certificate) {
        if let Some(tls) = self.shared.settings.tls.as_deref() {
            ListenTls::show(tls, certificate);
        }
    }
}
