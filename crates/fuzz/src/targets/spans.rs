//! What carries a request to the next who works on it.

use super::texts;

pub fn traceparents() -> Vec<Vec<u8>> {
    texts(&[
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        // Of a version that is to come: what it adds says nothing to us.
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be-like",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    ])
}
