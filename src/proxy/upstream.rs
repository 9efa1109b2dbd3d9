//! Where requests go: one endpoint, chosen at the start and by nothing that a client sends.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, Scheme};

use crate::sigv4::Target;

/// The endpoint of a domain or a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    scheme: Scheme,
    /// The host in lower case, and the port where it is not the scheme's own.
    authority: Authority,
    may_be_local: bool,
}

/// Why a text names no endpoint that requests can go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is no URL.
    #[error("{0:?} is no URL: write it as https://HOST or HOST")]
    NoUrl(String),
    /// Something stands beside scheme, host and port.
    #[error("{0:?}: give scheme, host and port only, without user, path and query")]
    More(String),
    /// It would be spoken to without encryption.
    #[error("{0:?}: requests carry credentials and go by https only")]
    Plain(String),
    /// It leads to this machine, or to one that gives out credentials.
    #[error(
        "{0} is an address of this machine, of its link or of a metadata service, to which nothing is forwarded"
    )]
    Local(IpAddr),
}

/// Where an endpoint is, in the terms of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The region.
    pub region: String,
    /// The signing name of the service: `es` or `aoss`.
    pub service: &'static str,
}

impl Upstream {
    /// Reads an endpoint; `may_be_local` lets it be on this machine, and without encryption there.
    ///
    /// # Errors
    ///
    /// See [`Invalid`].
    pub fn parse(text: &str, may_be_local: bool) -> Result<Self, Invalid> {
        let no_url = || Invalid::NoUrl(text.to_owned());
        let full = if text.contains("://") {
            text.to_owned()
        } else {
            format!("https://{text}")
        };
        let uri = Uri::from_str(&full).map_err(|_| no_url())?;
        let scheme = uri.scheme().cloned().ok_or_else(no_url)?;
        let authority = uri.authority().ok_or_else(no_url)?;
        let more = uri.path_and_query().is_some_and(|it| it.as_str() != "/");
        if more || authority.as_str().contains('@') || full.contains('#') {
            return Err(Invalid::More(text.to_owned()));
        }
        let usual = match scheme.as_str() {
            "https" => 443,
            "http" if may_be_local => 80,
            _ => return Err(Invalid::Plain(text.to_owned())),
        };
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() || host.ends_with('.') || authority.as_str().ends_with(':') {
            return Err(no_url());
        }
        let spelled = match authority.port_u16() {
            Some(port) if port != usual => format!("{host}:{port}"),
            _ => host,
        };
        let authority = Authority::from_str(&spelled).map_err(|_| no_url())?;
        let upstream = Self {
            scheme,
            authority,
            may_be_local,
        };
        match upstream.address() {
            Some(address) if is_barred(address, may_be_local) => Err(Invalid::Local(address)),
            _ => Ok(upstream),
        }
    }

    /// Returns what `Host` says, and what is signed.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.as_str()
    }

    /// Tells whether it may be on this machine.
    #[must_use]
    pub fn may_be_local(&self) -> bool {
        self.may_be_local
    }

    /// Tells whether it is spoken to by TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        let usual = if self.is_encrypted() { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(usual)
    }

    /// Returns the address, where it is given by one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        let host = self.authority.host();
        host.trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .ok()
    }

    /// Returns where a request with a target goes.
    ///
    /// # Errors
    ///
    /// Fails where no URI can be made of the target: it is too long.
    pub fn uri(&self, target: &Target) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(target.as_sent())
            .build()
    }

    /// Reads region and service out of the host's name, where AWS gave it:
    /// `….REGION.es.amazonaws.com`, `….REGION.aoss.amazonaws.com` and `….aos.REGION.on.aws`.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let mut labels: Vec<&str> = self.authority.host().split('.').collect();
        if labels.ends_with(&["amazonaws", "com", "cn"]) {
            labels.pop();
        }
        let (region, service) = match labels.as_slice() {
            [.., _, region, service, "amazonaws", "com"]
            | [.., _, service, region, "on", "aws"] => (*region, *service),
            _ => return None,
        };
        let service = match service {
            "es" | "aos" => "es",
            "aoss" => "aoss",
            _ => return None,
        };
        Some(Place {
            region: region.to_owned(),
            service,
        })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// Tells whether nothing may be forwarded to an address, however it was come by.
///
/// A name that resolves to this machine would have the proxy talk to itself or to a neighbour in
/// the pod; one that resolves to a metadata service would have it hand requests to who gives out
/// credentials (169.254.169.254, 169.254.170.2, 169.254.170.23, `fd00:ec2::254`, `fd00:ec2::23`).
#[must_use]
pub fn is_barred(address: IpAddr, may_be_local: bool) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_barred_v4(address, may_be_local),
        IpAddr::V6(address) => is_barred_v6(address, may_be_local),
    }
}

fn is_barred_v4(address: Ipv4Addr, may_be_local: bool) -> bool {
    address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        // "This network": many systems take all of it for this machine.
        || address.octets()[0] == 0
        || address.is_loopback() && !may_be_local
}

fn is_barred_v6(address: Ipv6Addr, may_be_local: bool) -> bool {
    let of_instance = address.segments()[..2] == [0xfd00, 0x0ec2];
    address.is_unicast_link_local()
        || address.is_multicast()
        || address.is_unspecified()
        || of_instance
        || address.is_loopback() && !may_be_local
}

/// Leaves out the addresses to which nothing may be forwarded.
pub(super) fn reachable(
    found: impl Iterator<Item = SocketAddr>,
    may_be_local: bool,
) -> Vec<SocketAddr> {
    found
        .filter(|address| !is_barred(address.ip(), may_be_local))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read() {
        for (text, host) in [
            (
                "https://search-a-1.eu-west-1.es.amazonaws.com",
                "search-a-1.eu-west-1.es.amazonaws.com",
            ),
            ("https://Search.Example/", "search.example"),
            ("search.example:443", "search.example"),
            ("search.example:9443", "search.example:9443"),
            ("https://[2001:db8::1]:9200", "[2001:db8::1]:9200"),
        ] {
            let upstream = Upstream::parse(text, false).unwrap();
            assert_eq!(upstream.host(), host, "{text}");
            assert!(upstream.is_encrypted(), "{text}");
        }
        let local = Upstream::parse("http://127.0.0.1:9200", true).unwrap();
        assert_eq!((local.host(), local.port()), ("127.0.0.1:9200", 9200));
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "https://",
            "https://:443",
            "ftp://a.example",
            "https://a.example/x",
            "https://a.example/?q",
            "https://a.example#x",
            "https://u:p@a.example",
            "http://a.example",
            "https://a.example.",
            "https://a.example:",
            "a b",
            "https://127.0.0.1",
            "https://169.254.169.254",
            "https://[::1]",
            "https://0.0.0.0",
            "https://[::ffff:169.254.170.2]",
            "https://[fd00:ec2::254]",
            "https://[fe80::1]",
        ] {
            assert!(Upstream::parse(text, false).is_err(), "{text}");
        }
        // Leave to go to this machine is none to go to a metadata service.
        assert!(Upstream::parse("https://169.254.169.254", true).is_err());
        assert!(Upstream::parse("http://a.example/x", true).is_err());
    }

    #[test]
    fn region_and_service_are_in_the_name() {
        let place = |host: &str| {
            let place = Upstream::parse(host, false).unwrap().place()?;
            Some((place.region, place.service))
        };
        let es = |region: &str| Some((region.to_owned(), "es"));
        assert_eq!(
            place("search-a.eu-west-1.es.amazonaws.com"),
            es("eu-west-1")
        );
        assert_eq!(
            place("vpc-a.cn-north-1.es.amazonaws.com.cn"),
            es("cn-north-1")
        );
        assert_eq!(place("search-a.aos.us-east-1.on.aws"), es("us-east-1"));
        let aoss = Some(("us-east-1".to_owned(), "aoss"));
        assert_eq!(place("abc.us-east-1.aoss.amazonaws.com"), aoss);
        assert_eq!(place("es.amazonaws.com"), None);
        assert_eq!(place("search.example"), None);
    }

    #[test]
    fn a_name_leads_to_no_barred_address() {
        let found = [
            "10.0.0.1:443",
            "169.254.169.254:443",
            "127.0.0.1:443",
            "[::1]:443",
        ];
        let found = found.map(|it| it.parse::<SocketAddr>().unwrap());
        let left = |may_be_local| reachable(found.into_iter(), may_be_local);
        assert_eq!(left(false), [found[0]]);
        assert_eq!(left(true), [found[0], found[2], found[3]]);
    }
}
