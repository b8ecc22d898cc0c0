//! MurmurHash3, x86, 32 bits, seed 0 (Austin Appleby, public domain): the hash of flagd's
//! `fractional`, so that a key falls into the same bucket here and there.

const C1: u32 = 0xcc9e_2d51;
const C2: u32 = 0x1b87_3593;

/// A hash that is fed in parts: a flag's key, then the targeting key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Murmur3 {
    state: u32,
    tail: [u8; 4],
    tail_len: usize,
    len: u32,
}

impl Murmur3 {
    pub(super) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(slot) = self.tail.get_mut(self.tail_len) {
                *slot = *byte;
            }
            self.tail_len += 1;
            self.len = self.len.wrapping_add(1);
            if self.tail_len == 4 {
                self.block();
            }
        }
    }

    pub(super) fn finish(mut self) -> u32 {
        if self.tail_len > 0 {
            let used = self.tail_len;
            self.tail.iter_mut().skip(used).for_each(|byte| *byte = 0);
            self.state ^= scramble(u32::from_le_bytes(self.tail));
        }
        let mut hash = self.state ^ self.len;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    }

    fn block(&mut self) {
        self.state ^= scramble(u32::from_le_bytes(self.tail));
        self.state = self.state.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
        self.tail_len = 0;
    }
}

fn scramble(block: u32) -> u32 {
    block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(parts: &[&str]) -> u32 {
        let mut murmur = Murmur3::default();
        parts.iter().for_each(|part| murmur.write(part.as_bytes()));
        murmur.finish()
    }

    #[test]
    fn published_vectors_hold() {
        for (text, expected) in [
            ("", 0),
            ("test", 0xba6b_d213),
            ("Hello, world!", 0xc036_3e43),
            ("The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
        ] {
            assert_eq!(hash(&[text]), expected, "{text:?}");
        }
    }

    #[test]
    fn parts_hash_like_their_concatenation() {
        assert_eq!(hash(&["The quick ", "", "bro", "wn fox jumps over the lazy dog"]), 0x2e4f_f723);
    }
}
