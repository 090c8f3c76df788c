//! The little of rtnetlink(7) that a test network needs: veth pairs, bridges, addresses, routes.

use super::netlink::Socket;
use super::netns::Namespace;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::SockProtocol;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

/// `struct nlmsghdr` (linux/netlink.h).
const HEADER: usize = 16;

/// linux/veth.h
const VETH_INFO_PEER: u16 = 1;

/// linux/if_addr.h: use the address at once, without asking the link for duplicates first.
const NO_DUPLICATE_DETECTION: u32 = libc::IFA_F_NODAD;

/// A connection to the kernel's routing tables, of the network namespace it was opened in.
#[derive(Debug)]
pub struct Routing {
    socket: Socket,
    sequence: u32,
}

impl Routing {
    /// Of the calling thread's network namespace.
    ///
    /// # Errors
    /// As socket(2).
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(SockProtocol::NetlinkRoute)?, sequence: 0 })
    }

    /// Adds a bridge, without spanning tree as is the kernel's default.
    ///
    /// # Errors
    /// EOPNOTSUPP where the kernel has no bridges, EEXIST, EPERM.
    pub fn add_bridge(&mut self, name: &str) -> io::Result<()> {
        let mut message = Message::new_link(0, 0);
        message.text(libc::IFLA_IFNAME, name);
        message.nest(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "bridge"));
        self.create(message)
    }

    /// Adds a pair of linked interfaces: `name` here, `peer` in another namespace.
    ///
    /// # Errors
    /// EOPNOTSUPP where the kernel has no veth, EEXIST, EPERM.
    pub fn add_veth(&mut self, name: &str, peer: &str, there: &Namespace) -> io::Result<()> {
        let mut message = Message::new_link(0, 0);
        message.text(libc::IFLA_IFNAME, name);
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |other| {
                    other.link_header(0, 0);
                    other.text(libc::IFLA_IFNAME, peer);
                    other.number(libc::IFLA_NET_NS_FD, there.as_fd().as_raw_fd().cast_unsigned());
                });
            });
        });
        self.create(message)
    }

    /// Makes `name` a port of `bridge`.
    ///
    /// # Errors
    /// ENODEV where one of them is not there.
    pub fn set_master(&mut self, name: &str, bridge: &str) -> io::Result<()> {
        let master = self.index(bridge)?;
        let mut message = Message::new_link(self.index(name)?, 0);
        message.number(libc::IFLA_MASTER, master);
        self.change(message)
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// ENODEV where it is not there.
    pub fn set_up(&mut self, name: &str) -> io::Result<()> {
        let up = u32::try_from(libc::IFF_UP).unwrap_or(1);
        let message = Message::new_link(self.index(name)?, up);
        self.change(message)
    }

    /// Adds an address, usable at once, with the route to its net of `prefix` bits.
    ///
    /// # Errors
    /// ENODEV, EEXIST; EOPNOTSUPP or EACCES where the kernel has no such family or it is turned off.
    pub fn add_address(&mut self, name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWADDR);
        // struct ifaddrmsg (linux/if_addr.h)
        message.bytes.extend_from_slice(&[family(address), prefix, 0, libc::RT_SCOPE_UNIVERSE]);
        message.bytes.extend_from_slice(&self.index(name)?.to_ne_bytes());
        message.address(libc::IFA_LOCAL, address);
        message.address(libc::IFA_ADDRESS, address);
        message.number(libc::IFA_FLAGS, NO_DUPLICATE_DETECTION);
        self.create(message)
    }

    /// Adds the route to everything that no other route leads to.
    ///
    /// # Errors
    /// ENETUNREACH where the gateway is on no net of ours.
    pub fn add_default_route(&mut self, gateway: IpAddr) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWROUTE);
        // struct rtmsg (linux/rtnetlink.h)
        let of_destination = [family(gateway), 0, 0, 0];
        let of_route = [libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST];
        message.bytes.extend_from_slice(&of_destination);
        message.bytes.extend_from_slice(&of_route);
        message.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        message.address(libc::RTA_GATEWAY, gateway);
        self.create(message)
    }

    fn create(&mut self, message: Message) -> io::Result<()> {
        self.ask(message, libc::NLM_F_CREATE | libc::NLM_F_EXCL).map(drop)
    }

    fn change(&mut self, message: Message) -> io::Result<()> {
        self.ask(message, 0).map(drop)
    }

    /// The number by which the kernel knows an interface.
    fn index(&mut self, name: &str) -> io::Result<u32> {
        let mut message = Message::new(libc::RTM_GETLINK);
        message.link_header(0, 0);
        message.text(libc::IFLA_IFNAME, name);
        let answer = self.ask(message, 0)?;
        // ifi_index, the third field of struct ifinfomsg
        number_at(&answer, HEADER + 4).ok_or_else(|| Errno::ENODEV.into())
    }

    /// Sends a request and gives the message that came before its acknowledgement, empty if there was none.
    fn ask(&mut self, message: Message, flags: libc::c_int) -> io::Result<Vec<u8>> {
        self.sequence += 1;
        let flags = flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.socket.send(&message.finish(flags, self.sequence))?;
        let mut buffer = Vec::with_capacity(32 * 1024);
        let mut answer = Vec::new();
        loop {
            self.socket.receive(&mut buffer, true)?;
            let mut rest = buffer.as_slice();
            while let Some((message, others)) = split_message(rest) {
                rest = others;
                if number_at(message, 8) != Some(self.sequence) {
                    continue;
                }
                if i32::from(kind(message)) == libc::NLMSG_ERROR {
                    return acknowledged(message).map(|()| answer);
                }
                answer = message.to_vec();
            }
        }
    }
}

/// The first netlink message of a datagram, and the rest.
fn split_message(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(number_at(datagram, 0)?).ok()?;
    if length < HEADER || length > datagram.len() {
        return None;
    }
    Some((&datagram[..length], &datagram[length.next_multiple_of(4).min(datagram.len())..]))
}

fn number_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

/// struct nlmsgerr: zero, or a negative error number.
fn acknowledged(message: &[u8]) -> io::Result<()> {
    match number_at(message, HEADER).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or(0)
}

/// A request while it is built.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        Self { bytes }
    }

    fn new_link(index: u32, flags: u32) -> Self {
        let mut message = Self::new(libc::RTM_NEWLINK);
        message.link_header(index, flags);
        message
    }

    /// struct ifinfomsg (linux/rtnetlink.h), with those flags that are to be set.
    fn link_header(&mut self, index: u32, flags: u32) {
        self.bytes.extend_from_slice(&[0; 4]);
        for field in [index, flags, flags] {
            self.bytes.extend_from_slice(&field.to_ne_bytes());
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |attribute| attribute.bytes.extend_from_slice(value));
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |attribute| {
            attribute.bytes.extend_from_slice(value.as_bytes());
            attribute.bytes.push(0);
        });
    }

    fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    /// An attribute of what `fill` appends: its length and kind before it, padded to four bytes behind it.
    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, flags: libc::c_int, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let flags = u16::try_from(flags).unwrap_or(0);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    const SECONDS: Duration = Duration::from_secs(3);

    /// What `attempt` gives, tried again for a while: an address that is new may take a busy kernel a moment.
    fn in_time<T>(attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let until = Instant::now() + 5 * SECONDS;
        loop {
            match attempt() {
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
                outcome => return outcome,
            }
        }
    }

    fn routing(namespace: &Namespace) -> Routing {
        namespace.run(Routing::open).unwrap().unwrap()
    }

    /// A host with a bridge, and a container on it: a connection in each family.
    #[test]
    fn a_built_network_carries_connections() {
        let Ok(host) = Namespace::create() else { return };
        let container = Namespace::create().unwrap();
        let (mut at_host, mut at_container) = (routing(&host), routing(&container));
        at_host.add_bridge("br0").unwrap();
        at_host.add_veth("port0", "eth0", &container).unwrap();
        at_host.set_master("port0", "br0").unwrap();
        for (host_address, container_address, prefix) in [("10.9.0.1", "10.9.0.2", 24), ("fd00:9::1", "fd00:9::2", 64)]
        {
            at_host.add_address("br0", host_address.parse().unwrap(), prefix).unwrap();
            at_container.add_address("eth0", container_address.parse().unwrap(), prefix).unwrap();
        }
        at_host.set_up("br0").unwrap();
        at_host.set_up("port0").unwrap();
        at_container.set_up("lo").unwrap();
        at_container.set_up("eth0").unwrap();
        at_container.add_default_route("10.9.0.1".parse().unwrap()).unwrap();
        at_container.add_default_route("fd00:9::1".parse().unwrap()).unwrap();
        for address in ["10.9.0.2:80", "[fd00:9::2]:80"] {
            let _listener = in_time(|| container.run(|| TcpListener::bind(address)).unwrap()).unwrap();
            let connected =
                in_time(|| host.run(|| TcpStream::connect_timeout(&address.parse().unwrap(), SECONDS)).unwrap());
            assert!(connected.is_ok(), "{address}: {connected:?}");
        }
    }

    #[test]
    fn the_kernels_no_is_told() {
        let Ok(host) = Namespace::create() else { return };
        let mut routing = routing(&host);
        routing.add_bridge("br0").unwrap();
        let twice = routing.add_bridge("br0").unwrap_err();
        assert_eq!(twice.raw_os_error(), Some(libc::EEXIST));
        let absent = routing.set_up("none").unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(libc::ENODEV));
    }
}
