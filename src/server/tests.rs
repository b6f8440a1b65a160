//! The outside of the proxy against clients and servers made of bare sockets, and (in `real`) psql and Postgres.
#![expect(clippy::unwrap_used, reason = "tests")]
mod real;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::wire::startup::{SSL_REQUEST, message};

const PATIENCE: Duration = Duration::from_secs(10);
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
const STARTUP: &[u8] = b"\0\0\0\x14\0\x03\0\0user\0abcde\0\0";

/// Copies bytes both ways until one side ends.
struct Passthrough;

impl SessionRunner for Passthrough {
    fn run(&self, established: Established) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let Established { mut client, mut server, client_buffered, server_buffered, mut drain, .. } = established;
            server.write_all(&client_buffered).await.unwrap();
            client.write_all(&server_buffered).await.unwrap();
            client.flush().await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                _ = drain.wait_for(|draining| *draining) => {}
            }
        })
    }
}

/// Certificate and key in a directory of their own.
struct Certificate(TempDir);

impl Certificate {
    fn new() -> Certificate {
        let certificate = Certificate(tempfile::tempdir().unwrap());
        certificate.renew();
        certificate
    }

    fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(self.certificate(), made.cert.pem()).unwrap();
        std::fs::write(self.key(), made.signing_key.serialize_pem()).unwrap();
    }

    fn certificate(&self) -> std::path::PathBuf {
        self.0.path().join("server.pem")
    }

    fn key(&self) -> std::path::PathBuf {
        self.0.path().join("server.key")
    }

    fn listen(&self) -> ListenTls {
        ListenTls::from_files(&self.certificate(), &self.key()).unwrap()
    }
}

fn upstream_at(address: SocketAddr, tls: UpstreamTls) -> Upstream {
    let address = UpstreamAddress::Tcp { host: address.ip().to_string(), port: address.port() };
    Upstream { address, tls, connect_timeout: PATIENCE }
}

async fn start(upstream: Upstream, change: impl FnOnce(&mut ServerSettings)) -> ServerHandle {
    let mut settings = ServerSettings::new(ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()), upstream);
    settings.workers = 2;
    change(&mut settings);
    let server = Server::bind(settings, Arc::new(Passthrough)).await.unwrap();
    let handle = server.handle();
    tokio::spawn(server.run());
    handle
}

/// A proxy before a server that nobody plays.
async fn proxy_alone(change: impl FnOnce(&mut ServerSettings)) -> ServerHandle {
    start(upstream_at("127.0.0.1:1".parse().unwrap(), UpstreamTls::Disable), change).await
}

/// A proxy before a socket that the test plays the server on.
async fn proxy_and_server(tls: UpstreamTls) -> (ServerHandle, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (start(upstream_at(listener.local_addr().unwrap(), tls), |_| {}).await, listener)
}

async fn connect(proxy: &ServerHandle) -> TcpStream {
    TcpStream::connect(proxy.local_address().unwrap()).await.unwrap()
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().0
}

async fn exactly<const N: usize>(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> [u8; N] {
    let mut bytes = [0; N];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

/// All that comes until the other side closes or resets.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection stays open");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn send_and_rest(proxy: &ServerHandle, bytes: &[u8]) -> String {
    let mut client = connect(proxy).await;
    client.write_all(bytes).await.unwrap();
    rest(&mut client).await
}

fn ready() -> Vec<u8> {
    [message(b'R', &[0; 4]), message(b'Z', b"I")].concat()
}

#[tokio::test]
async fn wire_5_what_is_not_postgres_gets_no_answer() {
    let proxy = proxy_alone(|_| {}).await;
    for noise in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\0\0\0\x04",
        b"\0\0\x27\x11\0\x03\0\0",
        b"\xff\xff\xff\xff",
        &[0, 0, 0, 9, 4, 0xd2, 0x16, 0x2f, 0],
        &[0x16, 3, 1, 0, 1],
    ] {
        assert_eq!(send_and_rest(&proxy, noise).await, "");
    }
    drop(connect(&proxy).await);
    assert!(send_and_rest(&proxy, &[0, 0, 0, 9, 0, 2, 0, 0, 0]).await.contains("C0A000\0"));
    assert!(send_and_rest(&proxy, &[0, 0, 0, 9, 0, 3, 0, 0, 7]).await.contains("C08P01\0"));
}

#[tokio::test]
async fn wire_2_encryption_is_asked_for_once_and_may_be_declined() {
    let proxy = proxy_alone(|_| {}).await;
    for order in [[SSL_REQUEST, GSSENC_REQUEST], [GSSENC_REQUEST, SSL_REQUEST]] {
        let mut client = connect(&proxy).await;
        for request in order {
            client.write_all(&request).await.unwrap();
            assert_eq!(&exactly::<1>(&mut client).await, b"N");
        }
        client.write_all(STARTUP).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.contains("C08001\0") && answer.contains("127.0.0.1:1"), "{answer}");
    }
    let twice = send_and_rest(&proxy, &[GSSENC_REQUEST, GSSENC_REQUEST].concat()).await;
    assert!(twice.starts_with("NE") && twice.contains("C08P01\0"), "{twice}");
}

#[tokio::test]
async fn wire_3_clear_text_behind_the_request_for_tls_is_rejected() {
    let certificate = Certificate::new();
    let proxy = proxy_alone(|settings| settings.tls = Some(Arc::new(certificate.listen()))).await;
    let answer = send_and_rest(&proxy, &[&SSL_REQUEST, STARTUP].concat()).await;
    assert!(answer.starts_with('E') && answer.contains("unencrypted data"), "{answer}");
}

#[tokio::test]
async fn tls_can_be_required() {
    let certificate = Certificate::new();
    let proxy = proxy_alone(|settings| settings.tls = Some(Arc::new(certificate.listen().required()))).await;
    assert!(send_and_rest(&proxy, STARTUP).await.contains("C08004\0"));
}

/// A client's handshake; `alpn` and `direct` as a Postgres 17 libpq would.
async fn tls_client(
    proxy: &ServerHandle,
    alpn: &[&[u8]],
    direct: bool,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut tcp = connect(proxy).await;
    if !direct {
        tcp.write_all(&SSL_REQUEST).await?;
        assert_eq!(&exactly::<1>(&mut tcp).await, b"S");
    }
    let config = tls::tests_config(alpn);
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, tcp).await
}

#[tokio::test]
async fn wire_1_direct_tls_needs_the_protocol_name() {
    let certificate = Certificate::new();
    let proxy = proxy_alone(|settings| settings.tls = Some(Arc::new(certificate.listen()))).await;
    for (alpn, direct, served) in [
        (&[&b"postgresql"[..]][..], true, true),
        (&[], true, false),
        (&[b"http/1.1"], true, false),
        (&[b"postgresql"], false, true),
        (&[], false, true),
        (&[b"http/1.1"], false, false),
    ] {
        let answer = match tls_client(&proxy, alpn, direct).await {
            Ok(mut client) => {
                let _ = client.write_all(STARTUP).await;
                rest(&mut client).await
            }
            Err(_) => String::new(),
        };
        assert_eq!(answer.contains("C08001\0"), served, "alpn {alpn:?} direct {direct}: {answer}");
    }
}

#[tokio::test]
async fn wire_37_certificates_reload_and_a_bad_file_changes_nothing() {
    let certificate = Certificate::new();
    let proxy = proxy_alone(|settings| settings.tls = Some(Arc::new(certificate.listen()))).await;
    let shown = async || {
        let client = tls_client(&proxy, &[], false).await.unwrap();
        client.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown().await;
    std::fs::write(certificate.key(), "nonsense").unwrap();
    assert!(proxy.reload_certificates().is_err());
    assert_eq!(shown().await, first);
    certificate.renew();
    proxy.reload_certificates().unwrap();
    assert_ne!(shown().await, first);
}

#[tokio::test]
async fn wire_11_cancel_is_passed_on_and_the_client_closed_after_the_server() {
    let (proxy, listener) = proxy_and_server(UpstreamTls::Disable).await;
    let mut request = BytesMut::new();
    request.put_slice(&[0, 0, 0, 48, 0x04, 0xd2, 0x16, 0x2e]);
    request.put_bytes(9, 40);
    let mut client = connect(&proxy).await;
    client.write_all(&request).await.unwrap();
    let mut server = accept(&listener).await;
    assert_eq!(exactly::<48>(&mut server).await, request[..]);
    assert!(timeout(Duration::from_millis(100), client.read_u8()).await.is_err(), "closed before the server");
    drop(server);
    assert_eq!(rest(&mut client).await, "");
}

#[tokio::test]
async fn wire_4_a_server_that_will_not_talk_tls_is_a_clear_error() {
    for (answer, says) in [
        (&b"Ecould not fork\n\0"[..], "with an error"),
        (b"", "closed the connection"),
        (b"N", "does not offer TLS"),
        (b"H", "not Postgres"),
    ] {
        let (proxy, listener) = proxy_and_server(UpstreamTls::require().unwrap()).await;
        let mut client = connect(&proxy).await;
        client.write_all(STARTUP).await.unwrap();
        let mut server = accept(&listener).await;
        assert_eq!(exactly::<8>(&mut server).await, SSL_REQUEST);
        server.write_all(answer).await.unwrap();
        drop(server);
        let told = rest(&mut client).await;
        assert!(told.contains("C08001\0") && told.contains(says), "{told}");
    }
}

#[tokio::test]
async fn wire_9_startup_bytes_and_pipelined_messages_arrive_as_they_were() {
    let (proxy, listener) = proxy_and_server(UpstreamTls::prefer().unwrap()).await;
    let mut client = connect(&proxy).await;
    let query = message(b'Q', b"select 1\0");
    client.write_all(&[STARTUP, &query].concat()).await.unwrap();
    let mut server = accept(&listener).await;
    assert_eq!(exactly::<8>(&mut server).await, SSL_REQUEST);
    server.write_all(b"N").await.unwrap();
    assert_eq!(exactly::<20>(&mut server).await, STARTUP);
    server.write_all(&ready()).await.unwrap();
    assert_eq!(&exactly::<15>(&mut client).await[..], ready());
    assert_eq!(exactly::<14>(&mut server).await, query[..]);
    drop(client);
    assert_eq!(rest(&mut server).await, "");
}

#[tokio::test]
async fn wire_7_a_newer_client_hears_one_negotiation() {
    let (proxy, listener) = proxy_and_server(UpstreamTls::Disable).await;
    let mut client = connect(&proxy).await;
    client.write_all(b"\0\0\0\x1d\0\x03\x27\x0fuser\0abcde\0_pq_.x\x001\0\0").await.unwrap();
    let mut server = accept(&listener).await;
    assert_eq!(&exactly::<20>(&mut server).await, b"\0\0\0\x14\0\x03\0\x02user\0abcde\0\0");
    server.write_all(&ready()).await.unwrap();
    assert_eq!(&exactly::<20>(&mut client).await, b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0");
    assert_eq!(&exactly::<15>(&mut client).await[..], ready());
}

#[tokio::test]
async fn wire_32_a_server_that_dies_during_login_gives_one_fatal() {
    let (proxy, listener) = proxy_and_server(UpstreamTls::Disable).await;
    let said = message(b'E', b"SFATAL\0C57P03\0Mstarting\0\0");
    for (sends, expected) in [(&b""[..], "C08006\0"), (&said, "C57P03\0")] {
        let mut client = connect(&proxy).await;
        client.write_all(STARTUP).await.unwrap();
        let mut server = accept(&listener).await;
        exactly::<20>(&mut server).await;
        server.write_all(sends).await.unwrap();
        drop(server);
        let told = rest(&mut client).await;
        assert!(told.contains(expected) && told.matches("SFATAL").count() == 1, "{told}");
    }
}

#[tokio::test]
async fn one_session_too_many_is_refused_and_a_drain_ends_the_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = upstream_at(listener.local_addr().unwrap(), UpstreamTls::Disable);
    let proxy = start(upstream, |settings| settings.sessions_max = 1).await;
    let mut client = connect(&proxy).await;
    client.write_all(STARTUP).await.unwrap();
    let mut server = accept(&listener).await;
    server.write_all(&ready()).await.unwrap();
    exactly::<15>(&mut client).await;
    assert!(send_and_rest(&proxy, STARTUP).await.contains("C53300\0"));
    assert_eq!(proxy.sessions(), 1);
    proxy.drain();
    assert_eq!(rest(&mut client).await, "");
    assert!(proxy.is_draining());
}

/// A session that never ends by itself.
struct Stuck;

impl SessionRunner for Stuck {
    fn run(&self, _established: Established) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn wire_36_a_drain_has_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = upstream_at(listener.local_addr().unwrap(), UpstreamTls::Disable);
    let mut settings = ServerSettings::new(ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()), upstream);
    settings.drain_timeout = Duration::from_millis(50);
    let server = Server::bind(settings, Arc::new(Stuck)).await.unwrap();
    let proxy = server.handle();
    let running = tokio::spawn(server.run());
    let mut client = connect(&proxy).await;
    client.write_all(STARTUP).await.unwrap();
    let mut server = accept(&listener).await;
    server.write_all(&ready()).await.unwrap();
    exactly::<9>(&mut client).await;
    proxy.drain();
    timeout(PATIENCE, running).await.unwrap().unwrap();
    assert_eq!(proxy.sessions(), 0);
    assert!(TcpStream::connect(proxy.local_address().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_login_that_is_not_finished_in_time_is_ended() {
    let soon = |settings: &mut ServerSettings| settings.login_timeout = Duration::from_millis(50);
    let proxy = proxy_alone(soon).await;
    assert_eq!(send_and_rest(&proxy, b"\0\0\0\x13\0\x03").await, "");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = start(upstream_at(listener.local_addr().unwrap(), UpstreamTls::Disable), soon).await;
    assert!(send_and_rest(&proxy, STARTUP).await.contains("not finished in time"));
}

#[tokio::test]
async fn a_unix_socket_serves_and_replaces_a_stale_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".s.PGSQL.6432");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let upstream = upstream_at("127.0.0.1:1".parse().unwrap(), UpstreamTls::Disable);
    let _proxy = start(upstream, |settings| settings.listen = ListenAddress::Unix(path.clone())).await;
    let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
    client.write_all(&SSL_REQUEST).await.unwrap();
    assert_eq!(&exactly::<1>(&mut client).await, b"N");
    client.write_all(STARTUP).await.unwrap();
    assert!(rest(&mut client).await.contains("C08001\0"));
}

#[test]
fn unusable_files_are_named() {
    let missing = Path::new("/nonexistent/x.pem");
    assert!(ListenTls::from_files(missing, missing).is_err_and(|e| e.to_string().contains("/nonexistent/x.pem")));
    assert!(UpstreamTls::verify_full(Some(missing)).is_err());
}
