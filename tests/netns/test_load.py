"""64 callers at once on one table: what was acknowledged is so, and nothing else.

XTSHIM_LOAD is the number of operations in all; 20000 takes from half a minute (iptables-legacy) to a quarter of an hour (filter).
"""

import concurrent.futures
import os
import random
import re
import time

import pytest

import harness

CALLERS = 64
# What a caller has at most, but for the rules of one restore: else the table would grow with the operations, and each cost more.
RULES = 6
OPERATIONS = int(os.environ.get("XTSHIM_LOAD", "640"))
CASES = ("legacy", "nft", "xtshim-nft", "xtshim-nft-over-nft", "xtshim-mangle", "xtshim-filter")


class Caller:
    """Who has rules and a chain of its own, and knows what it was told of them."""

    def __init__(self, number, call, chains):
        self.number, self.call, self.chains = number, call, chains
        self.dice = random.Random(number)
        self.rules, self.made, self.next = [], False, 0
        self.faults = []

    def rule(self):
        """Of the shape that every carrier can hold; no two are the same."""
        self.next += 1
        return f"-d 10.{self.number}.{self.next >> 8}.{self.next & 255}/32 ! -i docker0 -p tcp -m tcp --dport {1000 + self.number} -j DROP"

    def run(self, *argv, rc=0, stdin=None):
        answer = self.call(argv, stdin)
        if answer.rc != rc or (answer.err and rc == 0):
            self.faults.append(f"{argv}: {answer.text()[:600]}")
        return answer

    def command(self, letter, rule, *number):
        return self.run("iptables", "-w", "-t", "raw", letter, "PREROUTING", *number, *rule.split())

    def step(self):
        kinds = ["append", "append", "insert", "insert", "check", "check", "delete", "delete", "restore", "list", "save"]
        kind = self.dice.choice(kinds + (["chain"] * 2 if self.chains else []))
        if kind in ("check", "delete") and not self.rules:
            kind = "append"
        if kind in ("append", "insert", "restore") and len(self.rules) >= RULES:
            kind = "delete"
        if kind in ("append", "insert"):
            rule = self.rule()
            if self.command("-A" if kind == "append" else "-I", rule).rc == 0:
                self.rules.append(rule)
        elif kind == "delete":
            rule = self.dice.choice(self.rules)
            if self.command("-D", rule).rc == 0:
                self.rules.remove(rule)
        elif kind == "check":
            self.command("-C", self.dice.choice(self.rules))
        elif kind == "restore":
            rules = [self.rule(), self.rule()]
            file = "*raw\n" + "".join(f"-A PREROUTING {rule}\n" for rule in rules) + "COMMIT\n"
            if self.run("iptables-restore", "-w", "--noflush", stdin=file.encode()).rc == 0:
                self.rules += rules
        elif kind == "chain":
            if self.run("iptables", "-w", "-t", "raw", "-X" if self.made else "-N", f"caller{self.number}").rc == 0:
                self.made = not self.made
        else:
            # What is listed is as it was at one moment: all that this caller was told is there, once.
            argv = ("iptables", "-w", "-t", "raw", "-S") if kind == "list" else ("iptables-save", "-t", "raw")
            there = mine(self.run(*argv).out, self.number)
            if sorted(there) != sorted(self.rules):
                self.faults.append(f"{argv}: {sorted(set(self.rules) ^ set(there))}, {len(there)} listed of {len(self.rules)}")


def mine(text, number):
    return re.findall(rf"^-A PREROUTING (-d 10\.{number}\..*)$", text.decode(), re.M)


@pytest.mark.parametrize("case", CASES)
def test_what_was_acknowledged_is_so(case, original, shim, beside, record_property):
    if not case.startswith("xtshim-"):
        kind, subject = case, original(case)
    else:
        _, kind, *over = case.split("-")
        subject = shim(over[-1] if over else "legacy", ("raw",), kind)
    pair = beside(subject)
    (_, place), = pair.places
    environment = {**pair.env, **subject.environment()}
    chains = kind not in ("mangle", "filter")
    with place.entered():
        call = lambda argv, stdin: harness.execute([subject.path(argv[0]), *argv[1:]], stdin, environment)
        first = call(("iptables", "-t", "raw", "-S"), None)
        assert first.rc == 0, first.text()
    callers = [Caller(number, call, chains) for number in range(CALLERS)]

    def work(caller):
        # A namespace is a thread's own.
        harness.setns(place.fd)
        for _ in range(max(1, OPERATIONS // CALLERS)):
            caller.step()

    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CALLERS) as threads:
        list(threads.map(work, callers))
    took = time.monotonic() - begun
    pair.history.append(f"{OPERATIONS} operations by {CALLERS} callers")
    with place.entered():
        listed = call(("iptables", "-t", "raw", "-S"), None).out
    wanted = sorted(rule for caller in callers for rule in caller.rules)
    there = sorted(re.findall(r"^-A PREROUTING (.*)$", listed.decode(), re.M))
    faults = [fault for caller in callers for fault in caller.faults]
    if wanted != there:
        faults.append(f"lost: {sorted(set(wanted) - set(there))}\nnobody's: {sorted(set(there) - set(wanted))}\ntwice: {len(there) - len(set(there))}")
    chains_there = set(re.findall(r"^-N (\S+)$", listed.decode(), re.M))
    if chains_there != {f"caller{caller.number}" for caller in callers if caller.made}:
        faults.append(f"chains: {chains_there}")
    for fault in faults[:5]:
        pair.fault(case, fault)
    record_property("figure", f"load, {case}: {OPERATIONS} operations by {CALLERS} callers in {took:.1f} s, {len(faults)} faults")
