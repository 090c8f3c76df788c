"""More than anybody writes by hand: thousands of chains, and as many words as the kernel hands to a program."""

import hashlib

import harness


def digest(text):
    return hashlib.sha256(text).hexdigest()


def test_many_chains(carried):
    names = [f"chain-{n:x}" for n in range(5_000)]
    file = "*raw\n" + "".join(f":{name} - [0:0]\n" for name in names) + "".join(f"-A {name} -j RETURN\n" for name in names) + "COMMIT\n"
    answers = [carried.call(subject, place, ["iptables-restore", "-n"], file.encode()) for subject, place in carried.places]
    carried.equal(answers, "5000 chains are not taken alike")
    saved = [carried.call(subject, place, ["iptables-save", "-t", "raw"]).out for subject, place in carried.places]
    carried.equal([digest(harness.without_dates(carried.comparable(text))) for text in saved], "not the same chains")


def test_as_many_words_as_there_can_be(carried):
    """One of 128 KiB less a byte, and 2 MiB of them."""
    longest = (128 << 10) - 1
    addresses = ",".join(f"10.{n >> 8}.{n & 255}.1/32" for n in range(8000))
    for words in (
        ["-A", "OUTPUT", "-s", addresses[:longest].rsplit(",", 1)[0], "-j", "ACCEPT"],
        ["-A", "OUTPUT", "-m", "comment", "--comment", "x" * longest, "-j", "ACCEPT"],
        ["-A", "OUTPUT", "-i" + "x" * (longest - 2)],
        ["-N", "n" * longest],
        ["-A", "OUTPUT", "-j", "j" * longest],
        ["-S", "OUTPUT", *["-n"] * 100_000],
        ["-A", "OUTPUT", *["!"] * 100_000],
        ["-A", "OUTPUT", *["-p", "tcp"] * 50_000],
    ):
        answers = [carried.call(subject, place, ["iptables", "-t", "raw", *words]) for subject, place in carried.places]
        carried.history.append(f"{words[:3]} … {len(words)} words".replace("x" * 100, "x…").replace("j" * 100, "j…")[:200])
        if len(answers) == 2:
            carried.compare(*answers)
        listed = [carried.call(subject, place, ["iptables", "-t", "raw", "-S"]).out for subject, place in carried.places]
        carried.equal([digest(text) for text in listed], "the rules differ")
