//! Takes connections and speaks HTTP/1.1 on them.
//!
//! What a connection may cost is bounded: its head in size and time, what is read ahead, what waits
//! to be sent, and how long it may wait. Connections beyond the limit stay in the system's queue.

mod patience;
mod peer_end;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::app::Shared;
use crate::gate::Peer;
use patience::Patient;
use peer_end::PeerEnd;

/// Bytes that the system keeps for a peer that does not read; it counts them double.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Bytes of a connection that are read ahead, and that wait to be sent.
const BUFFER_BYTES: usize = 32 << 10;
const MOST_HEAD_BYTES: usize = 32 << 10;
const MOST_HEADERS: usize = 100;
/// After the system refused a connection, for want of files or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// How far a server is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Serving,
    /// No new connections; requests that run may end.
    Draining,
    /// What still runs is cut off.
    Ending,
}

/// Serves until the stage says otherwise, then until the last request has ended or the grace time
/// has.
pub(crate) async fn serve(
    listener: TcpListener,
    app: &Shared,
    router: &Router,
    mut stage: watch::Receiver<Stage>,
) {
    let mut connections = JoinSet::new();
    let of_connections = stage.clone();
    tokio::select! {
        () = reached(&mut stage, Stage::Draining) => {}
        () = accept(&listener, app, router, &of_connections, &mut connections) => {}
    }
    drop(listener);
    app.drain();
    while connections.try_join_next().is_some() {}
    app.log
        .event(json!({ "event": "server.stopping", "connections": connections.len() }));
    let all = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        () = tokio::time::sleep(app.config.limits.grace) => {}
        () = reached(&mut stage, Stage::Ending) => {}
    }
    connections.shutdown().await;
}

/// Takes connections, for ever.
async fn accept(
    listener: &TcpListener,
    app: &Shared,
    router: &Router,
    stage: &watch::Receiver<Stage>,
    connections: &mut JoinSet<()>,
) {
    let slots = Arc::new(Semaphore::new(app.config.limits.connections.max(1)));
    loop {
        // Nobody closes the semaphore.
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (app, router, stage) = (app.clone(), router.clone(), stage.clone());
                connections.spawn(async move {
                    connection(stream, peer, &app, router, stage).await;
                    drop(slot);
                });
            }
            Err(error) if was_the_peers(&error) => {}
            Err(error) => {
                let error = error.to_string();
                app.log
                    .event(json!({ "event": "server.accept_failed", "error": error }));
                tokio::time::sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

fn was_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Serves one connection to its end. Dropping the future closes it and drops its request.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: &Shared,
    router: Router,
    mut stage: watch::Receiver<Stage>,
) {
    let limits = &app.config.limits;
    // Tokens are to be seen as they are made. Where the system refuses either, it works without.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
    let end = Arc::new(PeerEnd::of(&stream));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        let (router, end) = (router.clone(), end.clone());
        async move {
            tokio::select! {
                biased;
                response = router.oneshot(request) => Ok(response.unwrap_or_else(|never| match never {})),
                // Nobody waits for the answer: the request is dropped, and with it its work.
                () = end.gone() => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            }
        }
    });
    let io = TokioIo::new(Patient::new(stream, limits.write_timeout));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.read_timeout)
        .max_buf_size(BUFFER_BYTES)
        .max_header_size(MOST_HEAD_BYTES)
        .max_headers(MOST_HEADERS);
    let mut connection = pin!(http.serve_connection(io, service));
    // How a connection ends is its peer's affair: requests are logged by those who answer them.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = reached(&mut stage, Stage::Draining) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Waits for a stage.
pub(crate) async fn reached(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    if stage.wait_for(|stage| *stage >= wanted).await.is_err() {
        // Nobody is left who could say so.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
