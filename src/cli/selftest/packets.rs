//! Real packets against Docker's rules: a host with a bridge and a container behind it, and a neighbour on the host's
//! network who must not get at the container except through a published port.

use super::fronts::Fronts;
use super::vocabulary::checking;
use super::{Report, Status};
use crate::family::Family;
use crate::rules::{self, Saying};
use crate::sys::netns::Namespace;
use crate::sys::rtnl::Routing;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long a packet that should arrive may take: the machine may be small and busy.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long to wait for a packet that should not arrive. It has been shown before that it arrives without the rule.
const SILENCE: Duration = Duration::from_millis(400);

/// How long to wait before a connection that was refused is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// Where the container listens; Docker's vocabulary publishes it as [`PUBLISHED`].
const INNER_PORT: u16 = 80;

/// The host's port that leads to [`INNER_PORT`] over TCP.
const PUBLISHED: u16 = 8080;

/// Where the neighbour listens.
const NEIGHBOUR_PORT: u16 = 7;

/// Builds the network, and sends packets through it without the rules, with them, and without them again.
pub fn send_all(family: Family, fronts: &Fronts, report: &mut Report<'_>) -> io::Result<()> {
    let scene = match Scene::build(family) {
        Ok(scene) => scene,
        Err(error) => {
            let text = format!("packets cannot be tried: {error}");
            return report.line(Status::Fails, family, &text);
        }
    };
    let said = |table: &str| rules::docker().says(family, table).into_iter().filter(|saying| saying.part == "bridge");
    let direct = (scene.plan.container, INNER_PORT).into();
    let published = (scene.plan.host, PUBLISHED).into();
    let neighbour = (scene.plan.neighbour, NEIGHBOUR_PORT).into();
    let mut tell = |text: &str, result: Result<(), String>| match result {
        Ok(()) => report.line(Status::Works, family, &format!("packets {text}")),
        Err(problem) => {
            report.line(Status::Fails, family, &format!("packets {text}"))?;
            report.detail(&problem)
        }
    };

    let nat: Vec<Saying> = said("nat").collect();
    if let Err(problem) = scene.say_all(fronts, &nat) {
        return tell("with Docker's nat rules", Err(problem));
    }
    let control = scene.arrives(&scene.neighbour, direct);
    tell("without the rule, another host reaches the container's own address (so the test is one)", control)?;

    let raw: Vec<Saying> = said("raw").collect();
    let added = scene.say_all(fronts, &raw);
    let silent = added.and_then(|()| scene.is_kept_out(&scene.neighbour, direct));
    tell("with the rule, it does not", silent)?;
    tell("another host reaches the published port", scene.connects(&scene.neighbour, published))?;
    tell("this host reaches the container", scene.arrives(&scene.host, direct))?;
    tell("the container reaches another host", scene.connects(&scene.container, neighbour))?;

    let removed = scene.take_back(fronts, &raw);
    let again = removed.and_then(|()| scene.arrives(&scene.neighbour, direct));
    tell("with the rule removed, it does again", again)
}

/// Addresses, as Docker's vocabulary has them.
struct Plan {
    bridge: &'static str,
    gateway: IpAddr,
    prefix: u8,
    container: IpAddr,
    host: IpAddr,
    neighbour: IpAddr,
    host_prefix: u8,
}

impl Plan {
    fn of(family: Family) -> Option<Self> {
        let value = |name| rules::docker().value(family, name);
        let (_, prefix) = value("subnet")?.split_once('/')?;
        let host = value("host")?.parse().ok()?;
        Some(Self {
            bridge: value("bridge")?,
            gateway: value("gateway")?.parse().ok()?,
            prefix: prefix.parse().ok()?,
            container: value("address")?.parse().ok()?,
            host,
            neighbour: next(host),
            host_prefix: if family == Family::V4 { 24 } else { 64 },
        })
    }
}

fn next(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() + 1).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() + 1).into()),
    }
}

/// The three namespaces, joined, and who listens in them.
struct Scene {
    family: Family,
    plan: Plan,
    host: Namespace,
    container: Namespace,
    neighbour: Namespace,
    // Connections are taken by the kernel as long as these are open.
    _servers: [TcpListener; 2],
    mailbox: UdpSocket,
}

impl Scene {
    fn build(family: Family) -> io::Result<Self> {
        let plan = Plan::of(family).ok_or_else(|| io::Error::other("no addresses to use"))?;
        let [host, container, neighbour] = [Namespace::create()?, Namespace::create()?, Namespace::create()?];
        join(&plan, &host, &container, &neighbour)?;
        forward(family, &host)?;
        let any: IpAddr = if family == Family::V4 { [0; 4].into() } else { [0; 16].into() };
        let inner = container.run(|| TcpListener::bind((any, INNER_PORT))).flatten()?;
        let outer = neighbour.run(|| TcpListener::bind((any, NEIGHBOUR_PORT))).flatten()?;
        let mailbox = container.run(|| UdpSocket::bind((any, INNER_PORT))).flatten()?;
        Ok(Self { family, plan, host, container, neighbour, _servers: [inner, outer], mailbox })
    }

    fn say_all(&self, fronts: &Fronts, sayings: &[Saying]) -> Result<(), String> {
        sayings.iter().try_for_each(|saying| self.say(fronts, &saying.table, &saying.args))
    }

    fn take_back(&self, fronts: &Fronts, sayings: &[Saying]) -> Result<(), String> {
        let removals = sayings.iter().rev().filter_map(|saying| Some((&saying.table, checking(&saying.args, "-D")?)));
        removals.into_iter().try_for_each(|(table, args)| self.say(fronts, table, &args))
    }

    fn say(&self, fronts: &Fronts, table: &str, args: &[String]) -> Result<(), String> {
        let answer = fronts.say(&self.host, self.family, table, args);
        if answer.is_silent_success() { Ok(()) } else { Err(format!("not tried, because of\n{}", answer.describe())) }
    }

    /// Over TCP and UDP.
    fn arrives(&self, from: &Namespace, to: SocketAddr) -> Result<(), String> {
        self.connects(from, to)?;
        match self.datagram_arrives(from, to, PATIENCE) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("UDP to {to} does not arrive")),
            Err(error) => Err(format!("UDP to {to}: {error}")),
        }
    }

    /// Neither TCP nor UDP gets through.
    fn is_kept_out(&self, from: &Namespace, to: SocketAddr) -> Result<(), String> {
        if connect(from, to, SILENCE).is_ok() {
            return Err(format!("TCP to {to} gets through"));
        }
        match self.datagram_arrives(from, to, SILENCE) {
            Ok(false) => Ok(()),
            Ok(true) => Err(format!("UDP to {to} gets through")),
            Err(error) => Err(format!("UDP to {to}: {error}")),
        }
    }

    fn connects(&self, from: &Namespace, to: SocketAddr) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now()).max(PAUSE);
            match connect(from, to, left) {
                Ok(()) => return Ok(()),
                // An address or a cable that is new may take the kernel a while.
                Err(_) if Instant::now() < until => std::thread::sleep(PAUSE),
                Err(error) => return Err(format!("TCP to {to}: {error}")),
            }
        }
    }

    /// Sends a datagram that no other is like, and looks into the container's mailbox for it.
    fn datagram_arrives(&self, from: &Namespace, to: SocketAddr, wait: Duration) -> io::Result<bool> {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = from.run(|| UdpSocket::bind((any, 0))).flatten()?;
        let text = format!("{} {:?}", socket.local_addr()?, Instant::now());
        socket.send_to(text.as_bytes(), to)?;
        let until = Instant::now() + wait;
        let mut buffer = [0; 256];
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.mailbox.set_read_timeout(Some(left))?;
            match self.mailbox.recv(&mut buffer) {
                Ok(length) if &buffer[..length] == text.as_bytes() => return Ok(true),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

fn connect(from: &Namespace, to: SocketAddr, wait: Duration) -> io::Result<()> {
    from.run(|| TcpStream::connect_timeout(&to, wait)).flatten().map(drop)
}

/// Cables and addresses: the container on the host's bridge, the neighbour on a network of the host's.
fn join(plan: &Plan, host: &Namespace, container: &Namespace, neighbour: &Namespace) -> io::Result<()> {
    let routing = |namespace: &Namespace| namespace.run(Routing::open).flatten();
    let (mut at_host, mut at_container, mut at_neighbour) = (routing(host)?, routing(container)?, routing(neighbour)?);
    at_host.add_bridge(plan.bridge)?;
    at_host.add_veth("veth-inner", "eth0", container)?;
    at_host.add_veth("veth-outer", "eth0", neighbour)?;
    at_host.set_master("veth-inner", plan.bridge)?;
    at_host.add_address(plan.bridge, plan.gateway, plan.prefix)?;
    at_host.add_address("veth-outer", plan.host, plan.host_prefix)?;
    at_container.add_address("eth0", plan.container, plan.prefix)?;
    at_neighbour.add_address("eth0", plan.neighbour, plan.host_prefix)?;
    for name in ["lo", plan.bridge, "veth-inner", "veth-outer"] {
        at_host.set_up(name)?;
    }
    for there in [&mut at_container, &mut at_neighbour] {
        there.set_up("lo")?;
        there.set_up("eth0")?;
    }
    at_container.add_default_route(plan.gateway)?;
    at_neighbour.add_default_route(plan.host)
}

/// Makes a router of the host.
fn forward(family: Family, host: &Namespace) -> io::Result<()> {
    let switch = match family {
        Family::V4 => "/proc/sys/net/ipv4/ip_forward",
        Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    };
    let written = host.run(|| fs::write(switch, "1")).flatten();
    written.map_err(|error| io::Error::other(format!("forwarding cannot be turned on: {error}")))
}
