"""Every iptables call of a real Docker 28.5.2, played to the original and to ours: raw carried, and every table carried."""

import json
import pathlib
import shlex

import harness
from harness import TABLES

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
SAVE_EVERY = 150  # calls


def recorded(variant):
    with open(CORPUS / f"docker-28.5.2-{variant}.jsonl") as lines:
        return [json.loads(line) for line in lines]


class Machine:
    """The host and the containers' namespaces that a recording speaks of."""

    def __init__(self, subject, lock):
        self.subject, self.lock, self.places = subject, lock, {}

    def place(self, name):
        if name not in self.places:
            self.places[name] = harness.Netns()
        return self.places[name]

    def call(self, name, argv):
        with self.place(name).entered():
            return harness.execute([self.subject.path(argv[0]), *argv[1:]], env={"XTABLES_LOCKFILE": self.lock, **self.subject.environment()})

    def state(self):
        return {(name, front): harness.tables(self.call(name, [front]).out) for name in sorted(self.places) for front in ("iptables-save", "ip6tables-save")}

    def close(self):
        for place in self.places.values():
            place.close()


def test_corpus(subject, original, tmp_path):
    replay([original(subject.variant), subject] if subject.ours else [subject], tmp_path)


def test_corpus_with_every_table_carried(variant, original, shim, tmp_path):
    replay([original(variant), shim(variant, TABLES)], tmp_path)


def replay(subjects, tmp_path):
    calls = recorded(subjects[0].variant)
    machines = [Machine(each, str(tmp_path / f"lock-{each.name}")) for each in subjects]
    faults, unlike_recorded, counted = [], 0, 0
    try:
        for number, call in enumerate(calls, 1):
            answers = [machine.call(call["ns"], call["argv"]) for machine in machines]
            first = answers[0]
            unlike_recorded += (first.rc, first.out.decode(), first.err.decode()) != (call["rc"], call["stdout"], call["stderr"])
            if "set" in call["argv"]:
                # Of an ipset that is not there. Ours has no sets at all, and says that in other words.
                alike = all(answer.rc == first.rc != 0 and not answer.out and answer.err for answer in answers)
            else:
                alike = all(answer == first for answer in answers)
            if not alike:
                faults.append(f"call {number} in {call['ns']}: {shlex.join(call['argv'])}\noriginal: {first.text()}\nours: {answers[-1].text()}")
            if number % SAVE_EVERY == 0 or number == len(calls):
                states = [machine.state() for machine in machines]
                counted += sum(len(table) for tables in states[0].values() for table in tables.values())
                for key in states[0]:
                    if states[0][key] != states[-1][key]:
                        faults.append(f"after call {number}, {key}:\n" + harness.difference(flat(states[0][key]), flat(states[-1][key])))
            if len(faults) > 5:
                break
    finally:
        for machine in machines:
            machine.close()
    assert not faults, f"{len(faults)} fault(s)\n" + "\n\n".join(faults)
    # The machine that was recorded had ipsets and links that fresh namespaces lack; nearly all answers are the same.
    assert unlike_recorded < len(calls) / 20, f"{unlike_recorded} of {len(calls)} answers are unlike those recorded: not the iptables of the recording?"
    assert counted > 100, "the recording left no rules to compare"


def flat(tables):
    return b"\n".join(line for name in sorted(tables) for line in (b"*" + name.encode(), *tables[name]))
