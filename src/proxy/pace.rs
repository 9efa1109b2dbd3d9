//! How long clients may take, and the connections that are watched for it.
//!
//! Three clocks: a head that has begun has to come to its end, what is written has to be taken, and
//! a connection on which nothing happens is kept for as long as there is room for others. A head's
//! clock stands still while an answer is under way: until that is out nobody reads what comes behind
//! its request.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};

use super::guard::Guard;

/// The most that is read at once.
const BUFFER: usize = 16 << 10;

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For the head of a request.
    pub(super) head: Duration,
    /// To take the next piece of an answer. The kernel takes pieces for them, up to some MiB; so
    /// this is what nginx calls `send_timeout`, with the same value.
    pub(super) write: Duration,
    /// Between two requests: where there is room for others, where half of it is taken, and where
    /// nearly all of it is.
    ///
    /// Clients keep their connections for minutes, and one that is closed may cost a request that
    /// was just sent on it. So nobody is sent away but to make room.
    pub(super) idle: [Duration; 3],
}

impl Limits {
    /// The limits of each proxy.
    pub(super) const USUAL: Self = Self {
        head: Duration::from_secs(10),
        write: Duration::from_mins(1),
        idle: [
            Duration::from_mins(10),
            Duration::from_mins(1),
            Duration::from_secs(5),
        ],
    };

    /// Returns how long a connection may be idle while so many more of all can be taken.
    pub(super) fn idle(&self, free: usize, all: usize) -> Duration {
        let [roomy, half, full] = self.idle;
        match free {
            free if free > all / 2 => roomy,
            free if free > all / 8 => half,
            _ => full,
        }
    }
}

/// Why a connection is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lapse {
    /// A head that had begun did not come to its end.
    #[error("a head did not come in time")]
    Head,
    /// The client does not read its answer.
    #[error("the client does not take its answer")]
    Write,
    /// Nothing happens, and others want to connect.
    #[error("it was idle")]
    Idle,
}

/// Since when a connection waits for what.
#[derive(Debug)]
struct Marks {
    /// A head has begun.
    head: Option<Instant>,
    /// Nothing of what is written is taken.
    write: Option<Instant>,
    /// The last that happened.
    last: Instant,
    /// How many answers are under way.
    answers: usize,
}

/// Keeps the time of a connection.
#[derive(Debug)]
pub(super) struct Pace(Mutex<Marks>);

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Marks {
            head: None,
            write: None,
            last: now,
            answers: 0,
        }))
    }

    fn note(&self, note: impl FnOnce(&mut Marks)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read(&self, awaits_head: bool, now: Instant) {
        self.note(|marks| {
            marks.last = now;
            marks.head = awaits_head.then(|| marks.head.unwrap_or(now));
        });
    }

    fn wrote(&self, is_taken: bool, now: Instant) {
        self.note(|marks| marks.write = (!is_taken).then(|| marks.write.unwrap_or(now)));
    }

    fn began(&self) {
        self.note(|marks| marks.answers += 1);
    }

    fn answered(&self, now: Instant) {
        self.note(|marks| {
            marks.answers = marks.answers.saturating_sub(1);
            marks.last = now;
            marks.head = marks.head.map(|_| now);
        });
    }

    /// Tells why a connection is to be given up, if it is.
    pub(super) fn lapse(&self, limits: &Limits, idle: Duration, now: Instant) -> Option<Lapse> {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |since: Option<Instant>, limit| {
            since.is_some_and(|since| now.saturating_duration_since(since) > limit)
        };
        let at_rest = marks.answers == 0;
        if over(marks.write, limits.write) {
            Some(Lapse::Write)
        } else if at_rest && over(marks.head, limits.head) {
            Some(Lapse::Head)
        } else if at_rest && marks.write.is_none() && over(Some(marks.last), idle) {
            Some(Lapse::Idle)
        } else {
            None
        }
    }
}

/// An answer under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Answering(Arc<Pace>);

impl Answering {
    pub(super) fn new(pace: &Arc<Pace>) -> Self {
        pace.began();
        Self(Arc::clone(pace))
    }

    /// Makes a body part of the answer: it is under way until the body has come to its end.
    pub(super) fn with<B>(self, body: B) -> Paced<B> {
        Paced {
            body,
            _answering: self,
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answered(Instant::now());
    }
}

/// The body of an answer under way.
#[derive(Debug)]
pub(super) struct Paced<B> {
    body: B,
    _answering: Answering,
}

impl<B: Body + Unpin> Body for Paced<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The most that is put together before it is written: to the kernel, several pieces cost more than
/// copying so little.
pub(super) const SMALL: usize = 1 << 10;

/// Returns what is to be written as one piece, if it is one or small.
pub(super) fn gathered<'a>(
    buffers: &'a [io::IoSlice<'_>],
    room: &'a mut [u8; SMALL],
) -> Option<&'a [u8]> {
    let mut filled = buffers.iter().filter(|it| !it.is_empty());
    let (first, second) = (filled.next()?, filled.next());
    if second.is_none() {
        return Some(first);
    }
    let mut end = 0;
    for piece in buffers {
        room.get_mut(end..end + piece.len())?.copy_from_slice(piece);
        end += piece.len();
    }
    room.get(..end)
}

/// A connection of which it is known whether the other side takes what is written.
///
/// It is the one below the encryption, which takes more than it can pass on.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) pace: Arc<Pace>,
}

impl<S> Watched<S> {
    fn noted<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.pace.wrote(polled.is_ready(), Instant::now());
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.noted(polled)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let stream = Pin::new(&mut this.stream);
        let mut room = [0; SMALL];
        let polled = match gathered(buffers, &mut room) {
            Some(bytes) => stream.poll_write(context, bytes),
            None => stream.poll_write_vectored(context, buffers),
        };
        this.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A connection of which a parser reads only what cannot be read in two ways.
pub(super) struct Guarded<S> {
    stream: Take<S>,
    guard: Guard,
    pace: Arc<Pace>,
    buffer: Box<[u8]>,
    has_ended: bool,
}

impl<S: AsyncRead> Guarded<S> {
    pub(super) fn new(stream: S, pace: &Arc<Pace>) -> Self {
        Self {
            stream: stream.take(u64::MAX),
            guard: Guard::new(),
            pace: Arc::clone(pace),
            buffer: vec![0; BUFFER].into(),
            has_ended: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let passing = this.guard.passing();
        if passing > 0 && !this.has_ended {
            // What is within a body can be read in one way only, and goes to the parser at once.
            this.stream.set_limit(passing);
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            let length = buffer.filled().len() - before;
            this.guard.passed(length);
            this.has_ended = length == 0;
            this.pace.read(false, Instant::now());
            return Poll::Ready(Ok(()));
        }
        this.stream.set_limit(u64::MAX);
        while !this.guard.has_some() && !this.has_ended {
            let mut read = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            let bytes = read.filled();
            if bytes.is_empty() {
                this.guard.end();
                this.has_ended = true;
            } else if bytes.len() <= buffer.remaining() && this.guard.lets_through(bytes) {
                buffer.put_slice(bytes);
                this.pace.read(false, Instant::now());
                return Poll::Ready(Ok(()));
            } else {
                this.guard.read(bytes);
            }
            this.pace.read(this.guard.awaits_head(), Instant::now());
        }
        buffer.put_slice(&this.guard.take(buffer.remaining()));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits::USUAL;

    /// Tells what is found so many seconds after the start, in a place with room.
    fn found(pace: &Pace, start: Instant, seconds: u64) -> Option<Lapse> {
        let now = start + Duration::from_secs(seconds);
        pace.lapse(&LIMITS, LIMITS.idle[0], now)
    }

    #[test]
    fn a_head_has_to_come_to_its_end_however_often_a_byte_comes() {
        let start = Instant::now();
        let pace = Pace::new(start);
        for second in 0..=10 {
            pace.read(true, start + Duration::from_secs(second));
            assert_eq!(found(&pace, start, second), None);
        }
        assert_eq!(found(&pace, start, 11), Some(Lapse::Head));
        pace.read(false, start + Duration::from_secs(11));
        assert_eq!(found(&pace, start, 100), None);
    }

    #[test]
    fn a_heads_clock_stands_still_while_an_answer_is_under_way() {
        let start = Instant::now();
        let pace = Arc::new(Pace::new(start));
        let answering = Answering::new(&pace);
        pace.read(true, start);
        assert_eq!(found(&pace, start, 1000), None);
        drop(answering);
        // It ended just now, by the real clock.
        let now = Instant::now();
        assert_eq!(pace.lapse(&LIMITS, LIMITS.idle[0], now), None);
        assert_eq!(found(&pace, now, 11), Some(Lapse::Head));
    }

    #[test]
    fn what_is_written_has_to_be_taken() {
        let start = Instant::now();
        let pace = Arc::new(Pace::new(start));
        let _answering = Answering::new(&pace);
        for second in [0, 30, 60] {
            pace.wrote(false, start + Duration::from_secs(second));
        }
        assert_eq!(found(&pace, start, 60), None);
        assert_eq!(found(&pace, start, 61), Some(Lapse::Write));
        pace.wrote(true, start);
        assert_eq!(found(&pace, start, 10_000), None);
    }

    #[test]
    fn who_is_idle_stays_while_there_is_room_for_others() {
        let start = Instant::now();
        let pace = Arc::new(Pace::new(start));
        let after = |seconds, free| {
            let now = start + Duration::from_secs(seconds);
            pace.lapse(&LIMITS, LIMITS.idle(free, 1024), now)
        };
        assert_eq!(after(599, 1000), None);
        assert_eq!(after(601, 1000), Some(Lapse::Idle));
        assert_eq!(after(59, 512), None);
        assert_eq!(after(61, 512), Some(Lapse::Idle));
        assert_eq!(after(4, 0), None);
        assert_eq!(after(6, 0), Some(Lapse::Idle));
        // Nor is anybody cut off who is still to take the end of an answer.
        pace.wrote(false, start + Duration::from_secs(50));
        assert_eq!(after(60, 0), None);
        pace.wrote(true, start);
        let _answering = Answering::new(&pace);
        assert_eq!(after(100_000, 0), None);
    }
}
