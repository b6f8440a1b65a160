//! How long a plaintext is made before it is sealed. Readers need not know: they are told the value's length.

use super::seal::PREFIX_LEN;

/// The shortest padded plaintext in bytes.
const PADDED_LEN_MIN: usize = 16;

/// How plaintexts are padded before sealing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Not at all: the cell shows the value's length.
    None,
    /// To the next Padmé length, at least 16, over tag, length and value together: 12 % at most for long values, and
    /// the cell shows only the leading bits of the length.
    Padme,
    /// As if the value had this many bytes. Longer values are not padded, so they do show their length.
    Fixed(u32),
}

impl Padding {
    /// The length of the plaintext (tag, length, value and padding) for a value of `value_len` bytes.
    pub(super) fn plaintext_len(self, value_len: usize) -> usize {
        let bare = PREFIX_LEN.saturating_add(value_len);
        match self {
            Self::None => bare,
            Self::Padme => padme(bare).max(PADDED_LEN_MIN),
            Self::Fixed(room) => bare.max(PREFIX_LEN.saturating_add(room as usize)),
        }
    }
}

/// The Padmé length: only the leading bits of a length may be set, about log log of them
/// (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", section 4).
fn padme(len: usize) -> usize {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let bits_kept = exponent.checked_ilog2().map_or(0, |log| log + 1);
    let mask = (1_usize << (exponent - bits_kept)) - 1;
    len.saturating_add(mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padme_lengths_are_those_of_the_paper() {
        let cases =
            [(1, 1), (2, 2), (8, 8), (9, 10), (10, 10), (17, 18), (33, 36), (100, 104), (1000, 1024), (1025, 1088)];
        for (len, padded) in cases {
            assert_eq!(padme(len), padded, "padme({len})");
        }
    }

    #[test]
    fn padding_never_cuts_and_costs_an_eighth_at_most() {
        for len in 0..100_000 {
            let padded = Padding::Padme.plaintext_len(len);
            assert!(padded >= len + PREFIX_LEN);
            assert!(padded <= PADDED_LEN_MIN.max((len + PREFIX_LEN) * 9 / 8), "{len} became {padded}");
        }
    }

    #[test]
    fn fixed_room_is_counted_in_bytes_of_the_value() {
        assert_eq!(Padding::Fixed(20).plaintext_len(0), 25);
        assert_eq!(Padding::Fixed(20).plaintext_len(20), 25);
        assert_eq!(Padding::Fixed(20).plaintext_len(21), 26);
        assert_eq!(Padding::None.plaintext_len(21), 26);
    }
}
