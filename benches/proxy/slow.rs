//! Whether clients that send hardly anything are in anybody's way.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::load::{Load, measure};
use super::median;
use super::proxies::Target;

/// How many there are.
const CLIENTS: usize = 1000;

/// What the client beside them asks; for less long than they have for their heads.
const LOAD: Load = Load::for_a_second(0, 1);

/// Its p99 in milliseconds, by itself and beside them.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) alone: f64,
    pub(crate) beside: f64,
}

/// Measures both in turns.
pub(crate) fn measure_beside(target: &Target) -> anyhow::Result<Beside> {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        alone.push(measure(target, LOAD)?.p99);
        beside.push(measure_among_slow(target)?);
    }
    Ok(Beside {
        alone: median(alone),
        beside: median(beside),
    })
}

fn measure_among_slow(target: &Target) -> anyhow::Result<f64> {
    let connect = |_| TcpStream::connect(target.address).context("a slow client cannot connect");
    let mut clients = (0..CLIENTS)
        .map(connect)
        .collect::<anyhow::Result<Vec<TcpStream>>>()?;
    for client in &mut clients {
        client.write_all(b"GET /slow HTTP/1.1\r\nX-Slow: ")?;
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // About one more byte a second of each.
        let sending = scope.spawn(|| -> anyhow::Result<()> {
            for mut client in clients.iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                client.write_all(b"x").context("a slow client is cut off")?;
                thread::sleep(Duration::from_secs(1) / 1000);
            }
            Ok(())
        });
        let measured = measure(target, LOAD);
        is_over.store(true, Ordering::Relaxed);
        sending.join().map_err(|_| anyhow!("it panicked"))??;
        Ok(measured?.p99)
    })
}
