//! A relay that remembers every byte: put it before or behind the proxy to see what really crossed.
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A listening relay; it takes no new connection once dropped.
pub struct Tap {
    address: SocketAddr,
    to_server: Bytes,
    to_client: Bytes,
    closed: Arc<AtomicBool>,
}

impl Tap {
    /// Relays to `server`.
    pub fn start(server: SocketAddr) -> Tap {
        Tap::start_in(server, &[usize::MAX])
    }

    /// The same, cutting what it relays into pieces of these lengths, over and over.
    pub fn start_in(server: SocketAddr, pieces: &'static [usize]) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tap = Tap {
            address: listener.local_addr().unwrap(),
            to_server: Bytes::default(),
            to_client: Bytes::default(),
            closed: Arc::default(),
        };
        let (up, down, closed) = (tap.to_server.clone(), tap.to_client.clone(), tap.closed.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if closed.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(server) = TcpStream::connect(server) {
                    relay(&client, &server, up.clone(), pieces);
                    relay(&server, &client, down.clone(), pieces);
                }
            }
        });
        tap
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All bytes towards the server so far, all connections together.
    pub fn to_server(&self) -> Vec<u8> {
        self.to_server.lock().unwrap().clone()
    }

    /// All bytes towards the server since this was asked last.
    pub fn take_to_server(&self) -> Vec<u8> {
        std::mem::take(&mut self.to_server.lock().unwrap())
    }

    /// All bytes towards the client so far.
    pub fn to_client(&self) -> Vec<u8> {
        self.to_client.lock().unwrap().clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// True if `needle` stands somewhere in `bytes`.
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Remembers before it forwards, so that what a peer has seen is always in the record.
fn relay(from: &TcpStream, to: &TcpStream, record: Bytes, pieces: &'static [usize]) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = to.set_nodelay(true);
        let mut buffer = [0; 16 * 1024];
        let mut lengths = pieces.iter().cycle();
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            record.lock().unwrap().extend_from_slice(&buffer[..length]);
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*lengths.next().unwrap()));
                rest = after;
                if to.write_all(piece).is_err() {
                    return drop(to.shutdown(Shutdown::Write));
                }
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
