//! Names of 24 bytes, made by arithmetic: a table of names to pick from would cost each lookup
//! a cache miss that is not the registry's.

/// Bytes of a name.
pub(super) const LENGTH: usize = 24;

/// `backend-` and a number in 16 hexadecimal digits.
#[inline]
pub(super) fn name(n: u64) -> [u8; LENGTH] {
    let mut name = *b"backend-0000000000000000";
    name[8..16].copy_from_slice(&hex((n >> 32) as u32));
    name[16..].copy_from_slice(&hex(n as u32));
    name
}

/// The same as text.
pub(super) fn text(n: u64) -> String {
    String::from_utf8_lossy(&name(n)).into_owned()
}

/// Eight digits at once: a nibble a byte, then to ASCII.
fn hex(n: u32) -> [u8; 8] {
    let mut spread = u64::from(n);
    spread = ((spread << 16) | spread) & 0x0000_ffff_0000_ffff;
    spread = ((spread << 8) | spread) & 0x00ff_00ff_00ff_00ff;
    spread = ((spread << 4) | spread) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((spread + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (spread + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
}

/// Uniform numbers.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// Splitmix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_number_in_hexadecimal() {
        for n in [0, 9, 10, 0x1234_5678_90ab_cdef, u64::MAX] {
            assert_eq!(text(n), format!("backend-{n:016x}"));
        }
    }
}
