//! A Bloom filter before a run: of a fingerprint that is not in the run it nearly always says so, of one that is it never does.
//!
//! Bloom, "Space/time trade-offs in hash coding with allowable errors" (1970), with the positions of Kirsch and Mitzenmacher, "Less hashing,
//! same performance" (2006). Fingerprints are uniform already, so their halves are the two hashes. It is kept in Postgres, so its bits must
//! not depend on a library's version.

/// Bits of all filters together.
const BITS_MAX: u64 = 64 << 23;

/// Bits and positions for one fingerprint.
#[derive(Debug)]
pub(super) struct Filter {
    words: Vec<u64>,
    hashes: u32,
}

impl Filter {
    /// For so many fingerprints, so that those of a whole window find room.
    pub(super) fn new(entries: usize, window: i64) -> Self {
        let bits_each = (BITS_MAX / u64::try_from(window).unwrap_or(1).max(1)).clamp(4, 16);
        let words = (u64::try_from(entries).unwrap_or(u64::MAX) * bits_each).div_ceil(64).max(1);
        // 0.69 positions for each bit of an entry are best: the natural logarithm of two.
        let hashes = u32::try_from((bits_each * 69).div_ceil(100)).unwrap_or(1);
        Self { words: vec![0; usize::try_from(words).unwrap_or(1)], hashes }
    }

    #[allow(clippy::as_conversions, reason = "the halves of a u128, and a remainder by a length")]
    fn positions(&self, fingerprint: u128) -> impl Iterator<Item = (usize, u64)> + use<> {
        let (first, step) = (fingerprint as u64, (fingerprint >> 64) as u64 | 1);
        let bits = self.words.len() as u64 * 64;
        (0..u64::from(self.hashes)).map(move |n| {
            let bit = first.wrapping_add(step.wrapping_mul(n)) % bits;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    pub(super) fn insert(&mut self, fingerprint: u128) {
        for (word, bit) in self.positions(fingerprint) {
            self.words[word] |= bit;
        }
    }

    pub(super) fn may_hold(&self, fingerprint: u128) -> bool {
        self.positions(fingerprint).all(|(word, bit)| self.words[word] & bit != 0)
    }

    /// The number of positions, then the words, the highest byte first.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let hashes = self.hashes.to_be_bytes();
        hashes.into_iter().chain(self.words.iter().flat_map(|word| word.to_be_bytes())).collect()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (hashes, words) = bytes.split_at_checked(4)?;
        let words: Vec<u64> = words.as_chunks().0.iter().map(|word| u64::from_be_bytes(*word)).collect();
        let hashes = u32::from_be_bytes(hashes.try_into().ok()?);
        (!words.is_empty()).then_some(Self { words, hashes })
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn fingerprint(n: u32) -> u128 {
        let digest = Sha256::digest(n.to_be_bytes());
        u128::from_be_bytes(digest[..16].try_into().expect("half"))
    }

    #[test]
    fn what_is_in_it_is_found_and_little_else() {
        for (window, at_most) in [(1_000_000, 30), (100_000_000, 900)] {
            let mut filter = Filter::new(10_000, window);
            (0..10_000).for_each(|n| filter.insert(fingerprint(n)));
            let filter = Filter::from_bytes(&filter.to_bytes()).expect("a filter");
            assert!((0..10_000).all(|n| filter.may_hold(fingerprint(n))));
            let wrong = (10_000..20_000).filter(|n| filter.may_hold(fingerprint(*n))).count();
            assert!(wrong <= at_most, "{wrong} of 10,000 with a window of {window}");
        }
    }
}
