//! Random bytes from the operating system, drawn in batches: a call of the kernel for each nonce would cost more than
//! the cell.
use std::cell::RefCell;

use zeroize::{Zeroize, Zeroizing};

/// How much a thread draws at a time.
const BATCH_BYTES: usize = 1024;

thread_local! {
    static BATCH: RefCell<Batch> = RefCell::new(Batch { bytes: Zeroizing::new([0; BATCH_BYTES]), left: 0 });
}

struct Batch {
    bytes: Zeroizing<[u8; BATCH_BYTES]>,
    /// How many bytes at the end have not been given out. Those that have are zero.
    left: usize,
}

impl Batch {
    fn take(&mut self, out: &mut [u8]) {
        if self.left < out.len() {
            from_system(self.bytes.as_mut_slice());
            self.left = BATCH_BYTES;
        }
        let start = BATCH_BYTES - self.left;
        let given = &mut self.bytes[start..start + out.len()];
        out.copy_from_slice(given);
        given.zeroize();
        self.left -= out.len();
    }
}

/// Fresh random bytes, such as a nonce for [`super::seal`].
///
/// # Panics
/// As [`fill_random`].
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

/// Fills a buffer with random bytes of the operating system's generator. No byte is given out twice, and none is kept
/// once it is given out.
///
/// # Panics
/// When the operating system has no randomness to give: nothing safe can be done then.
pub fn fill_random(bytes: &mut [u8]) {
    if bytes.len() > BATCH_BYTES / 4 {
        return from_system(bytes);
    }
    BATCH.with_borrow_mut(|batch| batch.take(bytes));
}

fn from_system(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_bytes_are_given_out_twice_on_any_thread() {
        let draw = || (0..500).map(|_| random_bytes::<16>()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let drawn: Vec<[u8; 16]> = threads.into_iter().flat_map(|thread| thread.join().into_iter().flatten()).collect();
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 2000);
        for length in [0, 1, 12, 255, 256, 257, 5000] {
            let mut bytes = vec![0; length];
            fill_random(&mut bytes);
            assert!(length < 32 || bytes.iter().any(|byte| *byte != 0));
        }
    }

    #[test]
    fn what_was_given_out_is_wiped() {
        let mut batch = Batch { bytes: Zeroizing::new([0; BATCH_BYTES]), left: 0 };
        let mut out = [0; 100];
        batch.take(&mut out);
        assert!(out != [0; 100]);
        assert_eq!(batch.bytes[..100], [0; 100]);
        assert_eq!(batch.left, BATCH_BYTES - 100);
    }
}
