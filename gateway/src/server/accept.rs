//! Sockets: binding them, accepting from them, and stopping.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::server::connection;
use crate::server::tls::Tls;
use crate::{Core, Gateway};

/// Connections the kernel holds while we are busy. Chatwoot does not retry a refused one.
const BACKLOG: i32 = 4_096;
/// Pause after a failed accept (no descriptors left): long enough not to spin, short enough not to matter.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bound sockets, not yet served.
#[derive(Debug)]
pub struct Listeners {
    /// One per worker, all on one port.
    pub public: Vec<StdListener>,
    /// The admin listener.
    pub admin: StdListener,
}

/// Sockets that were open before us: by systemd's socket activation, or by whoever started us the same way.
///
/// They stay open while one process follows another, so that nobody is refused meanwhile.
#[derive(Debug, Default)]
pub struct Passed {
    public: Option<StdListener>,
    admin: Option<StdListener>,
}

impl Passed {
    /// Takes what the environment names (`LISTEN_PID`, `LISTEN_FDS`): the first for the public, the second for the
    /// admin listener. Fails on anything else, and on more: sockets that nobody serves would wait for ever.
    pub fn from_environment() -> io::Result<Self> {
        let mut passed = listenfd::ListenFd::from_env();
        if passed.len() > 2 {
            return Err(io::Error::other(format!("{} sockets were passed, and there are 2 listeners", passed.len())));
        }
        let mut take = |number: usize| match number < passed.len() {
            true => passed.take_tcp_listener(number),
            false => Ok(None),
        };
        Ok(Self { public: take(0)?, admin: take(1)? })
    }
}

/// What stopping means at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Serve.
    No,
    /// Accept nothing more, finish what is open.
    Drain,
}

/// Binds the public address `workers` times and the admin address once. Port 0 picks a free one, the same for all.
/// A socket that was passed is used instead of its address; the workers then share its one queue.
pub fn bind(public: SocketAddr, admin: SocketAddr, workers: usize, passed: Passed) -> io::Result<Listeners> {
    let shared = passed.public.is_some();
    let first = passed.public.map_or_else(|| listen(public), nonblocking)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..workers.max(1) {
        let next = match listeners.first() {
            Some(first) if shared => first.try_clone()?,
            _ => listen(address)?,
        };
        listeners.push(next);
    }
    Ok(Listeners { public: listeners, admin: passed.admin.map_or_else(|| listen(admin), nonblocking)? })
}

fn nonblocking(listener: StdListener) -> io::Result<StdListener> {
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Which listener a connection came in by.
#[derive(Debug, Clone)]
pub enum Worker {
    /// `/v1` and webhooks.
    Public(Option<Tls>),
    /// Metrics, health and operations.
    Admin,
}

/// Serves one listener on the current runtime until told to stop; then waits for open connections, at most the
/// drain time, and cuts what is left.
pub async fn serve(
    gateway: Arc<Gateway>,
    core: Arc<Core>,
    listener: StdListener,
    worker: Worker,
    mut stop: watch::Receiver<Stop>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let open = Arc::new(AtomicUsize::new(0));
    let (all_closed, mut closed) = watch::channel(());
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::No) => break,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // ECONNABORTED and its kin concern one connection; EMFILE concerns all, and needs a pause. The
                // kernel holds who comes meanwhile.
                gateway.metrics.accept_failures.inc();
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "A connection was not accepted; the next are tried every 50 ms.");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failing = false;
        let Some(seat) = Seat::take(&gateway, &open, &worker) else {
            gateway.metrics.connections_refused.inc();
            continue;
        };
        let served =
            connection::serve(Arc::clone(&gateway), Arc::clone(&core), socket, peer, worker.clone(), stop.clone());
        let all_closed = all_closed.clone();
        tokio::spawn(async move {
            served.await;
            drop(seat);
            // Nobody waits for this until the drain.
            let _ = all_closed.send(());
        });
    }
    drop(listener);
    let drained = async {
        while open.load(Ordering::Acquire) > 0 {
            if closed.changed().await.is_err() {
                break;
            }
        }
    };
    if tokio::time::timeout(gateway.config().timeouts.drain, drained).await.is_err() {
        tracing::warn!(
            connections = open.load(Ordering::Acquire),
            "Connections were cut at the end of the drain time."
        );
    }
    Ok(())
}

/// A place among the open connections; leaves when dropped.
struct Seat {
    gateway: Arc<Gateway>,
    open: Arc<AtomicUsize>,
    public: bool,
}

impl Seat {
    fn take(gateway: &Arc<Gateway>, open: &Arc<AtomicUsize>, worker: &Worker) -> Option<Self> {
        let public = matches!(worker, Worker::Public(_));
        if public {
            let most = gateway.config().limits.connections_max;
            if gateway.connections.fetch_add(1, Ordering::AcqRel) >= most {
                gateway.connections.fetch_sub(1, Ordering::AcqRel);
                return None;
            }
            gateway.metrics.connections.inc();
        }
        open.fetch_add(1, Ordering::AcqRel);
        Some(Self { gateway: Arc::clone(gateway), open: Arc::clone(open), public })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        if self.public {
            self.gateway.connections.fetch_sub(1, Ordering::AcqRel);
            self.gateway.metrics.connections.dec();
        }
    }
}
