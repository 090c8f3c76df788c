"""Random command sequences on raw, the original and ours side by side.

The same ones each time, unless XTSHIM_FUZZ_SEED names another seed (it is printed on failure). XTSHIM_FUZZ_SECONDS goes
on for that long with each subject.
"""

import os
import random
import shlex
import time

import pytest

import cases
import harness

SEED = int(os.environ.get("XTSHIM_FUZZ_SEED", "20261120"))
SECONDS = float(os.environ.get("XTSHIM_FUZZ_SECONDS", "0"))
SEQUENCES = 25
LENGTH = 40


class Generator:
    """Commands of one sequence. Names and rules are few, so that they meet."""

    def __init__(self, random, front, variant, usable):
        self.random, self.front, self.variant = random, front, variant
        self.counters = (front, variant) != ("ip6tables", "nft")  # 1.8.9 loses them, see the changes of 1.8.10
        self.rules = random.sample(usable, 12)
        self.names = ["one", "two", "three", "Zed"]

    def chain(self, builtin=0.6):
        return self.random.choice(["PREROUTING", "OUTPUT"]) if self.random.random() < builtin else self.random.choice(self.names)

    def rule(self):
        chain, rule = self.random.choice(self.rules)
        words = shlex.split(rule)
        if "-j" not in words and self.random.random() < 0.5:
            words += [self.random.choice(["-j", "-j", "-g"]), self.random.choice(self.names)]
        if "-i" not in words and "-o" not in words and self.random.random() < 0.4:
            chain = self.chain(0.2)
        if self.counters and self.random.random() < 0.2:
            words += ["-c", str(self.random.randrange(2000)), str(self.random.randrange(10**7))]
        return chain, words

    def number(self):
        return str(self.random.choice([1, 1, 1, 2, 2, 3, 4, 9]))

    def command(self):
        chain, words = self.rule()
        name, other = self.random.choice(self.names), self.random.choice(self.names)
        kinds = [
            (20, lambda: ["-A", chain, *words]), (8, lambda: ["-I", chain, *words]), (8, lambda: ["-I", chain, self.number(), *words]),
            (6, lambda: ["-D", chain, *self.plain(words)]), (6, lambda: ["-D", self.chain(), self.number()]), (5, lambda: ["-R", chain, self.number(), *words]),
            (6, lambda: ["-C", chain, *self.plain(words)]), (10, lambda: ["-N", name]), (3, lambda: ["-X", name]), (1, lambda: ["-X"]),
            (3, lambda: ["-E", name, other]), (2, lambda: ["-F", self.chain()]), (1, lambda: ["-F"]), (2, lambda: ["-Z", self.chain()]), (1, lambda: ["-Z"]),
            (2, lambda: ["-Z", self.chain(), self.number()]), (2, lambda: ["-P", self.chain(0.9), self.random.choice(["ACCEPT", "DROP"])]),
            (4, lambda: ["-S"]), (2, lambda: ["-S", self.chain(), *self.random.choice([[], [self.number()]])]), (3, lambda: ["-nvL", *self.random.choice([[], ["--line-numbers"], ["-x"]])]),
            (2, lambda: ["-L", self.chain(), "-n", *self.random.choice([[], ["-v"], ["--line-numbers", "-v", "-x"]])]), (1, lambda: ["-L", "-Z", "-nvx"]),
        ]
        if self.variant == "nft":
            # -Z of what has not been made yet is a failure there that says more than it does; -X alone unmakes built-in
            # chains, and names the one that fails in an order of its own.
            kinds = [(weight, make) for weight, make in kinds if "-Z" not in make() and make() != ["-X"]]
        weights, makers = zip(*kinds)
        return [self.front, "-t", "raw", *self.random.choices(makers, weights)[0]()]

    @staticmethod
    def plain(words):
        return words[: words.index("-c")] if "-c" in words else words


def usable_rules(subjects, lock):
    """The rules of each family that ours does not refuse; `limit` counts by the clock."""
    pair = harness.Both(subjects, lock)
    try:
        return {
            front: [(chain, rule) for extension, chain, rule in cases.rules(front) if extension != "limit" and "\n" not in rule and pair.offer([front, "-t", "raw", "-A", chain, *shlex.split(rule)])]
            for front in ("iptables", "ip6tables")
        }
    finally:
        pair.close()


def play(subjects, lock, commands):
    """The faults that a sequence shows, in fresh namespaces."""
    pair = harness.Both(subjects, lock)
    try:
        for command in commands:
            pair.run(command)
            if pair.faults:
                return pair.faults
        pair.state(counters=True)
        return pair.faults
    finally:
        pair.close()


def shrink(subjects, lock, commands, until):
    """A shorter sequence that still shows a fault."""
    index = 2  # the built-in chains stay made
    while index < len(commands) and time.monotonic() < until:
        shorter = commands[:index] + commands[index + 1 :]
        if play(subjects, lock, shorter):
            commands = shorter
        else:
            index += 1
    return commands


def test_random_sequences(subject, original, tmp_path):
    lock = str(tmp_path / "lock")
    subjects = [original(subject.variant), subject] if subject.ours else [subject]
    usable = usable_rules(subjects, lock)
    end = time.monotonic() + SECONDS
    source = random.Random(SEED)
    failures, played = [], 0
    while (played < SEQUENCES or time.monotonic() < end) and len(failures) < 3:
        played += 1
        seed = source.randrange(1 << 30)
        dice = random.Random(seed)
        front = dice.choice(["iptables", "ip6tables"])
        generator = Generator(dice, front, subject.variant, usable[front])
        # Built-in chains are made in iptables-nft when they are first used, and it has other words before.
        made = [[front, "-t", "raw", "-A", chain] for chain in ("PREROUTING", "OUTPUT")]
        commands = made + [generator.command() for _ in range(LENGTH)]
        if play(subjects, lock, commands):
            commands = shrink(subjects, lock, commands, time.monotonic() + 10)
            failures.append(f"seed {SEED}, sequence {seed}:\n" + play(subjects, lock, commands)[0])
    if failures:
        pytest.fail("\n\n".join(failures), pytrace=False)
