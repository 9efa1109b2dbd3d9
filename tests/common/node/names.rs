//! A name server for pods: a fixed table of IPv4 addresses, by UDP.
//!
//! A name that begins with `*.` stands for every name that ends so and has no entry of its own. Names of
//! the table have no other records, and other names do not exist: that is how resolvers come past the
//! search list of a pod.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// RFC 1035, 4.1.1: it is an answer, of an authority, that does not look further.
const ANSWER: u16 = 0x8400;
const RECURSION_DESIRED: u16 = 0x0100;
const NO_SUCH_NAME: u16 = 3;

/// Type A, class IN.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

const HEADER: usize = 12;

/// A name server, gone when it is dropped.
pub(crate) struct Names(JoinHandle<()>);

impl Names {
    /// Answers for these names on an address.
    pub(crate) async fn serve(address: SocketAddr, names: &[(&str, Ipv4Addr)]) -> Result<Self> {
        let socket = UdpSocket::bind(address).await;
        let socket = socket.with_context(|| format!("failed to listen on {address}"))?;
        let names = names.iter().map(|(name, it)| ((*name).to_owned(), *it));
        let names: BTreeMap<String, Ipv4Addr> = names.collect();
        Ok(Self(tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let Ok((length, asker)) = socket.recv_from(&mut buffer).await else {
                    continue;
                };
                let query = buffer.get(..length).unwrap_or_default();
                if let Some(answer) = answer(query, &names) {
                    // An asker that is gone asks no more.
                    socket.send_to(&answer, asker).await.ok();
                }
            }
        })))
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers a query; none to what is not one.
fn answer(query: &[u8], names: &BTreeMap<String, Ipv4Addr>) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let asked = query.get(end..end + 4)?;
    let parent = name.split_once('.').map_or("", |(_, parent)| parent);
    let mut parents = std::iter::successors(Some(parent), |it| Some(it.split_once('.')?.1));
    let found = names.get(&name);
    let found = found.or_else(|| parents.find_map(|it| names.get(&format!("*.{it}"))));
    let address = found.filter(|_| asked == ADDRESS);
    let flags = u16::from_be_bytes([query[2], query[3]]) & RECURSION_DESIRED | ANSWER;
    let flags = flags | if found.is_none() { NO_SUCH_NAME } else { 0 };
    let mut answer = query.get(..2)?.to_vec();
    answer.extend(flags.to_be_bytes());
    answer.extend([0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    answer.extend(query.get(HEADER..end + 4)?);
    if let Some(address) = address {
        // The name is that of the question; it may be kept for five seconds.
        answer.extend([0xc0, 12]);
        answer.extend(ADDRESS);
        answer.extend([0, 0, 0, 5, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// Reads the name of the first question, and returns where it ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = query.get(at..at + length)?;
        labels.push(std::str::from_utf8(label).ok()?.to_ascii_lowercase());
        at += length;
    }
}
