//! Where planes are, as one of them has named them: kept beside the token by which they are asked, in `FILE.planes`.
//!
//! *Lost, or not written,* they are named again with the next answer. An address lets nobody in: whoever is there is
//! believed by the certificate that the token is for.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::login::Draft;

const FORMAT: u32 = 1;

/// See the module's documentation.
pub struct KeptPlanes(PathBuf);

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    named: Vec<String>,
}

impl KeptPlanes {
    /// Those of a token that is in this file.
    pub fn beside(token_file: &Path) -> Self {
        let mut path = token_file.as_os_str().to_owned();
        path.push(".planes");
        Self(path.into())
    }

    pub fn read(&self) -> Vec<String> {
        let text = std::fs::read(&self.0).unwrap_or_default();
        let file = serde_json::from_slice::<File>(&text).ok();
        file.filter(|file| file.format == FORMAT).map_or_else(Vec::new, |file| file.named)
    }

    /// One alone is where it was asked.
    pub fn keep(&self, named: &[String]) {
        if named.len() < 2 && !self.0.exists() {
            return;
        }
        let file = File { format: FORMAT, named: named.to_vec() };
        let Ok(text) = serde_json::to_string(&file) else { return };
        // Where nobody may write, they are asked for again.
        let _ = Draft::beside(&self.0).and_then(|mut draft| draft.keep(&text, &self.0));
    }
}
