//! TLS on both hops; the only home of rustls.
//!
//! Towards clients: one certificate and key, reloadable while connections live ([`ListenTls`]). Towards the server:
//! the modes of libpq's sslmode ([`UpstreamTls`]). The proxy never downgrades a hop that must be encrypted.
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::stream::{ClientTls, ServerStream};

/// The protocol name that direct TLS must agree on.
const ALPN: &[u8] = b"postgresql";

/// Why TLS cannot be set up from files or settings.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file that cannot be read or holds nothing of use.
    #[error("cannot read {what} from {path}: {reason}", path = .path.display())]
    Pem {
        /// Certificate, key or root certificates.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the reader said; it names no content.
        reason: String,
    },
    /// Certificate and key do not fit together, or are of a kind that is not supported.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(rustls::Error),
    /// The system's root certificates cannot be read.
    #[error("no root certificates: name a file with root_certificate")]
    NoRoots,
    /// Verification was asked for against a name that no certificate can carry.
    #[error("\"{0}\" is not a name that a certificate can carry")]
    Name(String),
}

/// A leaf certificate as it goes over the wire, to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf(CertificateDer<'static>);

impl Leaf {
    /// The leaf that the peer showed.
    pub(super) fn of_peer(connection: &rustls::ClientConnection) -> Option<Leaf> {
        connection.peer_certificates()?.first().map(|leaf| Leaf(leaf.clone().into_owned()))
    }
}

/// Certificate and key shown to clients; [`ListenTls::reload`] and [`ListenTls::show`] replace both at once.
pub struct ListenTls {
    required: bool,
    current: ArcSwap<Certificate>,
}

/// A certificate and its key, ready to be shown to clients.
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    config: Arc<ServerConfig>,
    leaf: Arc<Leaf>,
}

impl ListenTls {
    /// Reads certificate chain and key (PEM). Clients may also go on in clear text.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<ListenTls, TlsError> {
        let current = ArcSwap::from_pointee(Certificate::from_files(certificate, key)?);
        Ok(ListenTls { required: false, current })
    }

    /// The same, refusing sessions in clear text (SQLSTATE 08004).
    #[must_use]
    pub fn required(mut self) -> ListenTls {
        self.required = true;
        self
    }

    /// Whether sessions in clear text are refused.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Reads the files again. Connections that exist keep what they had.
    ///
    /// # Errors
    /// [`TlsError`]; what was in use stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let shown = self.current.load();
        self.show(Certificate::from_files(&shown.certificate, &shown.key)?);
        Ok(())
    }

    /// Shows this certificate from now on. Connections that exist keep what they had.
    pub fn show(&self, certificate: Certificate) {
        self.current.store(Arc::new(certificate));
    }

    /// The handshake with a client. With `Alpn::Required` the client must have asked for `postgresql`.
    ///
    /// # Errors
    /// Whatever the handshake fails with.
    pub(super) async fn accept(&self, tcp: TcpStream, alpn: Alpn) -> io::Result<ClientTls> {
        let shown = self.current.load_full();
        let stream = TlsAcceptor::from(Arc::clone(&shown.config)).accept(tcp).await?;
        if alpn == Alpn::Required && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "direct TLS without the protocol name postgresql"));
        }
        Ok(ClientTls { stream, leaf: Arc::clone(&shown.leaf) })
    }
}

/// Whether a client must name the protocol in its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alpn {
    /// After SSLRequest: right if present (rustls sees to that).
    Optional,
    /// Direct TLS.
    Required,
}

impl Certificate {
    /// Reads certificate chain and key (PEM).
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Certificate, TlsError> {
        let files = (certificate.to_owned(), key.to_owned());
        let chain = certificates("a certificate", certificate)?;
        let leaf = chain.first().cloned().map(|leaf| Arc::new(Leaf(leaf)));
        let leaf = leaf.ok_or_else(|| pem_error("a certificate", certificate, "it holds none"))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| pem_error("a key", key, error))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(TlsError::Unusable)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Like Postgres: no client resumes sessions, and a ticket would only cost bytes and work.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let (certificate, key) = files;
        Ok(Certificate { certificate, key, config: Arc::new(config), leaf })
    }
}

/// How the hop to the server is protected.
#[derive(Clone)]
pub enum UpstreamTls {
    /// Never TLS.
    Disable,
    /// TLS when the server has it, any certificate.
    Prefer(UpstreamTlsConfig),
    /// TLS or no connection. The certificate is not verified unless the configuration verifies.
    Require(UpstreamTlsConfig),
}

/// A prepared client configuration.
#[derive(Clone)]
pub struct UpstreamTlsConfig(Arc<ClientConfig>);

impl UpstreamTlsConfig {
    /// For connections that others make.
    pub(super) fn client_config(&self) -> ClientConfig {
        ClientConfig::clone(&self.0)
    }
}

impl UpstreamTls {
    /// TLS when the server offers it, else clear text; no protection against an active attacker.
    ///
    /// # Errors
    /// [`TlsError::Unusable`] when rustls cannot be set up.
    pub fn prefer() -> Result<UpstreamTls, TlsError> {
        Ok(UpstreamTls::Prefer(unverified()?))
    }

    /// TLS or nothing, any certificate.
    ///
    /// # Errors
    /// [`TlsError::Unusable`] when rustls cannot be set up.
    pub fn require() -> Result<UpstreamTls, TlsError> {
        Ok(UpstreamTls::Require(unverified()?))
    }

    /// TLS with a certificate that a root in `roots` (PEM; the system's where absent) vouches for, and that carries
    /// the name of the upstream.
    ///
    /// # Errors
    /// [`TlsError`] when there are no roots.
    pub fn verify_full(roots: Option<&Path>) -> Result<UpstreamTls, TlsError> {
        let builder = client_builder()?.with_root_certificates(root_store(roots)?);
        Ok(UpstreamTls::Require(with_alpn(builder.with_no_client_auth())))
    }

    /// TLS with a certificate that a root in `roots` vouches for, whatever name it carries: what `require` means to libpq
    /// where roots are named.
    ///
    /// # Errors
    /// [`TlsError`] when there are no roots.
    pub fn verify_chain(roots: &Path) -> Result<UpstreamTls, TlsError> {
        let store = Arc::new(root_store(Some(roots))?);
        let verifier = WebPkiServerVerifier::builder_with_provider(store, provider()).build();
        let verifier = verifier.map_err(|_| TlsError::NoRoots)?;
        let builder = client_builder()?.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(verifier)));
        Ok(UpstreamTls::Require(with_alpn(builder.with_no_client_auth())))
    }
}

/// The handshake with the server.
pub(super) async fn connect(config: &UpstreamTlsConfig, host: &str, tcp: TcpStream) -> io::Result<ServerStream> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, TlsError::Name(host.to_owned())))?;
    let stream = TlsConnector::from(Arc::clone(&config.0)).connect(name, tcp).await?;
    Ok(ServerStream::Tls(Box::new(stream)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(TlsError::Unusable)
}

fn unverified() -> Result<UpstreamTlsConfig, TlsError> {
    let verifier = Arc::new(AnyCertificate(provider()));
    let builder = client_builder()?.dangerous().with_custom_certificate_verifier(verifier);
    Ok(with_alpn(builder.with_no_client_auth()))
}

fn with_alpn(mut config: ClientConfig) -> UpstreamTlsConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    UpstreamTlsConfig(Arc::new(config))
}

/// The roots of a file (PEM); without one the system's.
fn root_store(roots: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    let found = match roots {
        Some(path) => certificates("root certificates", path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    store.add_parsable_certificates(found);
    if store.is_empty() { Err(TlsError::NoRoots) } else { Ok(store) }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| pem_error(what, path, error))?;
    if found.is_empty() { Err(pem_error(what, path, "it holds none")) } else { Ok(found) }
}

fn pem_error(what: &'static str, path: &Path, reason: impl ToString) -> TlsError {
    TlsError::Pem { what, path: path.to_owned(), reason: reason.to_string() }
}

/// Accepts any certificate, as sslmode=require does, but still makes the server prove that it has the key: the
/// comparison of leaf certificates (channel binding) rests on that proof.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks everything but the name, which is checked last.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(leaf, chain, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A test client that offers these protocol names.
#[cfg(test)]
pub(super) fn tests_config(alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = Arc::unwrap_or_clone(unverified().unwrap_or_else(|error| panic!("{error}")).0);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}
