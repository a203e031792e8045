//! "Is typing": shown while the agent works, and always taken away again.
//!
//! A courtesy: nothing waits for it, whether it arrives does not matter, and while calls to a Chatwoot are scarce it is
//! not sent at all. It runs beside the turn, so that the last word is "no more" and never overtaken by a "yes": the
//! turn's end, its being superseded or dropped are all the same to it.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::chatwoot::client::{CallClass, Chatwoot};

/// Shown as long as this lives.
pub(super) struct Typing {
    _shown: oneshot::Sender<()>,
}

impl Typing {
    /// Shows it, and again each time after `every`. It ends within two calls' time after this is dropped.
    pub(super) fn show(client: Chatwoot, conversation_id: u64, every: Duration) -> Self {
        let (shown, mut ended) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let mut may_show = false;
            loop {
                let sent = client.typing(conversation_id, true).await;
                may_show |=
                    !matches!(sent.map_err(|error| error.class), Err(CallClass::NotSent | CallClass::Throttled(_)));
                tokio::select! {
                    _ = &mut ended => break,
                    () = tokio::time::sleep(every) => {}
                }
            }
            if may_show {
                let _ = client.typing(conversation_id, false).await;
            }
        });
        Self { _shown: shown }
    }
}
