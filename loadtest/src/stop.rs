//! Being told to stop: Ctrl-C at a terminal, SIGTERM from whoever started us.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Listens to SIGINT and SIGTERM from now on; the future ends when one of them comes.
///
/// Call it before telling anybody that we are up: until then a signal just kills.
///
/// # Errors
/// The signals cannot be listened to.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
