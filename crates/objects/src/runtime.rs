//! The one asynchronous corner: a small executor that the stores across a network share.

use std::future::Future;
use std::sync::{OnceLock, mpsc};

use tokio::runtime::{Builder, Runtime};

use crate::ObjectError;

/// Threads of the executor; they only wait for sockets.
const THREADS: usize = 2;

fn runtime() -> Result<&'static Runtime, ObjectError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("objects")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
    });
    started.as_ref().map_err(|detail| ObjectError::Unavailable {
        location: "this machine".to_owned(),
        detail: format!("cannot start network threads: {detail}"),
    })
}

/// Runs a future to its end while this thread waits. Works from any thread, also from one that
/// belongs to another executor, because the future runs on ours.
pub(crate) fn wait<T: Send + 'static>(
    future: impl Future<Output = Result<T, ObjectError>> + Send + 'static,
) -> Result<T, ObjectError> {
    let (answer, answered) = mpsc::sync_channel(1);
    runtime()?.spawn(async move {
        // Nobody waits any more only when the waiting thread is gone.
        let _ = answer.send(future.await);
    });
    answered.recv().unwrap_or_else(|_| {
        Err(ObjectError::Unavailable {
            location: "this machine".to_owned(),
            detail: "a network request ended without an answer".to_owned(),
        })
    })
}
