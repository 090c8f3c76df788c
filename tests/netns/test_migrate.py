"""xtshim migrate docker-user: the same packets pass and the same are dropped, under Docker's rules in iptables before, and
under its tables in nftables afterwards."""

import concurrent.futures
import os
import pathlib
import shlex
import socket
import subprocess
import tempfile
import time

import pytest

import conftest
import harness
import packets

MARK = "0x10000000/0x10000000"
BRIDGE, SUBNET = "br-net", "172.30.0"
CONTAINER = f"{SUBNET}.2"
CONTAINER6 = "fd30::2"

# What an administrator has there: drops, rejects, limits by source, overriding accepts, chains of his own.
RULES = """iptables -N OFFICE
iptables -A OFFICE -p tcp --dport 2001 -j RETURN
iptables -A OFFICE -p tcp --dport 2002 -m comment --comment "the office may" -j ACCEPT
iptables -A OFFICE -p tcp --dport 2003 -j DROP
iptables -F DOCKER-USER
iptables -A DOCKER-USER -s 10.5.0.66 -j DROP
iptables -A DOCKER-USER -m iprange --src-range 10.5.0.70-10.5.0.79 -j DROP
iptables -A DOCKER-USER -p tcp --dport 1001 -s 10.5.0.2 -j ACCEPT
iptables -A DOCKER-USER -p tcp -m multiport --dports 1003,1004 -j REJECT --reject-with tcp-reset
iptables -A DOCKER-USER -i wan -p tcp --dport 2000:2009 -j OFFICE
iptables -A DOCKER-USER -i wan -p udp --dport 5000 -m limit --limit 1/hour --limit-burst 2 -j ACCEPT
iptables -A DOCKER-USER -i br-net -d 10.5.0.3 -j DROP
iptables -A DOCKER-USER -j RETURN
ip6tables -F DOCKER-USER
ip6tables -A DOCKER-USER -p tcp --dport 1001 -j ACCEPT
ip6tables -A DOCKER-USER -i br-net -d fd05::3 -j DROP""".splitlines()

# From where, to which port; whether it gets there: by the rules above, over those of Docker, which publishes nothing.
WANTED = {
    ("10.5.0.2", 1001): True,
    ("10.5.0.4", 1001): False,
    ("10.5.0.66", 1001): False,
    ("10.5.0.71", 1001): False,
    ("10.5.0.2", 1003): False,
    ("10.5.0.2", 2001): False,
    ("10.5.0.2", 2002): True,
    ("10.5.0.66", 2002): False,
    ("10.5.0.2", 2003): False,
    ("fd05::2", 1001): True,
    ("fd05::2", 1002): False,
}
# To where from the container, which Docker lets out.
OUTWARDS = {"10.5.0.2": True, "10.5.0.3": False, "fd05::2": True, "fd05::3": False}


def is_fetched():
    """Whether the lab's parts are being fetched beside these tests."""
    try:
        return ") Z " not in pathlib.Path("/proc", os.environ["XTSHIM_LAB_AHEAD"], "stat").read_text()
    except (KeyError, OSError):
        return False


def docker():
    """Where dockerd 28 and its companions are: $XTSHIM_DOCKER, else what the lab has unpacked."""
    cache = pathlib.Path(os.environ.get("XTSHIM_LAB_CACHE", conftest.ROOT / "target/lab"))
    places = [os.environ.get("XTSHIM_DOCKER"), str(cache / "unpacked/docker-forky-amd64/usr"), "/usr"]
    deadline = time.monotonic() + 600
    while True:
        waits = is_fetched() and time.monotonic() < deadline
        for place in filter(None, places):
            if os.access(f"{place}/sbin/dockerd", os.X_OK) and os.access(f"{place}/bin/docker", os.X_OK):
                return [f"{place}/sbin", f"{place}/bin"]
        if not waits:
            break
        time.sleep(1)
    pytest.skip("there is no dockerd (tests/lab/run unpacks one, or name its folder in XTSHIM_DOCKER)")


def docker_29():
    """A dockerd from 29 on: no package of Debian's has one yet."""
    named = os.environ.get("XTSHIM_DOCKER_29")
    if not named:
        pytest.skip("there is no dockerd 29 (name one in XTSHIM_DOCKER_29); its tables are stood in for by hand")
    return named


class Place:
    """A host with a network of Docker's, a container on it, and a neighbour."""

    def __init__(self, subject, tmp_path):
        self.subject, self.tmp = subject, tmp_path
        self.host, self.container, self.neighbour = harness.Netns(), harness.Netns(), harness.Netns()
        self.env = {**harness.BASE_ENVIRONMENT, "XTSHIM_CONFIG": subject.config, "XTABLES_LOCKFILE": str(tmp_path / "lock")}
        self.env["PATH"] = f"{subject.directory}:{harness.BASE_ENVIRONMENT['PATH']}"
        self.host.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        self.host.sh(f"ip link add wan type veth peer name eth0 netns {self.neighbour.path}")
        self.host.sh("ip addr add 10.5.0.1/24 dev wan")
        self.host.sh("ip -6 addr add fd05::1/64 dev wan nodad")
        self.host.sh("ip link set wan up")
        self.neighbour.sh("ip link set eth0 up")
        for last in ("2", "3", "4", "66", "71"):
            self.neighbour.sh(f"ip addr add 10.5.0.{last}/24 dev eth0")
        for last in ("2", "3"):
            self.neighbour.sh(f"ip -6 addr add fd05::{last}/64 dev eth0 nodad")
        self.neighbour.sh(f"ip route add {SUBNET}.0/24 via 10.5.0.1")
        self.neighbour.sh("ip -6 route add fd30::/64 via fd05::1")
        self.servers = []

    def plug(self):
        """The container, on the network that is there."""
        self.host.sh(f"ip link add port type veth peer name eth0 netns {self.container.path}")
        self.host.sh(f"ip link set port master {BRIDGE} up")
        self.container.sh(f"ip addr add {CONTAINER}/24 dev eth0")
        self.container.sh(f"ip -6 addr add {CONTAINER6}/64 dev eth0 nodad")
        self.container.sh("ip link set eth0 up")
        self.container.sh(f"ip route add default via {SUBNET}.1")
        self.container.sh("ip -6 route add default via fd30::1")
        self.serve()
        assert packets.eventually(self.answers, 10), "the network of Docker's does not come up"

    def answers(self):
        with self.container.entered():
            return packets.connects("10.5.0.2", 3000) and packets.connects("fd05::2", 3000)

    def serve(self):
        with self.container.entered():
            self.servers = [packets.listener(family, port) for family, port in ((4, 1001), (4, 1003), (4, 2001), (4, 2002), (4, 2003), (6, 1001), (6, 1002)) if family == 4] + [self.six(port) for port in (1001, 1002)]
        with self.neighbour.entered():
            self.servers += [packets.listener(4, 3000), self.six(3000)]

    @staticmethod
    def six(port):
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("::", port))
        sock.listen(16)
        return sock

    def seen(self):
        """What gets through, as WANTED and OUTWARDS have it."""
        reach = lambda call: packets.connects(*call)
        with self.neighbour.entered(), concurrent.futures.ThreadPoolExecutor(len(WANTED)) as threads:
            # Threads begin where their maker is.
            calls = [(CONTAINER6 if ":" in source else CONTAINER, port, source) for source, port in WANTED]
            inwards = dict(zip(WANTED, threads.map(reach, calls)))
        with self.container.entered(), concurrent.futures.ThreadPoolExecutor(len(OUTWARDS)) as threads:
            return inwards, dict(zip(OUTWARDS, threads.map(reach, [(target, 3000) for target in OUTWARDS])))

    def datagrams(self):
        """How many of five datagrams get to the container."""
        with self.container.entered():
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.bind((CONTAINER, 5000))
        with self.neighbour.entered(), receiver:
            for source in range(5):
                # Each from a port of its own: answers to what was let through once pass by Docker's own rule.
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    sender.bind(("10.5.0.2", 6000 + source))
                    sender.sendto(b"x", (CONTAINER, 5000))
            receiver.settimeout(0.5)
            got = 0
            try:
                while receiver.recv(10):
                    got += 1
            except TimeoutError:
                return got

    def front(self, command):
        words = shlex.split(command)
        with self.host.entered():
            result = harness.execute([self.subject.path(words[0]), *words[1:]], env=self.env)
        assert result.rc == 0, f"{command}\n{result.text()}"
        return result.out.decode()

    def migrate(self, *words, version=None, dockerd=None):
        """`xtshim migrate docker-user`, beside a dockerd of that version, or that one."""
        program = [os.path.join(self.subject.directory, "xtshim"), "migrate", "docker-user", *words]
        if version or dockerd:
            say = shlex.quote(f"#!/bin/sh\necho Docker version {version}, build x\n")
            made = f"ln -s {shlex.quote(dockerd)} /usr/local/bin/dockerd" if dockerd else f"printf %s {say} >/usr/local/bin/dockerd; chmod +x /usr/local/bin/dockerd"
            script = f"mount -t tmpfs tmpfs /usr/local/bin; {made}; exec {shlex.join(program)}"
            program = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "/bin/bash", "-c", script]
        with self.host.entered():
            return harness.execute(program, env=self.env)

    def close(self):
        for server in self.servers:
            server.close()
        for place in (self.host, self.container, self.neighbour):
            place.close()


@pytest.fixture(params=["backend", "carried"])
def place(request, shim, tmp_path):
    subject = shim("nft", harness.TABLES if request.param == "carried" else ())
    made = Place(subject, tmp_path)
    yield made
    made.close()


class Daemon:
    """A real dockerd without any container: networks are enough."""

    def __init__(self, place, dockerd="dockerd", options=()):
        # A socket's path holds no more than 107 bytes.
        self.home = tempfile.TemporaryDirectory(prefix="d", ignore_cleanup_errors=True)
        self.place, self.folder = place, pathlib.Path(self.home.name)
        paths = docker()
        tools = place.tmp / "tools"
        tools.mkdir(exist_ok=True)
        if not (tools / "runc").exists():
            # It is looked for, and never needed.
            (tools / "runc").symlink_to("/bin/true")
        self.env = {**place.env, "PATH": ":".join([place.subject.directory, str(tools), *paths, "/usr/sbin", "/usr/bin", "/sbin", "/bin"])}
        self.socket = f"unix://{self.folder}/d.sock"
        self.log = open(self.folder / "log", "w")
        script = "mount -t tmpfs tmpfs /run && exec " + shlex.join([dockerd, *options, "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec", "-H", self.socket, "--storage-driver", "vfs", "-p", f"{self.folder}/pid", "--config-file", f"{self.folder}/none.json"])
        (self.folder / "none.json").write_text("{}")
        with place.host.entered():
            self.process = subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/bash", "-c", script], env=self.env, stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        assert packets.eventually(lambda: self.ask("version").returncode == 0 or self.process.poll() is not None, 40) and self.process.poll() is None, (self.folder / "log").read_text()[-2000:]

    def ask(self, *words):
        return subprocess.run(["docker", "-H", self.socket, *words], env=self.env, capture_output=True, text=True, timeout=30)

    def network(self):
        done = self.ask("network", "create", "--ipv6", "--subnet", f"{SUBNET}.0/24", "--subnet", "fd30::/64", "-o", f"com.docker.network.bridge.name={BRIDGE}", "net")
        assert done.returncode == 0, done.stderr

    def stop(self):
        # Takes all that it has started with it.
        self.process.kill()
        self.process.wait(20)
        self.log.close()
        self.home.cleanup()


def test_a_docker_user_under_docker_28_is_moved(place):
    daemon = Daemon(place)
    try:
        daemon.network()
        place.plug()
        before = place.seen()
        for rule in RULES:
            place.front(rule)
        assert before != place.seen()
        assert place.seen() == (WANTED, OUTWARDS)
        assert place.datagrams() == 2
    finally:
        daemon.stop()
    # The rules that Docker 29 makes for such a network, by hand; iptables lets everything pass.
    saved = place.migrate("--output", str(place.tmp / "before.nft"))
    assert saved.rc == 0, saved.text()
    refused = place.migrate("--apply", version="28.5.2")
    assert refused.rc == 1 and b"only Docker 29.0.0 and later" in refused.err, refused.text()
    assert "before-docker" not in place.host.sh("nft list tables")
    rules = place.front("iptables -S DOCKER-USER")
    applied = place.migrate("--apply", version="29.1.0")
    assert applied.rc == 0 and b"table ip before-docker: 11 rules are in force" in applied.out and MARK.encode() in applied.out, applied.text()
    assert rules == place.front("iptables -S DOCKER-USER")
    first = place.host.sh("nft -s list table ip before-docker")
    again = place.migrate("--apply", version="29.1.0")
    assert again.rc == 0 and place.host.sh("nft -s list table ip before-docker") == first
    place.host.sh(f"nft -c -f {place.tmp / 'before.nft'}")
    assert 'comment "the office may"' in first and "priority filter - 1" in first
    for front in ("iptables", "ip6tables"):
        place.front(f"{front} -P FORWARD ACCEPT")
        place.front(f"{front} -F FORWARD")
    load(place, tables_of_docker_29(MARK))
    assert place.seen() == (WANTED, OUTWARDS)
    assert place.datagrams() == 2
    # Each of the two is needed: without the mark Docker drops what the administrator accepts, without the table all is
    # as Docker has it.
    load(place, tables_of_docker_29(None))
    inwards, outwards = place.seen()
    assert (set(inwards.values()), outwards) == ({False}, OUTWARDS)
    load(place, tables_of_docker_29(MARK))
    place.host.sh("nft delete table ip before-docker")
    place.host.sh("nft delete table ip6 before-docker")
    assert place.seen() == before


def test_a_docker_user_under_docker_29_itself(place):
    """As above, and then Docker 29 makes its tables itself."""
    dockerd = docker_29()
    daemon = Daemon(place)
    try:
        daemon.network()
        place.plug()
        for rule in RULES:
            place.front(rule)
        assert place.seen() == (WANTED, OUTWARDS)
        assert place.datagrams() == 2
    finally:
        daemon.stop()
    applied = place.migrate("--apply", dockerd=dockerd)
    assert applied.rc == 0 and b"table ip before-docker: 11 rules are in force" in applied.out, applied.text()
    for front in ("iptables", "ip6tables"):
        place.front(f"{front} -P FORWARD ACCEPT")
        place.front(f"{front} -F FORWARD")

    def under_29(*options):
        place.host.sh(f"ip link del {BRIDGE}")
        daemon = Daemon(place, dockerd, ["--firewall-backend=nftables", *options])
        try:
            daemon.network()
            place.host.sh(f"ip link set port master {BRIDGE} up")
            place.container.sh("ip neigh flush all")  # the bridge has another address than the one before
            assert packets.eventually(place.answers, 10), "the network of Docker's does not come up"
            assert "docker-bridges" in place.host.sh("nft list tables")
            return place.seen(), place.datagrams()
        finally:
            daemon.stop()

    assert under_29(f"--bridge-accept-fwmark={MARK}") == ((WANTED, OUTWARDS), 2)
    # Without the mark Docker drops what the administrator accepts.
    (inwards, outwards), _ = under_29()
    assert (set(inwards.values()), outwards) == ({False}, OUTWARDS)


def tables_of_docker_29(mark):
    """The part of Docker 29's tables that decides on forwarded packets."""
    text = ""
    for family in ("ip", "ip6"):
        accept = f"meta mark & {mark.split('/')[1]} == {mark.split('/')[0]} counter accept" if mark else ""
        text += f"""
table {family} docker-bridges {{}}
delete table {family} docker-bridges
table {family} docker-bridges {{
    map filter-forward-in-jumps {{ type ifname : verdict; elements = {{ "{BRIDGE}" : jump filter-forward-in__{BRIDGE} }} }}
    map filter-forward-out-jumps {{ type ifname : verdict; elements = {{ "{BRIDGE}" : jump filter-forward-out__{BRIDGE} }} }}
    chain filter-FORWARD {{
        type filter hook forward priority filter; policy accept;
        oifname vmap @filter-forward-in-jumps
        iifname vmap @filter-forward-out-jumps
    }}
    chain filter-forward-in__{BRIDGE} {{
        ct state established,related counter accept
        {accept}
        iifname {BRIDGE} counter accept comment "ICC"
        counter drop comment "UNPUBLISHED PORT DROP"
    }}
    chain filter-forward-out__{BRIDGE} {{
        ct state established,related counter accept
        counter accept comment "OUTGOING"
    }}
}}
"""
    return text


def load(place, text):
    with place.host.entered():
        done = subprocess.run(["nft", "-f", "-"], input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_said_stops_all_of_it(place):
    for rule in ("iptables -N DOCKER-USER", "iptables -I FORWARD -j DOCKER-USER", "iptables -A DOCKER-USER -s 10.0.0.1 -j DROP"):
        place.front(rule)
    assert place.migrate("--apply").rc == 0
    # What ours carries has a native form already.
    if "filter" not in place.subject.name:
        place.host.sh("iptables-nft -A DOCKER-USER -m recent --set --name x --rsource -j DROP")
        refused = place.migrate("--apply")
        assert refused.rc == 1 and b"-m recent" in refused.err and b"nothing is moved" in refused.err, refused.text()
        assert "10.0.0.1 counter drop" in place.host.sh("nft -s list table ip before-docker")


def test_both_families_and_a_jump_that_chooses(place):
    for rule in ("iptables -N DOCKER-USER", "iptables -A FORWARD -i wan -j DOCKER-USER", "iptables -A DOCKER-USER -p tcp --dport 22 -j DROP", "ip6tables -N DOCKER-USER", "ip6tables -A DOCKER-USER -s fd00::/8 -j DROP"):
        place.front(rule)
    result = place.migrate("--fwmark", "0x40/0x40")
    text = result.out.decode()
    assert result.rc == 0 and 'FORWARD iifname "wan" counter packets 0 bytes 0 jump DOCKER-USER' in text, result.text()
    assert "FORWARD of ip6tables does not jump to DOCKER-USER" in text
    with place.host.entered():
        done = subprocess.run(["nft", "-c", "-f", "-"], input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_an_empty_docker_user_is_nothing_to_move(place):
    place.front("iptables -N DOCKER-USER")
    place.front("iptables -A DOCKER-USER -j RETURN")
    result = place.migrate("--apply")
    assert result.rc == 0 and b"nothing to move" in result.out
    for words in (["--fwmark", "0"], ["--fwmark", "1/2"]):
        place.front("iptables -A DOCKER-USER -s 10.0.0.1 -j DROP")
        assert place.migrate(*words).rc == 1


def test_a_mark_that_is_in_use_is_not_taken(place):
    place.front("iptables -N DOCKER-USER")
    place.front("iptables -I FORWARD -j DOCKER-USER")
    place.front("iptables -A DOCKER-USER -s 10.0.0.1 -j ACCEPT")
    place.front("iptables -t mangle -A PREROUTING -j MARK --set-xmark 0x10000000/0x10000000")
    place.host.sh("ip rule add fwmark 0x8000000/0x8000000 table 100")
    load(place, "table inet x { chain y { meta mark & 0x04000000 == 0x04000000 accept; }; }")
    assert b"by the mark 0x2000000/0x2000000" in place.migrate().out
