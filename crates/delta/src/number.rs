//! Numbers of any size: seven bits a byte, the lowest first (LEB128).

use crate::{DeltaError, Result};

pub fn number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

pub fn read(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let Some((byte, after)) = rest.split_first() else {
            return Err(DeltaError::Malformed("it ends in a number"));
        };
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DeltaError::Malformed("a number has more than 64 bits"))
}

/// A number that may be below zero, as one that is not: small ones stay small (zigzag).
pub fn signed(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub fn signed_of(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
