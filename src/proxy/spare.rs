//! Memory for bodies that is kept for the next ones.
//!
//! Memory that is new from the system costs more than what is put into it: each page of it is asked
//! for, and cleared, at its first touch. So large pieces are handed on from body to body; those that
//! nobody needed for a while go back to the system.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

/// The size of a piece.
pub(super) const PIECE: usize = 1 << 20;

/// The most pieces that are kept. What they hold counts for no body's room.
const KEPT: usize = 8;

/// Pieces that no body uses.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    pieces: Vec<BytesMut>,
    /// The fewest there were since it was last looked at: so many are more than are needed.
    fewest: usize,
}

impl Spare {
    /// Returns an empty piece.
    pub(super) fn take(&self) -> BytesMut {
        let mut kept = self.kept();
        let piece = kept.pieces.pop();
        kept.fewest = kept.fewest.min(kept.pieces.len());
        drop(kept);
        piece.unwrap_or_else(|| BytesMut::with_capacity(PIECE))
    }

    /// Takes a piece back, if it is one and nobody else has it.
    pub(super) fn give_back(&self, piece: Bytes) {
        let Ok(mut piece) = piece.try_into_mut() else {
            return;
        };
        piece.clear();
        if piece.capacity() == PIECE {
            let mut kept = self.kept();
            if kept.pieces.len() < KEPT {
                kept.pieces.push(piece);
            }
        }
    }

    /// Gives back to the system what was not needed since this was last called.
    pub(super) fn shed(&self) {
        let mut kept = self.kept();
        let left = kept.pieces.len() - kept.fewest;
        let shed = kept.pieces.split_off(left);
        kept.fewest = left;
        drop(kept);
        drop::<Vec<BytesMut>>(shed);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(spare: &Spare, byte: u8) -> Bytes {
        let mut piece = spare.take();
        piece.resize(PIECE / 2, byte);
        piece.freeze()
    }

    #[test]
    fn a_piece_is_handed_on_once_nobody_has_it() {
        let spare = Spare::default();
        let piece = filled(&spare, 1);
        let (place, other) = (piece.as_ptr(), piece.clone());
        spare.give_back(piece);
        assert!(spare.kept().pieces.is_empty(), "it is used still");
        spare.give_back(other);
        let next = filled(&spare, 2);
        assert_eq!(next.as_ptr(), place);
        assert!(next.iter().all(|byte| *byte == 2));
        spare.give_back(Bytes::from_static(b"x"));
        spare.give_back(BytesMut::with_capacity(PIECE / 2).freeze());
        assert!(spare.kept().pieces.is_empty());
    }

    #[test]
    fn no_more_is_kept_than_was_needed() {
        let spare = Spare::default();
        let many = |count| -> Vec<Bytes> { (0..count).map(|_| filled(&spare, 0)).collect() };
        let all_back = |pieces: Vec<Bytes>| pieces.into_iter().for_each(|it| spare.give_back(it));
        let kept = || spare.kept().pieces.len();
        all_back(many(KEPT + 2));
        assert_eq!(kept(), KEPT);
        spare.shed();
        assert_eq!(kept(), KEPT, "all were needed");
        all_back(many(3));
        spare.shed();
        assert_eq!(kept(), 3);
        spare.shed();
        assert_eq!(kept(), 0);
    }
}
