//! Collects the first bytes of what a child says, while it runs.
//!
//! What is beyond the bound is not read: the child meets a closed pipe.

use std::io::{self, PipeReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A pipe that is being listened to.
pub(crate) struct Listener {
    heard: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Listener {
    /// Listens to at most `bytes_max` bytes.
    pub fn start(pipe: PipeReader, bytes_max: u64) -> io::Result<Self> {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let for_thread = Arc::clone(&heard);
        let thread = std::thread::Builder::new().name("listener".to_owned()).spawn(move || {
            let mut pipe = pipe.take(bytes_max);
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                let mut heard = for_thread.lock().unwrap_or_else(PoisonError::into_inner);
                heard.extend_from_slice(&buffer[..count]);
            }
        })?;
        Ok(Self { heard, thread })
    }

    /// What it said so far, as text.
    pub fn heard(&self) -> String {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&heard).into_owned()
    }

    /// Everything; call when the writer has ended.
    pub fn finish(self) -> Vec<u8> {
        let Self { heard, thread } = self;
        let _ = thread.join();
        std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, as text.
    pub fn finish_text(self) -> String {
        String::from_utf8_lossy(&self.finish()).into_owned()
    }
}
