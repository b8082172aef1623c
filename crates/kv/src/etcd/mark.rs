//! The mark in front of each value, by which a commit knows its own work.

/// Drawn by chance for one commit.
#[derive(Debug, Clone, Copy)]
pub struct Mark([u8; 16]);

/// Bytes of a mark as it is stored: hexadecimal digits and a space, for people who look.
pub const BYTES: usize = 33;

impl Mark {
    pub fn new() -> Self {
        Self(ambient::random())
    }

    fn text(self) -> String {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        digits + " "
    }

    /// The value as it is stored.
    pub fn before(self, value: &[u8]) -> Vec<u8> {
        [self.text().as_bytes(), value].concat()
    }

    /// Whether a stored value has this mark.
    pub fn is_on(self, stored: &[u8]) -> bool {
        stored.starts_with(self.text().as_bytes())
    }
}
