//! Randomness that repeats: what a seed and a label determine, and nothing else does.
//!
//! The fake shuffles stored policies and invents identifiers. A test that fails must fail again, so
//! nothing here looks at the clock or at the operating system.

use sha2::{Digest, Sha256};

/// A small generator (splitmix64), good enough to shuffle with.
pub(crate) struct Seeded(u64);

impl Seeded {
    /// Returns the generator for a seed and a label; different labels give unrelated sequences.
    pub(crate) fn new(seed: u64, label: &str) -> Self {
        let digest = Sha256::digest(format!("{seed}/{label}"));
        Self(
            digest
                .iter()
                .take(8)
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which must not be zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a length fits in 64 bits");
        usize::try_from(self.next() % bound).expect("it is below a usize")
    }

    /// Tosses a coin.
    pub(crate) fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }

    /// Shuffles in place (Fisher-Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }

    /// Returns text of the given length over an alphabet.
    pub(crate) fn text(&mut self, length: usize, alphabet: &[u8]) -> String {
        (0..length)
            .map(|_| char::from(alphabet[self.below(alphabet.len())]))
            .collect()
    }

    /// Returns a prefix followed by random characters: the shape of IAM's unique ids and of access
    /// key ids.
    pub(crate) fn id(&mut self, prefix: &str, length: usize) -> String {
        format!(
            "{prefix}{}",
            self.text(length, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
        )
    }

    /// Returns a secret access key.
    pub(crate) fn secret(&mut self) -> String {
        self.text(
            40,
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/+",
        )
    }
}
