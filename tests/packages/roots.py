"""Clean roots made from Debian's packages, each test in a copy of its own that is thrown away."""

import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "packages"
SUITES = ("bookworm", "trixie")
# In namespaces of its own: what walks through /proc must see the root's processes alone.
ENTER = r"""
set -e
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
ip link set lo up
for file in null zero urandom tty; do touch "$1/dev/$file"; mount --bind "/dev/$file" "$1/dev/$file"; done
root=$1; shift
exec chroot "$root" "$@"
"""


def lower(suite):
    """A root with iptables and nft, unpacked once."""
    path = CACHE / "roots" / suite
    if not (path / "etc/debian_version").exists():
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=essential", "--include=iptables,nftables,logrotate", "--format=directory",
             "--skip=cleanup/apt", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
             "--dpkgopt=force-unsafe-io",
             suite, str(new)],
            check=True, stdin=subprocess.DEVNULL,
        )
        new.rename(path)
    return path


class Machine:
    """A root in which things are tried."""

    def __init__(self, suite, work):
        self.work = work
        self.path = work / "root"
        for name in ("upper", "work", "root", "run"):
            (work / name).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(work / "run")], check=True)
        for name in ("upper", "work"):
            (work / "run" / name).mkdir()
        options = f"lowerdir={lower(suite)},upperdir={work}/run/upper,workdir={work}/run/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(self.path)], check=True)
        # One set of namespaces for the life of the machine: rules stay between the steps.
        self.init = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private",
             "sh", "-c", ENTER, "enter", str(self.path), "sh", "-c", "echo up; exec sleep 1000"],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        )
        assert self.init.stdout.readline() == "up\n"
        children = pathlib.Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()
        self.pid = children[0]

    def close(self):
        self.init.kill()
        self.init.wait()
        for path in (self.path, self.work / "run"):
            subprocess.run(["umount", "--lazy", str(path)], check=False)

    def run(self, *words, **environment):
        """Runs it in there: exit code and all that it says."""
        done = subprocess.run(
            ["nsenter", "--target", self.pid, "--mount", "--net", "--pid", "--root", "--wd=/", "env", "-i",
             "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C",
             *(f"{name}={value}" for name, value in environment.items()), *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
        )
        return done.returncode, done.stdout

    def must(self, *words, **environment):
        code, said = self.run(*words, **environment)
        assert code == 0, f"{words} ended with {code}: {said}"
        return said

    def file(self, path):
        return self.path / path.lstrip("/")

    def read(self, path):
        return self.file(path).read_text()

    def write(self, path, text, mode=0o644):
        file = self.file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def choices(self):
        """All that update-alternatives knows of iptables, and where the links lead."""
        known = {name: self.read(f"/var/lib/dpkg/alternatives/{name}") for name in ("iptables", "ip6tables")}
        return known, {path: target for path, target in self.links().items() if "xtshim" not in path}

    def links(self):
        folders = (self.file("/etc/alternatives"), self.file("/usr/sbin"), self.file("/usr/local/sbin"))
        found = (path for folder in folders for path in sorted(folder.glob("ip*tables*")) if path.is_symlink())
        return {str(path.relative_to(self.path)): os.readlink(path) for path in found}

    def value(self, group="iptables"):
        return os.readlink(self.file(f"/etc/alternatives/{group}"))

    def everything(self):
        """Each file there is, but for what a package manager writes for itself."""
        own = ("proc", "dev", "run", "tmp", "var/log", "var/lib/dpkg", "var/cache", "var/lib/rpm", "var/lib/systemd")
        found = {}
        for folder, folders, files in os.walk(self.path):
            here = pathlib.Path(folder).relative_to(self.path)
            folders[:] = [name for name in folders if str(here / name) not in own]
            for name in (*files, *folders):
                path = here / name
                full = self.path / path
                found[str(path)] = os.readlink(full) if full.is_symlink() else None
        for name in self.file("/var/log").glob("xtshim*"):
            found[str(name)] = None
        return found

    def is_sound(self):
        """What must hold after each step: iptables answers, and no link of its own leads nowhere."""
        for name in ("iptables", "ip6tables", "iptables-save", "ip6tables-restore"):
            code, said = self.run(name, "--version")
            assert code == 0 and said.startswith(f"{name} v1.8."), (name, code, said)
        for path in self.links():
            code, said = self.run("readlink", "-e", f"/{path}")
            assert code == 0, f"{path} leads nowhere"


def close_all(machines):
    for machine in machines:
        machine.close()
