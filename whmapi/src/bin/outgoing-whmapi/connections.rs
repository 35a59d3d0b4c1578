//! From accept to the end of a connection. Everything that a peer can take is bounded: places, time, bytes of headers.
//!
//! What hyper refuses by itself, headers that are too long or no HTTP, is answered without a body.

use crate::config::Limits;
use crate::guard::{Lines, Network};
use crate::http::Peer;
use crate::tls::Tls;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{self, Instant};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

/// Most bytes of a call's first line and headers.
const MAX_HEADER_BYTES: usize = 8 << 10;

/// Most headers of a call.
const MAX_HEADERS: usize = 64;

/// Most bytes that are read ahead on one connection.
const MAX_BUFFER: usize = 16 << 10;

/// The time in which a peer must have taken an answer.
const SENDING: Duration = Duration::from_secs(10);

/// The wait after a connection could not be accepted: at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What all connections have in common.
#[derive(Debug)]
pub(crate) struct Connections {
    router: Router,
    tls: Option<Tls>,
    http: http1::Builder,
    limits: Limits,
    places: Arc<Semaphore>,
    networks: Arc<Networks>,
    stop: watch::Receiver<bool>,
}

/// How many connections there are from where.
#[derive(Debug, Default)]
struct Networks(Mutex<HashMap<Network, usize>>);

/// One connection's place among all, and among those from the same address.
#[derive(Debug)]
struct Place {
    network: Network,
    networks: Arc<Networks>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// Connections whose calls go to `router`, until `stop` says true.
    pub(crate) fn new(router: Router, tls: Option<Tls>, limits: &Limits, stop: watch::Receiver<bool>) -> Connections {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_deadline())
            // Who has said all may close his side, and is answered nevertheless.
            .half_close(true)
            .max_header_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER);
        let places = Arc::new(Semaphore::new(limits.connections));
        Connections { router, tls, http, limits: limits.clone(), places, networks: Arc::default(), stop }
    }

    /// Serves whoever comes.
    pub(crate) async fn accept(self: Arc<Self>, mut listeners: Vec<TcpListener>) {
        let (mut pause, mut lines) = (BACK_OFF.0, Lines::default());
        loop {
            if self.places.available_permits() == 0 && lines.next(Instant::now().into_std()).is_some() {
                warn!("all {} places for connections are taken; whoever comes waits", self.limits.connections);
            }
            // The semaphore is never closed.
            let Ok(permit) = self.places.clone().acquire_owned().await else { return };
            // Another one is first next time.
            listeners.rotate_left(1);
            match next(&listeners).await {
                Ok((stream, address)) => {
                    pause = BACK_OFF.0;
                    self.clone().welcome(stream, address, permit);
                }
                // The peer has gone already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // No descriptors, no memory, no network: waiting may help, ending would not.
                    warn!("cannot accept a connection: {error}; trying again in {pause:?}");
                    time::sleep(pause).await;
                    pause = BACK_OFF.1.min(pause * 2);
                }
            }
        }
    }

    fn welcome(self: Arc<Self>, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let most = self.limits.connections_per_address;
        if let Some(place) = self.networks.enter(Network::of(address.ip()), most, permit) {
            tokio::spawn(self.serve(stream, address, place));
        } else {
            debug!("{} has too many connections", address.ip());
        }
    }

    /// Waits until every connection has ended, while nobody accepts any more.
    pub(crate) async fn ended(&self) {
        // At most 4096 of them, and never closed.
        let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
        let _ = self.places.acquire_many(all).await;
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, address: SocketAddr, _place: Place) {
        // Without it a short answer may wait; that is all.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.converse(stream, address).await };
        let handshake = TlsAcceptor::from(tls.current()).accept(stream);
        let mut stop = self.stop.clone();
        let greeted = tokio::select! {
            greeted = time::timeout(self.limits.header_deadline(), handshake) => greeted,
            // Nobody has called yet.
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match greeted {
            Ok(Ok(stream)) => self.converse(stream, address).await,
            Ok(Err(error)) => debug!("no TLS with {address}: {error}"),
            Err(_) => debug!("no TLS with {address} in time"),
        }
    }

    async fn converse<S>(&self, stream: S, address: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // A peer that takes its answer too slowly, or not at all, neither calls again nor waits for its next call:
        // nothing in hyper ends that.
        let patience = self.limits.request_deadline() + SENDING + self.limits.header_deadline();
        let last_call = Mutex::new(Instant::now());
        let last_called = || *last_call.lock().unwrap_or_else(PoisonError::into_inner);
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(|mut request: Request<Incoming>| {
            *last_call.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            request.extensions_mut().insert(Peer(address.ip().to_canonical()));
            router.call(request)
        });
        let mut connection = std::pin::pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let mut stop = self.stop.clone();
        let mut stopping = false;
        loop {
            let deadline = last_called() + patience;
            tokio::select! {
                outcome = &mut connection => {
                    return outcome.unwrap_or_else(|error| debug!("the connection with {address} broke: {error}"));
                }
                _ = stop.wait_for(|stop| *stop), if !stopping => {
                    connection.as_mut().graceful_shutdown();
                    stopping = true;
                }
                () = time::sleep_until(deadline) => {
                    if last_called() + patience <= Instant::now() {
                        return debug!("{address} has not taken its answer in time");
                    }
                }
            }
        }
    }
}

/// The next connection on any of them.
async fn next(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    future::poll_fn(|context| {
        let ready = listeners.iter().map(|listener| listener.poll_accept(context)).find(Poll::is_ready);
        ready.unwrap_or(Poll::Pending)
    })
    .await
}

impl Networks {
    /// A place for one more connection from there; none: there are `most`.
    fn enter(self: &Arc<Self>, network: Network, most: usize, permit: OwnedSemaphorePermit) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { network, networks: self.clone(), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.networks.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}
