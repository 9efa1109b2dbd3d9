//! Connections of the fakes that can be reset from outside, as a network does.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Breaks one connection, or knows that it is broken.
#[derive(Clone, Default)]
pub(crate) struct Switch(Arc<Mutex<Broken>>);

#[derive(Default)]
struct Broken {
    broken: bool,
    waker: Option<Waker>,
}

impl Switch {
    /// Resets the connection: nothing more is read from it or written to it.
    pub(crate) fn break_connection(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.broken = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Says whether the connection is to break; if not, whoever asks is woken when it is.
    fn is_broken(&self, context: &Context<'_>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.broken {
            state.waker = Some(context.waker().clone());
        }
        state.broken
    }
}

/// All connections that are open, so that the server can end them.
#[derive(Clone, Default)]
pub(crate) struct Switches(Arc<Mutex<Vec<Weak<Mutex<Broken>>>>>);

impl Switches {
    fn add(&self, switch: &Switch) {
        let mut switches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        switches.retain(|known| known.strong_count() > 0);
        switches.push(Arc::downgrade(&switch.0));
    }

    /// Resets every connection.
    pub(crate) fn break_all(&self) {
        let switches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        switches
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|open| Switch(open).break_connection());
    }
}

/// A listener whose connections have a [`Switch`].
pub(crate) struct Breakable {
    pub(crate) listener: TcpListener,
    pub(crate) switches: Switches,
}

/// A connection that can be reset from outside.
pub(crate) struct Connection {
    stream: TcpStream,
    switch: Switch,
}

impl Listener for Breakable {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let switch = Switch::default();
        self.switches.add(&switch);
        (Connection { stream, switch }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Listener::local_addr(&self.listener)
    }
}

impl Connection {
    /// Returns what breaks the connection.
    pub(crate) fn switch(&self) -> Switch {
        self.switch.clone()
    }

    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        if self.switch.is_broken(context) {
            // A reset, not an orderly end, is what the client is to see once this is dropped.
            self.stream.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected<IncomingStream<'_, Breakable>> for Switch {
    fn connect_info(stream: IncomingStream<'_, Breakable>) -> Self {
        stream.io().switch.clone()
    }
}
