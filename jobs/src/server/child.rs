//! A child process that a thread of its own waits for, whatever becomes of the code that started it. Postgres takes a dead process that
//! was not waited for (a zombie) for a running server, and does not start beside it.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A process of ours.
pub(super) struct Child {
    has_ended: Arc<AtomicBool>,
}

impl Child {
    /// Starts it, and a thread that waits for its end.
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let has_ended = Arc::new(AtomicBool::new(false));
        let ended = has_ended.clone();
        std::thread::Builder::new().name("postgres-wait".to_owned()).spawn(move || {
            // Waiting fails only for a process that is no child of ours.
            drop(child.wait());
            ended.store(true, Ordering::Release);
        })?;
        Ok(Self { has_ended })
    }

    /// Whether it has ended, and was waited for.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }
}
