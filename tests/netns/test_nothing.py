"""Rules that mean no packet at all: kept, told and counted as iptables does, and no packet meets them."""

import shlex

import pytest

import packets as p

SIX = {"source": p.PEER6, "target": p.OURS6}
# iptables-nft 1.8.9 takes these for every packet; ours over it refuses them.
NATIVE = ("-p tcp ! --sport :", "-p tcp ! --dport :", "-p udp ! --sport 0:65535", "-p udp ! --dport : -j DROP", "-p tcp --sport 7 ! --dport 0:65535")
BOTH = (
    "-p sctp ! --dport :", "-p dccp --dport 5:3",
    "-p dccp ! --dccp-types REQUEST,RESPONSE,DATA,ACK,DATAACK,CLOSEREQ,CLOSE,RESET,SYNC,SYNCACK,INVALID", "-p esp ! --espspi :", "-p esp --espspi 9:5", "-p 108 -m ipcomp ! --ipcompspi :", "-p 108 -m ipcomp --ipcompspi 70000",
    "-m conntrack --ctstatus NONE", "-m conntrack --ctstatus NONE -j DROP", "-m conntrack --ctstate NEW --ctstatus NONE", "-m conntrack ! --ctorigsrcport :", "-m conntrack ! --ctrepldstport 0:65535",
    "! -i +", "! -i + -j DROP", "-m quota --quota 0", "-m connbytes ! --connbytes 0 --connbytes-mode packets --connbytes-dir both", "-m tos --tos 0x05/0x04",
    "-m statistic --mode random --probability 0", "-m u32 --u32 '0&0xf0=1'", "-m bpf --bytecode '1,6 0 0 0'",
)
ONLY = {
    "iptables": ("-p icmp ! --icmp-type any", "-p ah ! --ahspi :", "-p ah --ahspi 9:5", "-m ttl --ttl-lt 0", "-m ttl --ttl-gt 255 -j DROP", "-m conntrack ! --ctorigsrc 0.0.0.0/0"),
    "ip6tables": ("-m ah ! --ahspi :", "-m ah --ahlen 23", "-m frag ! --fragid :", "-m frag --fragid 9:5", "-m rt --rt-type 256", "-m rt ! --rt-segsleft :", "-m rt --rt-len 25", "-m rt --rt-type 0 --rt-segsleft 1:23 --rt-len 42 --rt-0-res",
        "-m hbh --hbh-len 0", "-m dst --dst-len 70000", "-p mh ! --mh-type :", "-m length --length 1", "-m length --length :39 -j DROP", "-m hl --hl-lt 0", "-m hl --hl-gt 255", "-m conntrack ! --ctorigsrc ::/0"),
}


@pytest.mark.parametrize("front", ONLY)
def test_no_packet_meets_them(scene, front):
    to = SIX if front == "ip6tables" else {}
    given = [shlex.split(rule) for rule in (*BOTH, *ONLY[front], *(NATIVE if scene.variant == "legacy" else ()))]
    for words in given:
        scene.run([front, "-A", "INPUT", *words], 0)
        scene.run([front, "-C", "INPUT", *words], 0)
    for packet in (p.udp(**to), p.tcp(**to), p.icmp(128 if to else 8, **to), p.tcp(flags=0x10, **to), *(p.other(kind, **to) for kind in (33, 50, 99, 108, 132)), p.udp(payload=b"", **to)):
        scene.send(packet)
    said = scene.run(f"{front} -vS INPUT", 0).out.decode()
    assert said.count(" -c 0 0") == len(given), said
    for command in ("-nvxL", "-L"):
        scene.run(f"{front} {command} INPUT", 0)
    saved = scene.run(f"{front}-save -t filter", 0)
    scene.run(f"{front}-restore", 0, stdin=saved.out)
    # What iptables before 1.8.11 does not save of these is lost by now.
    for words in given:
        scene.run([front, "-D", "INPUT", *words])
    scene.run(f"{front} -S", 0)


@pytest.mark.parametrize("front", ONLY)
def test_what_the_original_takes_for_its_opposite(carried, front):
    (original, there), (ours, here) = carried.places
    if ours.variant == "legacy":
        pytest.skip("iptables-legacy means what it says")
    for rule in NATIVE:
        words = [front, "-A", "INPUT", *shlex.split(rule)]
        assert carried.call(original, there, words).rc == 0, rule
        answer = carried.call(ours, here, words)
        assert answer.rc != 0 and b"means every packet" in answer.err, rule
    assert b"-A" not in carried.call(ours, here, [front, "-S"]).out


@pytest.mark.parametrize("front", ONLY)
def test_reversed_ranges_are_taken_with_a_warning(scene, front):
    ends = ("2001:db8::9-2001:0db8::1", SIX) if front == "ip6tables" else ("10.255.0.9-10.0.0.1", {})
    rules = [f"-m iprange {bang}--{side}-range {ends[0]}" for bang in ("", "! ") for side in ("src", "dst")]
    for rule in (*rules, f"-m iprange --dst-range {ends[0]} ! --src-range {ends[0]}"):
        answer = scene.run(f"{front} -A INPUT {rule}")
        assert answer.rc == 0 and b"is reversed and will never match" in answer.err
    scene.send(p.udp(**ends[1]))
    counted = [" -c 1 " in line for line in scene.run(f"{front} -vS INPUT", 0).out.decode().splitlines()[1:]]
    assert counted == [False, False, True, True, False]
    scene.run(f"{front}-restore", stdin=scene.run(f"{front}-save -t filter", 0).out)
