//! Bodies on their way to the domain.
//!
//! The signature covers the hash of the body and goes before it, so a body is held until its end is
//! known. What all of them hold together is bounded: room is taken before bytes are read, and
//! whoever finds none waits, its client held up by TCP alone.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::connections::{Answer, Interrupted};
use super::refusal::Refusal;
use super::spare::{PIECE, Spare};
use crate::sigv4::{Hash, Payload};

/// The unit in which room is taken.
const UNIT: u64 = 1 << 10;

/// So much room a body takes at first...
const FIRST: u64 = 64 << 10;

/// ...and up to so much of that for small ones.
const SMALL: u64 = 1 << 20;

/// The smallest piece in which a body is held, where it may be as small.
const SMALLEST: usize = 4 << 10;

/// The longest that a client may pause within a body...
const PAUSE: Duration = Duration::from_secs(30);

/// ...and the fewest bytes a second that it has to send on the whole, beyond that.
const SLOWEST: u64 = 4 << 10;

/// The longest that a body waits for room.
const WAIT: Duration = Duration::from_secs(30);

/// The room for all bodies.
///
/// A quarter is for small bodies, and the beginnings of others. Of the rest, enough for one of the largest is for whoever comes to
/// the end of what is shared: a body takes more as it grows, and whoever has the last room waits for
/// nobody. So those who hold some and wait for more all get it.
#[derive(Debug, Clone)]
pub struct Budget {
    small: Pool,
    shared: Pool,
    last: Pool,
    /// The largest body.
    limit: u64,
    spare: Arc<Spare>,
}

/// A part of the room.
#[derive(Debug, Clone)]
struct Pool {
    free: Arc<Semaphore>,
    units: usize,
}

impl Pool {
    fn new(units: usize) -> Self {
        let free = Arc::new(Semaphore::new(units));
        Self { free, units }
    }

    /// Takes room in the order of who waits for it; never, where there is not so much.
    async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let wanted = units(bytes);
        if wanted > self.units {
            return pending().await;
        }
        let wanted = u32::try_from(wanted).ok()?;
        Arc::clone(&self.free).acquire_many_owned(wanted).await.ok()
    }

    fn taken(&self) -> usize {
        self.units - self.free.available_permits()
    }
}

/// Waits for room, but not for ever.
async fn in_time<T>(taken: impl Future<Output = Option<T>>) -> Result<T, Refusal> {
    let taken = timeout(WAIT, taken).await;
    taken.ok().flatten().ok_or(Refusal::Full)
}

/// Why room cannot be divided so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a body of {limit} bytes needs a budget of at least {least} bytes (--body-budget)")]
pub struct TooLittle {
    limit: u64,
    least: u64,
}

impl TooLittle {
    fn of(limit: u64) -> Self {
        let units = limit.div_ceil(UNIT) * UNIT;
        let least = (units.div_ceil(3) * 4).max(SMALL.min(units) * 4);
        Self { limit, least }
    }
}

fn units(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(Semaphore::MAX_PERMITS)
}

impl Budget {
    /// Divides `total` bytes among bodies of at most `limit` bytes each.
    ///
    /// # Errors
    ///
    /// Fails where the largest body would not fit.
    pub fn new(total: u64, limit: u64) -> Result<Self, TooLittle> {
        let small = units(total / 4);
        let large = units(total - total / 4);
        let last = units(limit);
        let Some(shared) = large.checked_sub(last) else {
            return Err(TooLittle::of(limit));
        };
        if small < units(SMALL.min(limit)) {
            return Err(TooLittle::of(limit));
        }
        Ok(Self {
            small: Pool::new(small),
            shared: Pool::new(shared),
            last: Pool::new(last),
            limit,
            spare: Arc::default(),
        })
    }

    /// Returns how many bytes are taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        let taken = self.small.taken() + self.shared.taken() + self.last.taken();
        u64::try_from(taken)
            .unwrap_or(u64::MAX)
            .saturating_mul(UNIT)
    }

    /// Waits for room for the beginning of a body.
    async fn first(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        in_time(self.small.take(bytes)).await
    }

    /// Gives memory back to the system that no body needed since this was last called.
    pub fn shed(&self) {
        self.spare.shed();
    }

    /// Returns the largest body.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Waits for more room for a body that has some, and says how large it may then be.
    async fn more(&self, most: u64, ceiling: u64) -> Result<(OwnedSemaphorePermit, u64), Refusal> {
        let step = most.min(ceiling.saturating_sub(most));
        let is_small = most + step <= SMALL;
        in_time(async {
            select! {
                biased;
                taken = self.small.take(step), if is_small => taken.map(|it| (it, most + step)),
                taken = self.shared.take(step) => taken.map(|it| (it, most + step)),
                taken = self.last.take(self.limit) => taken.map(|it| (it, self.limit)),
            }
        })
        .await
    }

    /// Reads a body to its end.
    ///
    /// # Errors
    ///
    /// Refuses what is too large, too slow, broken, or has no room.
    pub async fn hold(&self, body: &mut Incoming, length: Option<u64>) -> Result<Held, Refusal> {
        if length.is_some_and(|length| length > self.limit) {
            return Err(Refusal::TooLarge(self.limit));
        }
        // However long it says it is, it takes room as it comes: it may come slowly, or not at all.
        let ceiling = length.unwrap_or(self.limit);
        let mut held = Pieces::new(&self.spare, ceiling.min(FIRST));
        held.is_large = length.is_some_and(|length| length > FIRST);
        let mut room = vec![self.first(held.most).await?];
        let began = Instant::now();
        loop {
            let latest = began + PAUSE + Duration::from_secs(held.length / SLOWEST);
            let latest = latest.min(Instant::now() + PAUSE);
            let frame = timeout_at(latest, body.frame()).await;
            let Some(frame) = frame.map_err(|_| Refusal::Slow)? else {
                break;
            };
            // What is no data is a trailer, which ends here.
            let Ok(data) = frame.map_err(|_| Refusal::BrokenBody)?.into_data() else {
                continue;
            };
            let after = held.length + u64::try_from(data.len()).unwrap_or(u64::MAX);
            if after > self.limit {
                return Err(Refusal::TooLarge(self.limit));
            }
            while after > held.most {
                let (taken, most) = self.more(held.most, ceiling).await?;
                room.push(taken);
                held.most = most;
            }
            held.add(data);
        }
        Ok(held.end(room))
    }
}

/// A body as it comes.
///
/// What a connection gives is put together in large pieces: each small one would cost more than it
/// holds, and keep a buffer of its connection.
struct Pieces {
    whole: Vec<Bytes>,
    /// The last one, while there is only one.
    first: Bytes,
    /// What is put together.
    open: BytesMut,
    hash: Hash,
    length: u64,
    /// How long it may become, as far as is known...
    most: u64,
    /// ...and whether it is known to become longer.
    is_large: bool,
    spare: Arc<Spare>,
}

impl Pieces {
    fn new(spare: &Arc<Spare>, most: u64) -> Self {
        Self {
            whole: Vec::new(),
            first: Bytes::new(),
            open: BytesMut::new(),
            hash: Hash::default(),
            length: 0,
            most,
            is_large: false,
            spare: Arc::clone(spare),
        }
    }

    fn add(&mut self, data: Bytes) {
        self.hash.update(&data);
        let is_first = self.length == 0;
        self.length += u64::try_from(data.len()).unwrap_or(u64::MAX);
        if is_first {
            self.first = data;
            return;
        }
        let first = std::mem::take(&mut self.first);
        self.put(&first);
        self.put(&data);
    }

    fn put(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = self.open.capacity() - self.open.len();
            if room == 0 {
                let full = std::mem::take(&mut self.open).freeze();
                self.whole.extend((!full.is_empty()).then_some(full));
                self.open = self.piece();
                continue;
            }
            let (now, rest) = data.split_at(room.min(data.len()));
            self.open.extend_from_slice(now);
            data = rest;
        }
    }

    fn piece(&self) -> BytesMut {
        if self.is_large || self.most > FIRST {
            return self.spare.take();
        }
        let most = usize::try_from(self.most).unwrap_or(PIECE);
        BytesMut::with_capacity(most.clamp(SMALLEST, PIECE))
    }

    fn end(mut self, mut room: Vec<OwnedSemaphorePermit>) -> Held {
        give_back(&mut room, units(self.length));
        let last = self.open.freeze();
        let rest = [self.first, last].into_iter().filter(|it| !it.is_empty());
        self.whole.extend(rest);
        let content = Content {
            pieces: self.whole,
            spare: self.spare,
            _room: room,
        };
        Held {
            payload: Payload::Hash(self.hash.end()),
            length: self.length,
            content: Some(Arc::new(content)),
        }
    }
}

/// Gives back all room but so much.
fn give_back(room: &mut Vec<OwnedSemaphorePermit>, mut needed: usize) {
    for taken in &mut *room {
        let spare = taken.num_permits().saturating_sub(needed);
        needed -= taken.num_permits() - spare;
        drop(taken.split(spare));
    }
    room.retain(|it| it.num_permits() > 0);
}

/// A whole body, which can be sent again for as long as it is held.
#[derive(Debug, Clone)]
pub struct Held {
    /// What is signed of it.
    pub payload: Payload,
    length: u64,
    /// Nothing where there is no body.
    content: Option<Arc<Content>>,
}

#[derive(Debug)]
struct Content {
    pieces: Vec<Bytes>,
    spare: Arc<Spare>,
    _room: Vec<OwnedSemaphorePermit>,
}

impl Drop for Content {
    fn drop(&mut self) {
        for piece in self.pieces.drain(..) {
            self.spare.give_back(piece);
        }
    }
}

impl Held {
    /// Returns what a request without a body has.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            payload: Payload::of(b""),
            length: 0,
            content: None,
        }
    }

    fn piece(&self, at: usize) -> Option<Bytes> {
        self.content.as_ref()?.pieces.get(at).cloned()
    }

    /// Returns its length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns it to be sent.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        Outgoing::Held {
            held: self.clone(),
            next: 0,
            left: self.length,
        }
    }
}

/// A body on its way.
#[derive(Debug)]
pub enum Outgoing {
    /// One that is held.
    Held {
        /// The body.
        held: Held,
        /// The next piece.
        next: usize,
        /// How many bytes are left.
        left: u64,
    },
    /// One that is passed on as it comes, unsigned.
    Passing(Incoming),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Held { held, next, left } => {
                let piece = held.piece(*next);
                *next += 1;
                let sent = piece.as_ref().map_or(0, Bytes::len);
                *left = left.saturating_sub(u64::try_from(sent).unwrap_or(u64::MAX));
                Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
            }
            Self::Passing(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held { left, .. } => *left == 0,
            Self::Passing(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held { left, .. } => SizeHint::with_exact(*left),
            Self::Passing(body) => body.size_hint(),
        }
    }
}

/// What is sent back: an answer of the domain as it comes, or one that is there as a whole.
#[derive(Debug)]
pub enum Returned {
    /// The domain's, and what of it was read to be understood.
    Streamed(Option<Bytes>, Answer),
    /// The proxy's own, or one that was read to its end.
    Whole(Option<Bytes>),
}

impl From<Bytes> for Returned {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|it| !it.is_empty()))
    }
}

impl Returned {
    fn begun(&mut self) -> &mut Option<Bytes> {
        match self {
            Self::Streamed(bytes, _) | Self::Whole(bytes) => bytes,
        }
    }
}

impl Body for Returned {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let this = self.get_mut();
        match (this.begun().take(), this) {
            (Some(bytes), _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (None, Self::Streamed(_, rest)) => Pin::new(rest).poll_frame(context),
            (None, Self::Whole(_)) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Streamed(begun, rest) => begun.is_none() && rest.is_end_stream(),
            Self::Whole(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = |bytes: &Option<Bytes>| {
            let length = bytes.as_ref().map_or(0, Bytes::len);
            u64::try_from(length).unwrap_or(u64::MAX)
        };
        match self {
            Self::Streamed(begun, rest) => {
                let (begun, rest) = (length(begun), rest.size_hint());
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(begun));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(begun));
                }
                hint
            }
            Self::Whole(bytes) => SizeHint::with_exact(length(bytes)),
        }
    }
}

/// Reads the rest of a body that nobody wants, up to a bound: a client that is cut off while it
/// sends may never see why.
pub(super) async fn drain(body: &mut Incoming, bytes: usize, patience: Duration) {
    let read = async {
        let mut left = bytes;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Whoever sends more, or more slowly, is cut off.
    _ = timeout(patience, read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_largest_body_fits() {
        assert!(Budget::new(4 * MIB, 3 * MIB).is_ok());
        let error = Budget::new(100 * MIB, 100 * MIB).unwrap_err();
        assert!(Budget::new(error.least, 100 * MIB).is_ok(), "{error}");
        let error = Budget::new(1, MIB / 2).unwrap_err();
        assert!(Budget::new(error.least, MIB / 2).is_ok(), "{error}");
    }

    #[tokio::test]
    async fn room_is_given_back() {
        let budget = Budget::new(8 * MIB, 4 * MIB).unwrap();
        let room = budget.more(2 * MIB, 4 * MIB).await.unwrap();
        assert_eq!(budget.taken(), 2 * MIB);
        let small = budget.first(1).await.unwrap();
        assert_eq!(budget.taken(), 2 * MIB + UNIT);
        drop((room, small));
        assert_eq!(budget.taken(), 0);
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_keeps_what_it_needs() {
        let budget = Budget::new(16 * MIB, 8 * MIB).unwrap();
        let mut room = vec![budget.first(MIB).await.unwrap()];
        let mut most = MIB;
        while most < 3 * MIB {
            let (taken, so_much) = budget.more(most, 8 * MIB).await.unwrap();
            room.push(taken);
            most = so_much;
        }
        assert_eq!((most, budget.taken()), (4 * MIB, 4 * MIB));
        for kept in [2 * MIB + 1, MIB / 2, 0] {
            give_back(&mut room, units(kept));
            assert_eq!(budget.taken(), kept.div_ceil(UNIT) * UNIT);
        }
        assert!(room.is_empty());
    }

    /// All hold some and wait for more; were it not for the last room, for ever.
    #[tokio::test]
    async fn bodies_that_grow_do_not_wait_for_each_other() {
        let budget = Budget::new(16 * MIB, 8 * MIB).unwrap();
        let grown = (0..4).map(|_| {
            let budget = budget.clone();
            tokio::spawn(async move {
                let mut room = vec![budget.first(MIB).await.unwrap()];
                let mut most = MIB;
                while most < 8 * MIB {
                    tokio::task::yield_now().await;
                    let (taken, so_much) = budget.more(most, 8 * MIB).await.unwrap();
                    room.push(taken);
                    most = so_much;
                    assert!(budget.taken() <= 16 * MIB);
                }
            })
        });
        for grown in grown.collect::<Vec<_>>() {
            grown.await.unwrap();
        }
        assert_eq!(budget.taken(), 0);
    }

    /// What is kept for the next body is as it was left.
    #[test]
    fn a_body_is_the_same_however_it_comes() {
        let spare = Arc::default();
        let text: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
        for length in [1, 50_000, 100_000, 2_800_000] {
            let text = &text[..length];
            for size in [1, 7, 4095, 65_536, 399_999, 2_800_000] {
                let mut pieces = Pieces::new(&spare, 64 << 10);
                for piece in text.chunks(size) {
                    pieces.most = pieces.most.max(pieces.length);
                    pieces.add(Bytes::copy_from_slice(piece));
                }
                let held = pieces.end(Vec::new());
                assert_eq!(held.payload, Payload::of(text), "{size}");
                let pieces = &held.content.as_ref().unwrap().pieces;
                assert!(pieces.concat() == text, "{length} in {size}");
                assert!(pieces.len() <= 5, "{length} in {size}: {}", pieces.len());
            }
        }
    }
}
