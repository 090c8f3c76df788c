"""Those that are compared: each original, ours before it, nft, and the kernel by itself; each in a network namespace of its own."""

import contextlib
import os
import pathlib
import shlex
import subprocess
import time

import harness
import kernel

RULE = "-d 172.17.0.2 ! -i docker0 -j DROP"
IN_NFT = 'ip daddr 172.17.0.2 iifname != "docker0" counter drop'

# In this order: each leaves the table as the next one wants it.
OPERATIONS = ("--version", "-C miss", "-A", "-C hit", "-S", "save", "-D", "-I", "restore")
COMMANDS = {
    "--version": ("iptables", "--version", 0), "-C miss": ("iptables", "-t {table} -C {chain} {rule}", 1), "-A": ("iptables", "-t {table} -A {chain} {rule}", 0), "-C hit": ("iptables", "-t {table} -C {chain} {rule}", 0),
    "-S": ("iptables", "-t {table} -S {chain}", 0), "save": ("iptables-save", "-t {table}", 0), "-D": ("iptables", "-t {table} -D {chain} {rule}", 0), "-I": ("iptables", "-t {table} -I {chain} {rule}", 0), "restore": ("iptables-restore", "{file}", 0),
}


def addresses(count):
    return (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(count))


def rules_file(directory, table, chain, count):
    """An iptables-restore file of so many rules."""
    path = directory / f"{table}-{count}.rules"
    if not path.exists():
        path.write_text(f"*{table}\n" + "".join(f"-A {chain} -s {address} -j ACCEPT\n" for address in addresses(count)) + "COMMIT\n")
    return path


class Side:
    """Runs programs in a namespace of its own."""

    def __init__(self, name, env):
        self.name, self.env, self.place = name, {**harness.BASE_ENVIRONMENT, **env}, harness.Netns()

    def close(self):
        self.place.close()

    def call(self, argv):
        """One call, waited for: how long it took, how long a processor was at it, both in milliseconds, and its exit
        code."""
        with self.place.entered():
            begun = time.perf_counter_ns()
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.env)
            _, status, usage = os.wait4(process.pid, 0)
            taken = time.perf_counter_ns() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        return (taken / 1e6, (usage.ru_utime + usage.ru_stime) * 1e3), process.returncode

    def run(self, argv, expected):
        """The same of one whose exit code is known."""
        taken, code = self.call(argv)
        if code != expected:
            raise SystemExit(f"{self.name}: {shlex.join(map(str, argv))}: exit {code}, expected {expected}")
        return taken

    def peak(self, argv, expected):
        """KiB of memory that a call has at most. A shell starts it and goes away: what the program was before it became
        itself counts too, and that is to be a small one."""
        with self.place.entered():
            subprocess.run(["sh", "-c", '"$@" >/dev/null 2>&1 & exit 0', "sh", *argv], env=self.env, check=True, stdin=subprocess.DEVNULL)
            _, status, usage = os.wait4(-1, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code == expected, f"{self.name}: {argv}: exit {code}"
        return usage.ru_maxrss

    def takes(self, operation):
        """Whether this side has such an operation."""
        return operation in COMMANDS

    def timed(self, operation):
        return self.run(*self.argv(operation))

    def memory(self, operation):
        return self.peak(*self.argv(operation))


class Iptables(Side):
    """An original, or ours before it, at work on one chain."""

    def __init__(self, name, subject, env, directory, table, chain, count):
        super().__init__(name, {**subject.environment(), **env})
        self.subject = subject
        self.words = {"table": table, "chain": chain, "rule": RULE, "file": rules_file(directory, table, chain, count)}
        self.timed("restore")

    def argv(self, operation):
        front, line, code = COMMANDS[operation]
        return [self.subject.path(front), *shlex.split(line.format(**self.words))], code


class Nft(Side):
    """nft itself, on the rules as xtshim has made them. It has no command that looks for a rule: listing the chain is the
    nearest."""

    def __init__(self, filled, directory, table, chain, count):
        self.name, self.env, self.place, self.filled = "nft", filled.env, filled.place, filled
        self.table, self.chain = f"ip xtshim-{table}", chain
        # A chain that holds nothing is not there before it is used.
        filled.timed("-A")
        filled.timed("-D")
        self.file = directory / f"{table}-{count}.nft"
        if not self.file.exists():
            self.file.write_text(f"flush table {self.table}\n" + "".join(f"add rule {self.table} {chain} ip saddr {address} counter accept\n" for address in addresses(count)))

    def argv(self, operation):
        at = f"{self.table} {self.chain}"
        line = {
            "--version": "--version", "-C miss": f"list chain {at}", "-C hit": f"list chain {at}", "-S": f"list chain {at}", "save": f"list table {self.table}", "-A": f"add rule {at} {IN_NFT}", "-I": f"insert rule {at} {IN_NFT}",
            "-D": f"delete rule {at} handle {{handle}}", "restore": f"-f {self.file}",
        }[operation]
        if operation == "-D":
            with self.place.entered():
                line = line.format(handle=int.from_bytes(kernel.Floor(self.table.split()[1], self.chain).last()[0], "big"))
        return ["/usr/sbin/nft", *shlex.split(line, posix=False)], 0


class Kernel:
    """The requests alone."""

    name = "kernel"

    def __init__(self, filled, table, chain):
        self.place, self.filled = filled.place, filled
        with self.place.entered():
            self.floor = kernel.Floor(f"xtshim-{table}", chain)
            # The rule that is added and deleted, as ours makes it.
            filled.timed("-A")
            self.rule = self.floor.last()[1]
            filled.timed("-D")
            self.floor.learn()

    def close(self):
        self.filled.close()

    def takes(self, operation):
        return operation != "--version"

    def timed(self, operation):
        """Its own preparations are no part of it."""
        floor = self.floor
        with self.place.entered():
            if operation in ("-C miss", "-C hit", "-S"):
                return floor.socket.dump(floor.chain)[0]
            if operation == "save":
                return floor.socket.dump()[0]
            if operation == "-D":
                return floor.delete_last()
            if operation in ("-A", "-I"):
                return floor.add(kernel.APPEND if operation == "-A" else 0, self.rule)
            return floor.restore()


CONFIG = 'backend = "{variant}"\noptimize = {optimize}\n[carriers]\n{carriers}\n[journal]\nfile = "{journal}"\nsystem = false\n'


def subject(directory, name, variant, program=None, carried=(), optimize=False):
    """An original (no program), or ours over it with these tables carried."""
    home = directory / name.replace(" ", "-")
    home.mkdir(exist_ok=True)
    for front in harness.FRONTS:
        link = home / front
        with contextlib.suppress(FileExistsError):
            link.symlink_to(program or f"/usr/sbin/xtables-{variant}-multi")
    config = home / "xtshim.toml"
    carriers = "\n".join(f'{table} = "{"nft" if table in carried else "backend"}"' for table in harness.TABLES)
    config.write_text(CONFIG.format(variant=variant, optimize=str(optimize).lower(), carriers=carriers, journal=home / "rewrites.jsonl"))
    return harness.Subject(name, variant, program is not None, str(home), str(config))


def turns(sides, number):
    """Who goes when in that round: a Williams square, in which everyone follows everyone else equally often. What one
    leaves behind for the kernel to do (a transaction's rules are freed a grace period later) meets the next one. With an
    odd number it takes two squares, one the other's mirror."""
    count = len(sides)
    first = [(step + 1) // 2 if step % 2 else (count - step // 2) % count for step in range(count)]
    if count % 2 and number // count % 2:
        first.reverse()
    return [sides[(place + number) % count] for place in first]
