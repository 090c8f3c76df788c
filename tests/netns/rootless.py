"""rootlesskit with pasta or slirp4netns, as Debian 13 has packed them, in a root folder of their own: fetched while the tests
run, never kept in the repository, nothing installed."""

import os
import pathlib
import re
import subprocess
import tempfile

import pytest

import upstream

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = "rootlesskit passt slirp4netns uidmap bash coreutils iproute2 util-linux socat mount".split()

# Inside of the root folder. What listens on 127.0.0.1 alone is what Docker's proxy does for a port published there; pasta
# passes on by itself, the others are told to.
INSIDE = r"""
PATH=/usr/bin:/usr/sbin
as_user() { setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/u XDG_RUNTIME_DIR=/tmp PATH=$PATH "$@"; }
cat >/tmp/servers <<'END'
socat TCP-LISTEN:8080,bind=127.0.0.1,reuseaddr,fork SYSTEM:'echo hello' &
socat TCP-LISTEN:8081,reuseaddr,fork SYSTEM:'echo hello' &
wait
END
as_user rootlesskit --state-dir=/tmp/kit --net=$1 --port-driver=$2 --copy-up=/etc --copy-up=/run --disable-host-loopback bash /tmp/servers >/tmp/log 2>&1 &
ask() { socat -t2 - TCP:127.0.0.1:$1,connect-timeout=2 </dev/null 2>/tmp/why; }
for attempt in $(seq 50); do
    sleep 0.2
    [ $2 = builtin ] && [ -S /tmp/kit/api.sock ] && as_user rootlessctl --socket /tmp/kit/api.sock add-ports 127.0.0.1:8080:8080/tcp 127.0.0.1:8081:8081/tcp >/dev/null 2>&1
    [ "$(ask 8081)" = hello ] && break
done
for port in loopback:8080 everywhere:8081; do
    answer=$(ask ${port#*:})
    echo "port-${port%:*} ${answer:-reset}"
done
cat /tmp/log >&2
/usr/local/bin/xtshim doctor --json
"""

OUTSIDE = r"""
set -e
mount --make-rprivate /
mount --bind "$BOX" "$BOX"; cd "$BOX"
mkdir -p proc dev sys run tmp etc home/u mnt usr/local/bin
mount -t proc proc proc; mount --rbind /sys sys; mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp; chmod 1777 tmp
# /dev/net/tun of the machine may be root's alone.
mount -t tmpfs -o mode=755 tmpfs dev; mkdir dev/net dev/pts
for node in "null 1 3" "zero 1 5" "random 1 8" "urandom 1 9" "tty 5 0" "net/tun 10 200"; do set -- $node; mknod -m 666 dev/$1 c $2 $3; done
mount -t tmpfs tmpfs usr/local/bin; cp "$PROGRAM" usr/local/bin/xtshim
ip link set lo up
ip link add v0 type veth peer name v1; ip addr add 10.9.9.2/24 dev v0; ip link set v0 up; ip link set v1 up; ip route add default via 10.9.9.1 dev v0
pivot_root . mnt; umount -l /mnt
exec /bin/bash -c "$INSIDE" inside $NETWORK $DRIVER
"""


def box():
    """The root folder: $XTSHIM_ROOTLESS_BOX, else one that apt fills, with lists of its own. The test is skipped where it
    cannot be had."""
    if given := os.environ.get("XTSHIM_ROOTLESS_BOX"):
        return pathlib.Path(given)
    done = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "rootless-box"
    if done.exists():
        return done
    sources = pathlib.Path("/etc/apt/sources.list.d/debian.sources")
    if not sources.exists():
        pytest.skip("rootlesskit: no debian.sources to fetch it by")
    text = re.sub(r"^Suites:.*$", "Suites: trixie", sources.read_text().split("\n\n")[0], flags=re.M)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for folder in ("parts", "lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True)
        (work / "parts/source.sources").write_text(text)
        (work / "status").write_text("")
        settings = {"Dir::Etc::sourcelist": "/dev/null", "Dir::Etc::sourceparts": work / "parts", "Dir::State::lists": work / "lists", "Dir::State::status": work / "status", "Dir::State::extended_states": work / "extended", "Dir::Cache": work / "cache", "APT::Sandbox::User": "root"}
        options = ["-y", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
        fetched = upstream.apt(options, ["update"], ["install", "--no-install-recommends", "--download-only", *PACKAGES])
        packages = sorted((work / "cache/archives").glob("*.deb"))
        if fetched.returncode or not packages:
            pytest.skip(f"rootlesskit's packages cannot be had: {fetched.stderr.strip()[-200:]}")
        new = done.with_name(f".rootless-box.{os.getpid()}")
        new.mkdir(parents=True)
        for package in packages:
            subprocess.run(["dpkg", "-x", package, new], check=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if not (new / name).exists():
                (new / name).symlink_to(f"usr/{name}")
        if not (new / "usr/bin/sh").exists():
            (new / "usr/bin/sh").symlink_to("bash")
        (new / "etc").mkdir(exist_ok=True)
        for name, line in (("passwd", "root:x:0:0::/root:/bin/bash\nu:x:1000:1000::/home/u:/bin/bash\n"), ("group", "root:x:0:\nu:x:1000:\n"), ("subuid", "u:100000:65536\n"), ("subgid", "u:100000:65536\n"), ("hosts", "127.0.0.1 localhost\n"), ("resolv.conf", "nameserver 10.9.9.1\n")):
            (new / "etc" / name).write_text(line)
        (new / "home/u").mkdir(parents=True)
        os.chown(new / "home/u", 1000, 1000)
        try:
            return new.rename(done)
        except OSError:
            # Another test process was faster.
            return done


def run(program, network, driver):
    """Two ports served within rootlesskit's network, asked for from outside of it: what the host's side hears of each, and
    what the doctor says there, as JSON."""
    where = box()
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "BOX": str(where), "PROGRAM": str(program), "INSIDE": INSIDE, "NETWORK": network, "DRIVER": driver}
    done = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/bash", "-c", OUTSIDE], env=environment, capture_output=True, text=True, timeout=60)
    if "port-everywhere hello" not in done.stdout:
        pytest.skip(f"rootlesskit does not run here: {done.stderr.strip()[-300:]}")
    return done.stdout
