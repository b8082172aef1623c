//! MAC addresses, and ours among them.

use std::fmt;
use std::str::FromStr;

/// The first two bytes of every MAC that we make up: unicast and locally administered.
const PREFIX: [u8; 2] = [0x0a, 0xc0];

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// A MAC of our own prefix from 4 random bytes, which the caller draws.
pub fn random_mac(chance: [u8; 4]) -> Mac {
    let [a, b, c, d] = chance;
    Mac([PREFIX[0], PREFIX[1], a, b, c, d])
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

/// Why a text is not a MAC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address: expected six bytes such as 0a:c0:12:34:56:78, not a multicast address")]
pub struct MacError;

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(MacError)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        if parts.next().is_some() || bytes[0] & 1 == 1 {
            return Err(MacError);
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_unicast_and_locally_administered() {
        for chance in [[0; 4], [0xff; 4]] {
            let mac = random_mac(chance);
            assert_eq!(mac.0[0] & 0b11, 0b10, "{mac}");
        }
    }

    #[test]
    fn macs_survive_their_text_form() {
        let mac = random_mac([1, 2, 0xab, 4]);
        assert_eq!(mac.to_string(), "0a:c0:01:02:ab:04");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for bad in [
            "",
            "0a:c0:01:02:ab",
            "0a:c0:01:02:ab:04:05",
            "01:c0:01:02:ab:04",
            "0a:c0:+1:02:ab:04",
            "zz:c0:01:02:ab:04",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(MacError), "{bad}");
        }
    }
}
