//! Cancel requests: passed on as they came, with no state in the proxy, since every key is the server's own.
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stream::{ClientStream, ServerStream};
use super::upstream::{Upstream, UpstreamError};
use crate::wire::startup::CancelRequest;

/// How long the server may take to close after it got a request.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Passes a request on (over TLS if that hop has TLS) and closes the client only when the server has closed: libpq
/// takes the close as the sign that the signal was sent.
///
/// # Errors
/// [`UpstreamError`] when the server is not reached. The client hears nothing, as with Postgres.
pub async fn forward(mut client: ClientStream, request: &CancelRequest, to: &Upstream) -> Result<(), UpstreamError> {
    let mut server = to.connect().await?;
    server.write_all(request.raw()).await?;
    server.flush().await?;
    // A server that never closes must not hold the client for ever.
    let _closed = tokio::time::timeout(CLOSE_TIMEOUT, until_closed(&mut server)).await;
    let _ = client.shutdown().await;
    Ok(())
}

/// Reads until the end. The server sends nothing; a missing close_notify is an end as well.
async fn until_closed(server: &mut ServerStream) {
    let mut scrap = [0; 64];
    while let Ok(1..) = server.read(&mut scrap).await {}
}
