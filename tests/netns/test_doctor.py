"""xtshim doctor: each cause is made for real, named with what was seen of it, and gone when it is mended; a host that has
nothing wrong is told so."""

import contextlib
import gzip
import json
import os
import shlex
import socket
import subprocess

import pytest

import harness
import packets
import rootless

WELL, WARNINGS, ERRORS = 0, 1, 2

NEEDED = """NET_NS PID_NS IPC_NS UTS_NS CGROUPS CGROUP_DEVICE SECCOMP_FILTER POSIX_MQUEUE VETH BRIDGE OVERLAY_FS BRIDGE_NETFILTER
IP_NF_FILTER IP_NF_NAT IP_NF_MANGLE IP_NF_RAW IP_NF_TARGET_MASQUERADE IP6_NF_FILTER IP6_NF_NAT IP6_NF_MANGLE IP6_NF_RAW
IP6_NF_TARGET_MASQUERADE NETFILTER_XTABLES NETFILTER_XT_MATCH_ADDRTYPE NETFILTER_XT_MATCH_CONNTRACK NETFILTER_XT_NAT
NF_TABLES NF_TABLES_IPV4 NF_TABLES_IPV6 NFT_COMPAT NFT_NAT NFT_CT NFT_FIB_IPV4 NFT_FIB_IPV6 NFT_MASQ""".split()
RELEASE = "6.1.0-29-amd64"
DAEMON_JSON = "etc/docker/daemon.json"
UNIT = "etc/systemd/system/docker.service.d/override.conf"

DOCKER_RULES = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
[0:0] -A FORWARD -j DOCKER-USER
[0:0] -A FORWARD -j DOCKER-FORWARD
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
[0:0] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
[0:0] -A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
[0:0] -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
COMMIT
"""


def kernel_config(*without, modules=()):
    state = lambda name: f"# CONFIG_{name} is not set" if name in without else f"CONFIG_{name}={'m' if name in modules else 'y'}"
    return gzip.compress("\n".join(map(state, NEEDED)).encode())


def healthy():
    """A host with Docker 28 over iptables-nft that has nothing wrong, as a file tree."""
    return {
        "proc/sys/kernel/osrelease": RELEASE,
        "proc/sys/kernel/modules_disabled": "0",
        "proc/sys/net/ipv4/ip_forward": "1",
        "proc/sys/net/bridge/bridge-nf-call-iptables": "1",
        "proc/config.gz": kernel_config(),
        f"lib/modules/{RELEASE}/modules.dep": "",
        "usr/sbin/iptables": "->/etc/alternatives/iptables",
        "etc/alternatives/iptables": "->/usr/sbin/iptables-nft",
        "usr/sbin/iptables-nft": "",
        "var/lib/dpkg/status": "Package: docker-ce\nStatus: install ok installed\nVersion: 5:28.5.2-1~debian.12~bookworm\n\n",
        "captured/dockerd_--version": "Docker version 28.5.2, build ecc6942\n",
        "captured/iptables_--version": "iptables v1.8.9 (nf_tables)\n",
        "captured/iptables-nft-save_-c": DOCKER_RULES,
        "captured/ip6tables-nft-save_-c": "",
        "captured/iptables-legacy-save_-c": "",
        "captured/ip6tables-legacy-save_-c": "",
        "captured/xtshim_iptables-save_-c": "",
        "captured/xtshim_ip6tables-save_-c": "",
        "captured/ip_-j_-d_addr_show": "[]",
    }


def process(pid, *args, **environment):
    """The files of a running process."""
    pairs = [f"{name}={value}" for name, value in environment.items()]
    return {f"proc/{pid}/cmdline": "\0".join(args) + "\0", f"proc/{pid}/environ": "\0".join(pairs) + "\0"}


def plant(root, files):
    """Writes `files`; what begins with `->` is a link, None is taken away."""
    for path, content in files.items():
        place = root / path
        with contextlib.suppress(FileNotFoundError):
            place.unlink()
        if content is None:
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
        elif content.startswith("->"):
            place.symlink_to(content[2:])
        else:
            place.write_text(content)


class Report:
    """What one call has said."""

    def __init__(self, result):
        assert result.err == b"", result.text()
        self.code, self.text = result.rc, result.out.decode()
        self.all = json.loads(result.out)
        self.names = {finding["name"] for finding in self.all["findings"]}

    def the(self, name):
        found = [finding for finding in self.all["findings"] if finding["name"] == name]
        assert found, f"{name} is not among {sorted(self.names)}\n{self.text}"
        assert all(finding["evidence"] and finding["why"] for finding in found)
        return found[0]

    def host(self, title):
        return [line for name, line in self.all["host"] if name == title]


def of_tree(program, root):
    return Report(harness.execute([program, "doctor", "--json", "--root", str(root)]))


# Name; what is changed of a healthy host; words of the evidence; what mending changes; exit code.
CASES = [
    ("kernel-not-rebooted", {f"lib/modules/{RELEASE}/modules.dep": None, "lib/modules/6.1.0-30-amd64/modules.dep": "", "DIRECTORY": f"lib/modules/{RELEASE}"}, ["6.1.0-29", "6.1.0-30"], {"proc/sys/kernel/osrelease": "6.1.0-30-amd64"}, ERRORS),
    ("kernel-not-built", {"proc/config.gz": kernel_config("IP_NF_RAW", "IP6_NF_RAW"), "captured/iptables_--version": "iptables v1.8.7 (legacy)\n", "etc/alternatives/iptables": "->/usr/sbin/iptables-legacy"}, ["legacy table raw (ip): not built into this kernel (CONFIG_IP_NF_RAW is not set)", "CONFIG_IP6_NF_RAW", "/proc/config.gz"], {"proc/config.gz": kernel_config()}, ERRORS),
    ("kernel-not-built", {"proc/config.gz": None, f"boot/config-{RELEASE}": gzip.decompress(kernel_config("NFT_COMPAT")).decode()}, ["CONFIG_NFT_COMPAT is not set", f"/boot/config-{RELEASE}"], {f"boot/config-{RELEASE}": gzip.decompress(kernel_config()).decode()}, ERRORS),
    ("kernel-module-absent", {"proc/config.gz": kernel_config(modules=["NETFILTER_XT_MATCH_ADDRTYPE"]), f"lib/modules/{RELEASE}/modules.dep": "kernel/nf_tables.ko:\n"}, ["match addrtype (ip, ip6): built as module xt_addrtype, which is not below"], {f"lib/modules/{RELEASE}/modules.dep": "kernel/xt_addrtype.ko:\n", f"lib/modules/{RELEASE}/kernel/xt_addrtype.ko": "x"}, ERRORS),
    # Of two modules one is on disk, and the other is what is missing.
    ("kernel-module-absent", {"proc/config.gz": kernel_config(modules=["NF_TABLES", "NFT_COMPAT"]), f"lib/modules/{RELEASE}/modules.dep": "kernel/nf_tables.ko:\nkernel/nft_chain_nat.ko:\n", f"lib/modules/{RELEASE}/kernel/nf_tables.ko": "x", f"lib/modules/{RELEASE}/kernel/nft_chain_nat.ko": "x"}, ["built as module nft_compat, which is not below"], {f"lib/modules/{RELEASE}/modules.dep": "kernel/nf_tables.ko:\nkernel/nft_chain_nat.ko:\nkernel/nft_compat.ko:\n", f"lib/modules/{RELEASE}/kernel/nft_compat.ko": "x"}, ERRORS),
    ("kernel-not-loaded", {"proc/config.gz": kernel_config(modules=["NETFILTER_XT_MATCH_ADDRTYPE"]), f"lib/modules/{RELEASE}/modules.dep": "kernel/xt_addrtype.ko:\n", f"lib/modules/{RELEASE}/kernel/xt_addrtype.ko": "x", "proc/sys/kernel/modules_disabled": "1"}, ["module xt_addrtype is on disk, but was not loaded"], {"proc/modules": "xt_addrtype 16384 0 - Live 0x0\n"}, ERRORS),
    ("kernel-docker-needs", {"proc/config.gz": kernel_config("OVERLAY_FS", "VETH")}, ["veth pairs: CONFIG_VETH is not set", "overlay filesystems: CONFIG_OVERLAY_FS is not set"], {"proc/config.gz": kernel_config()}, ERRORS),
    ("kernel-br-netfilter", {"proc/sys/net/bridge/bridge-nf-call-iptables": None, "proc/config.gz": kernel_config("BRIDGE_NETFILTER"), DAEMON_JSON: '{"icc": false}', "DIRECTORY": "proc/sys/net/bridge"}, ['"icc": false', "CONFIG_BRIDGE_NETFILTER is not set"], {"proc/sys/net/bridge/bridge-nf-call-iptables": "0"}, ERRORS),
    ("iptables-none", {"captured/probe.json": "NONE"}, ["no iptables in /usr/sbin"], {"captured/probe.json": None}, ERRORS),
    ("iptables-too-old", {"proc/config.gz": kernel_config("NFT_COMPAT"), "captured/iptables_--version": "iptables v1.8.7 (nf_tables)\n"}, ["iptables-nft is 1.8.7", "CONFIG_NFT_COMPAT is not set"], {"captured/iptables_--version": "iptables v1.8.8 (nf_tables)\n"}, ERRORS),
    ("xtshim-not-in-front", {"var/lib/dpkg/alternatives/iptables": "manual\n/usr/sbin/iptables\n\n/usr/local/sbin/iptables-xtshim\n30\n\n"}, ["/usr/local/sbin/iptables-xtshim is there", "leads to /usr/sbin/iptables-nft", "manual"], {"etc/alternatives/iptables": "->/usr/local/sbin/xtshim", "usr/local/sbin/xtshim": ""}, WARNINGS),
    ("nftables-flush", {"etc/systemd/system/sysinit.target.wants/nftables.service": "->/lib/systemd/system/nftables.service", "etc/nftables.conf": "#!/usr/sbin/nft -f\n\nflush ruleset\n"}, ["/etc/nftables.conf:3: flush ruleset", "sysinit.target.wants"], {"etc/systemd/system/nftables.service.d/docker.conf": "[Service]\nExecStartPost=-systemctl try-restart --no-block docker.service\n"}, WARNINGS),
    ("docker-raw-off", {UNIT: '[Service]\nEnvironment="DOCKER_INSECURE_NO_IPTABLES_RAW=1"\n'}, [f"/{UNIT}", "DOCKER_INSECURE_NO_IPTABLES_RAW=1"], {UNIT: "[Service]\n"}, ERRORS),
    ("docker-raw-off", process(812, "/usr/bin/dockerd", "-H", "fd://", DOCKER_INSECURE_NO_IPTABLES_RAW="1"), ["dockerd[812] runs with DOCKER_INSECURE_NO_IPTABLES_RAW=1", "no unit file of docker.service sets it"], process(812, "/usr/bin/dockerd"), ERRORS),
    ("docker-raw-off-idle", process(812, "/usr/bin/dockerd", DOCKER_INSECURE_NO_IPTABLES_RAW="true"), ["runs with DOCKER_INSECURE_NO_IPTABLES_RAW=true", "exactly 1"], process(812, "/usr/bin/dockerd"), WARNINGS),
    ("docker-raw-off-idle", {**process(812, "/usr/bin/dockerd"), "etc/environment": "DOCKER_INSECURE_NO_IPTABLES_RAW=1\n"}, ["/etc/environment:1: DOCKER_INSECURE_NO_IPTABLES_RAW=1", "does not have it"], {"etc/environment": "\n"}, WARNINGS),
    ("docker-raw-myth", {UNIT: "[Service]\nEnvironment=DOCKER_RAW_DISABLE=1\n"}, ["DOCKER_RAW_DISABLE=1"], {UNIT: None}, WARNINGS),
    ("docker-raw-myth", {DAEMON_JSON: '{"iptables-raw": false}'}, ['/etc/docker/daemon.json: "iptables-raw": false'], {DAEMON_JSON: "{}"}, WARNINGS),
    ("docker-raw-myth", process(812, "/usr/bin/dockerd", "--iptables-raw=false"), ["dockerd[812] runs with --iptables-raw=false"], process(812, "/usr/bin/dockerd"), WARNINGS),
    ("selinux-denied", {"sys/fs/selinux/enforce": "1", "var/log/audit/audit.log": 'type=AVC msg=audit(1.5:7): avc:  denied  { create } for  pid=8 comm="iptables" scontext=system_u:system_r:iptables_t:s0 tclass=user_namespace permissive=0\ntype=SYSCALL msg=audit(1.5:7): arch=c000003e syscall=272 success=no exit=-13 comm="iptables" exe="/usr/sbin/xtshim"\n'}, ["{ create }", "tclass=user_namespace", "SELinux is enforcing"], {"var/log/audit/audit.log": 'type=AVC msg=audit(1.5:9): avc:  denied  { read } for  pid=9 comm="nginx" tclass=file permissive=0\n'}, WARNINGS),
    ("docker-iptables-off", {DAEMON_JSON: '{"iptables": false}'}, ['"iptables": false'], {DAEMON_JSON: "{}"}, WARNINGS),
    ("docker-firewall-backend-unknown", {DAEMON_JSON: '{"firewall-backend": "iptables"}'}, ['"firewall-backend"', "28.5.2"], {"captured/dockerd_--version": "Docker version 29.1.0, build x\n"}, ERRORS),
    ("docker-proxy-absent", {"usr/bin/dockerd": "", DAEMON_JSON: '{"userland-proxy": true}'}, ["/usr/bin/dockerd is there", "no docker-proxy in /usr/bin"], {"usr/bin/docker-proxy": ""}, WARNINGS),
    ("docker-direct-access-open", {"captured/iptables-nft-save_-c": DOCKER_RULES.replace("-A PREROUTING -d 172.17.0.2", "-A PREROUTING -d 172.17.0.3")}, ["172.17.0.2:80", "no rule of raw"], {"captured/xtshim_iptables-save_-c": "*raw\n:PREROUTING ACCEPT [0:0]\n[0:0] -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP\nCOMMIT\n", "captured/iptables-nft-save_-c": DOCKER_RULES.split("*raw")[0]}, ERRORS),
    ("docker-forwarding-off", {"proc/sys/net/ipv4/ip_forward": "0"}, ["/proc/sys/net/ipv4/ip_forward: 0"], {"proc/sys/net/ipv4/ip_forward": "1"}, ERRORS),
    ("docker-held", {"var/lib/dpkg/status": "Package: docker-ce\nStatus: hold ok installed\nVersion: 5:27.5.1-1\n\n", "captured/dockerd_--version": "Docker version 27.5.1, build 9f9e405\n"}, ["docker-ce is held", "27.5.1"], {"captured/dockerd_--version": "Docker version 28.5.2, build x\n", "var/lib/dpkg/status": "Package: docker-ce\nStatus: install ok installed\nVersion: 5:28.5.2-1\n\n"}, WARNINGS),
    ("docker-held", {"var/log/apt/history.log": "Start-Date: 2026-01-01\nDowngrade: docker-ce:amd64 (5:28.0.0-1, 5:27.5.1-1)\n", "captured/dockerd_--version": "Docker version 27.5.1, build 9f9e405\n"}, ["history.log:2: Downgrade: docker-ce:amd64"], {"captured/dockerd_--version": "Docker version 28.5.2, build x\n"}, WARNINGS),
    ("firewalld", {**process(99, "/usr/bin/python3", "-s", "/usr/sbin/firewalld", "--nofork"), "etc/firewalld/zones/docker.xml": "<zone/>"}, ["process 99", "docker.xml is there"], {"proc/99/cmdline": None}, WELL),
    ("firewalld-no-zone", process(99, "/usr/bin/python3", "-s", "/usr/sbin/firewalld", "--nofork"), ["neither /etc/firewalld/zones/docker.xml"], {"etc/firewalld/zones/docker.xml": "<zone/>"}, WARNINGS),
    ("firewalld-passes-by", {**process(99, "/usr/bin/python3", "/usr/sbin/firewalld"), "etc/firewalld/zones/docker.xml": "<zone/>", "usr/local/sbin/iptables": "->xtshim", "usr/local/sbin/xtshim": ""}, ["/usr/sbin/iptables leads to /usr/sbin/iptables-nft"], {"etc/alternatives/iptables": "->/usr/local/sbin/xtshim"}, WARNINGS),
    ("rootless-pasta-loopback", {**process(50, "/usr/bin/rootlesskit", "--net=pasta", "--port-driver=implicit"), **process(51, "pasta", "--stderr", "--ns-ifname=tap0"), "captured/rootlesskit_--version": "rootlesskit version 2.0.2\n", "captured/pasta_--version": "pasta 0.0~git20250503.587980c-2\n"}, ["2.0.2 is older than 2.3.2", "pasta[51] runs without --host-lo-to-ns-lo", "2025_05_03"], {"captured/rootlesskit_--version": "rootlesskit version 2.3.2\n", **process(51, "pasta", "--stderr", "--host-lo-to-ns-lo")}, WARNINGS),
    ("rootless-pasta-loopback", {**process(50, "/usr/bin/rootlesskit", "--net", "pasta"), "captured/rootlesskit_--version": "rootlesskit version 2.3.4\n", "captured/pasta_--version": "", "var/lib/dpkg/status": "Package: passt\nStatus: install ok installed\nVersion: 0.0~git20231204.b86afe3-1\n\n"}, ["2023_12_04 is too old"], process(50, "/usr/bin/rootlesskit", "--net=slirp4netns", "--port-driver=builtin"), WARNINGS),
    ("rootless-modules", {**process(50, "/usr/bin/rootlesskit", "--net=slirp4netns"), "captured/iptables_--version": "iptables v1.8.9 (legacy)\n", "etc/alternatives/iptables": "->/usr/sbin/iptables-legacy", f"lib/modules/{RELEASE}/modules.dep": "kernel/iptable_raw.ko:\n", f"lib/modules/{RELEASE}/kernel/iptable_raw.ko": "x"}, ["iptable_raw", "process 50"], {"proc/modules": "iptable_raw 16384 0 - Live 0x0\n"}, WARNINGS),
    ("rootless-not-in-front", {**process(50, "/usr/bin/rootlesskit", "--net=slirp4netns"), **process(60, "dockerd", PATH="/home/u/bin:/usr/sbin"), "usr/local/sbin/iptables-xtshim": "", "usr/local/sbin/xtshim": ""}, ["/usr/sbin/iptables leads to /usr/sbin/iptables-nft"], {"etc/alternatives/iptables": "->/usr/local/sbin/xtshim"}, WARNINGS),
    ("nftables-swarm", {DAEMON_JSON: '{"firewall-backend": "nftables"}', "captured/dockerd_--version": "Docker version 29.1.0, build x\n", "captured/iptables-nft-save_-c": "", "var/lib/docker/swarm/docker-state.json": "{}"}, ['"firewall-backend": "nftables"', "docker-state.json"], {"var/lib/docker/swarm/docker-state.json": None}, ERRORS),
    ("nftables-docker-user", {DAEMON_JSON: '{"firewall-backend": "nftables"}', "captured/dockerd_--version": "Docker version 29.1.0, build x\n", "captured/iptables-nft-save_-c": "*filter\n:FORWARD ACCEPT [0:0]\n:DOCKER-USER - [0:0]\n[0:0] -A FORWARD -j DOCKER-USER\n[0:0] -A DOCKER-USER -s 10.0.0.0/8 -j DROP\nCOMMIT\n"}, ["-A DOCKER-USER -s 10.0.0.0/8 -j DROP"], {"captured/iptables-nft-save_-c": ""}, WARNINGS),
    ("docker-forward-drop", {DAEMON_JSON: '{"firewall-backend": "nftables"}', "captured/dockerd_--version": "Docker version 29.1.0, build x\n", "captured/iptables-nft-save_-c": "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"}, ["iptables-nft -P FORWARD DROP"], {"captured/iptables-nft-save_-c": "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"}, WARNINGS),
]

NO_BACKENDS = {"kernel": {"release": RELEASE, "version": "", "machine": "", "config": None}, "backends": [], "chosen_because": None, "tables": [], "capabilities": [], "tried": True, "took_ms": 1}


@pytest.mark.parametrize("name, cause, words, mended, code", CASES, ids=[f"{number}-{case[0]}" for number, case in enumerate(CASES)])
def test_a_cause_in_a_file_tree(program, tmp_path, name, cause, words, mended, code):
    cause = {path: json.dumps(NO_BACKENDS) if content == "NONE" else content for path, content in cause.items()}
    empty = cause.pop("DIRECTORY", None)
    plant(tmp_path, healthy())
    plant(tmp_path, cause)
    if empty:
        (tmp_path / empty).rmdir()
    report = of_tree(program, tmp_path)
    evidence = "\n".join(line for finding in report.all["findings"] if finding["name"] == name for line in finding["evidence"])
    report.the(name)
    assert report.code == code, report.text
    for word in words:
        assert word in evidence, report.text
    plant(tmp_path, mended)
    assert name not in of_tree(program, tmp_path).names


def test_a_healthy_tree_has_no_finding(program, tmp_path):
    plant(tmp_path, healthy())
    report = of_tree(program, tmp_path)
    assert (report.code, report.names, report.all["unchecked"]) == (WELL, set(), []), report.text
    assert report.host("direct access") == ["filtered by the backend's raw table"]


def test_what_ours_has_only_passed_on_stands_beside_nothing(program, tmp_path):
    plant(tmp_path, healthy())
    plant(tmp_path, {"captured/xtshim_iptables-save_-c": DOCKER_RULES.replace("[0:0] -A", "[3:180] -A")})
    assert of_tree(program, tmp_path).names == set()
    plant(tmp_path, {"captured/xtshim_iptables-save_-c": DOCKER_RULES.replace("172.17.0.2/32", "172.17.0.9/32")})
    assert of_tree(program, tmp_path).names == {"beside-carried"}


def test_a_bridge_with_an_address_and_a_network_without_protection_are_no_finding(program, tmp_path):
    """A host with virtual machines on its own bridge: conntrack must go on seeing what comes by that one."""
    link = lambda name, **more: {"ifname": name, "addr_info": [], **more}
    address = lambda text: [{"family": "inet", "local": text, "scope": "global"}]
    links = [link("br0", linkinfo={"info_kind": "bridge"}, addr_info=address("192.0.2.1")), link("eth0", master="br0"), link("tap0", master="br0"), link("virbr0", linkinfo={"info_kind": "bridge"}, addr_info=address("192.168.122.1"))]
    plant(tmp_path, healthy())
    plant(tmp_path, {"captured/ip_-j_-d_addr_show": json.dumps(links)})
    assert of_tree(program, tmp_path).names == set()
    links[0]["addr_info"] = []
    plant(tmp_path, {"captured/ip_-j_-d_addr_show": json.dumps(links)})
    assert of_tree(program, tmp_path).names == {"bridge-clash"}
    plant(tmp_path, healthy())
    open_network = DOCKER_RULES.split("*raw")[0].replace("COMMIT\n*nat", "[0:0] -A DOCKER ! -i docker0 -o docker0 -j ACCEPT\nCOMMIT\n*nat")
    plant(tmp_path, {"captured/iptables-nft-save_-c": open_network})
    assert of_tree(program, tmp_path).names == set()


def test_what_a_tree_lacks_is_said(program, tmp_path):
    report = of_tree(program, tmp_path)
    assert report.names == set()
    missing = {one["what"] for one in report.all["unchecked"]}
    assert {"the kernel", "rules of iptables-nft", "rules carried for iptables"} <= missing


def test_a_lack_that_is_carried_is_a_note(program, tmp_path):
    plant(tmp_path, healthy())
    plant(tmp_path, {"proc/config.gz": kernel_config("IP_NF_RAW", "IP6_NF_RAW"), "captured/iptables_--version": "iptables v1.8.7 (legacy)\n", "etc/alternatives/iptables": "->/usr/local/sbin/xtshim", "usr/local/sbin/xtshim": ""})
    report = of_tree(program, tmp_path)
    finding = report.the("kernel-not-built")
    assert (report.code, finding["severity"], finding["mend"]) == (WELL, "note", []), report.text


def test_the_page_for_a_person_has_no_colour_in_a_pipe(program, tmp_path):
    plant(tmp_path, healthy())
    plant(tmp_path, {"proc/sys/net/ipv4/ip_forward": "0"})
    result = harness.execute([program, "doctor", "--root", str(tmp_path)])
    text = result.out.decode()
    assert result.rc == ERRORS and "\x1b" not in text
    assert "error docker-forwarding-off: " in text and "  do    sysctl -w net.ipv4.ip_forward=1" in text, text
    assert text.endswith("\n1 error, 0 warnings.\n")


def test_a_wrong_name_or_folder_is_refused(program, tmp_path):
    for words in (["--fix", "no-such"], ["--root", str(tmp_path / "none")], ["--root", str(tmp_path), "--fix", "bridge-clash"]):
        result = harness.execute([program, "doctor", *words])
        assert result.rc != 0 and result.err, words


class Live:
    """The doctor on this host, in a network namespace of its own and with no process but those that are given to it."""

    def __init__(self, subject, tmp_path):
        self.subject, self.host = subject, harness.Netns()
        self.made = [self.host]
        self.env = {"XTSHIM_CONFIG": subject.config, "XTABLES_LOCKFILE": str(tmp_path / "xtables.lock"), "PATH": f"{subject.directory}:{harness.BASE_ENVIRONMENT['PATH']}"}
        self.host.sh("sysctl -qw net.ipv4.ip_forward=1")
        self.companions = ""

    def close(self):
        for place in self.made:
            place.close()

    def another(self):
        self.made.append(harness.Netns())
        return self.made[-1]

    def beside(self, *args, **environment):
        """A process that the doctor sees, by its arguments and environment; it only sleeps."""
        pairs = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        name, *rest = args
        # bash keeps the name it is given, and all that follows it, in its arguments.
        script = shlex.quote("read -t 30 <> <(:); :")
        self.companions += f"env -i {pairs} /bin/bash -c {shlex.quote(f'exec -a {shlex.quote(name)} /bin/bash -c {script} {shlex.join(rest)}')} & "

    def run(self, *words):
        program = os.path.join(self.subject.directory, "xtshim")
        # This machine has no dockerd: there is one that says its version.
        place = "mount -t tmpfs tmpfs /usr/local/bin; printf '#!/bin/sh\\necho Docker version 28.5.2, build x\\n' >/usr/local/bin/dockerd; chmod +x /usr/local/bin/dockerd"
        wait = "sleep 0.2;" if self.companions else ""
        command = f"{place}; {self.companions} {wait} {shlex.join([program, 'doctor', *words])}; code=$?; kill $(jobs -p) 2>/dev/null; exit $code"
        with self.host.entered():
            return harness.execute(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/bash", "-c", command], env=self.env)

    def report(self):
        return Report(self.run("--json"))

    def front(self, command, check=True):
        """A command by way of ours, as Docker gives it."""
        words = shlex.split(command)
        with self.host.entered():
            result = harness.execute([self.subject.path(words[0]), *words[1:]], env=self.env)
        assert not check or result.rc == 0, f"{command}\n{result.text()}"
        return result

    def mend(self, finding):
        """Does what it says is to be done, with ours in front."""
        for line in finding["mend"]:
            with self.host.entered():
                result = harness.execute(["/bin/sh", "-c", line], env=self.env)
            assert result.rc == 0, f"{line}\n{result.text()}"


@pytest.fixture
def live(ours, tmp_path):
    """Over each backend, raw carried."""
    made = Live(ours, tmp_path)
    yield made
    made.close()


@pytest.fixture
def plain(variant, shim, tmp_path):
    """Over each backend, nothing carried."""
    made = Live(shim(variant, ()), tmp_path)
    yield made
    made.close()


def docker(live, address="172.17.0.2"):
    """Docker's rules for one published container."""
    for command in (
        "iptables -N DOCKER-USER", "iptables -N DOCKER-FORWARD", "iptables -I FORWARD -j DOCKER-USER", "iptables -A FORWARD -j DOCKER-FORWARD",
        "iptables -t nat -N DOCKER", "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        f"iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 80 -j DNAT --to-destination {address}:80",
        f"iptables -t nat -A POSTROUTING -s {address}/16 ! -o docker0 -j MASQUERADE",
        f"iptables -t raw -A PREROUTING -d {address} ! -i docker0 -j DROP",
    ):
        live.front(command)


def test_a_clean_host_has_no_finding(plain):
    report = plain.report()
    assert (report.code, report.names) == (WELL, set()), report.text
    docker(plain)
    report = plain.report()
    assert (report.code, report.names) == (WELL, set()), report.text
    assert report.host("direct access") == ["filtered by the backend's raw table"]


def test_a_clean_host_where_raw_is_carried_has_no_finding(live):
    docker(live)
    report = live.report()
    assert (report.code, report.names) == (WELL, set()), report.text
    assert report.host("direct access") == ["filtered by rules that xtshim carries"]


def test_both_backends_hold_rules(plain):
    docker(plain)
    other = "legacy" if plain.subject.variant == "nft" else "nft"
    plain.host.sh(f"iptables-{other} -A INPUT -s 192.0.2.1 -j DROP")
    plain.host.sh(f"iptables-{other} -P FORWARD DROP")
    finding = plain.report().the("iptables-both")
    assert f"iptables-{other} -t filter -A INPUT -s 192.0.2.1/32 -j DROP" in finding["evidence"]
    plain.mend(finding)
    assert "iptables-both" not in plain.report().names
    assert "DROP" not in plain.host.sh(f"iptables-{other}-save")


def test_a_backend_is_called_behind_what_is_carried(live):
    docker(live)
    live.host.sh(f"iptables-{live.subject.variant} -t raw -A PREROUTING -s 192.0.2.7 -j DROP")
    finding = live.report().the("beside-carried")
    assert any("192.0.2.7" in line for line in finding["evidence"])
    live.mend(finding)
    assert "beside-carried" not in live.report().names
    listed = live.front("iptables -t raw -S PREROUTING").out.decode().splitlines()
    assert listed[1:] == ["-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP", "-A PREROUTING -s 192.0.2.7/32 -j DROP"]


def test_the_jump_to_raw_in_mangle_is_gone(variant, shim, tmp_path):
    live = Live(shim(variant, ("raw",), "mangle"), tmp_path)
    try:
        docker(live)
        report = live.report()
        assert report.names == set() and "mangle" in report.host("direct access")[0], report.text
        live.host.sh(f"iptables-{variant} -t mangle -I PREROUTING -j ACCEPT")
        finding = live.report().the("hosted-jump-gone")
        live.mend(finding)
        assert "hosted-jump-gone" not in live.report().names
    finally:
        live.close()


def test_a_ruleset_that_was_saved_and_loaded_again_is_not_readable(live):
    docker(live)
    saved = live.host.sh("nft list ruleset ip") if live.subject.variant == "nft" else live.host.sh("nft list table ip xtshim-raw")
    live.host.sh("nft delete table ip xtshim-raw")
    with live.host.entered():
        table = saved[saved.index("table ip xtshim-raw"):]
        subprocess.run(["nft", "-f", "-"], input=table[: table.index("\n}\n") + 3], text=True, check=True)
    finding = live.report().the("carried-unreadable")
    assert "xtshim-raw" in finding["evidence"][0]
    live.host.sh("nft delete table ip xtshim-raw")
    assert "carried-unreadable" not in live.report().names


def test_a_flush_opens_containers(live):
    docker(live)
    live.host.sh("nft flush ruleset")
    if live.subject.variant == "nft":
        for command in ("iptables -t nat -N DOCKER", "iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80"):
            live.front(command)
    report = live.report()
    assert report.code == ERRORS and "172.17.0.2" in report.the("docker-direct-access-open")["evidence"][-1]
    live.front("iptables -t raw -A PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP")
    assert "docker-direct-access-open" not in live.report().names


def test_docker_has_left_a_policy_behind(plain):
    plain.front("iptables -N DOCKER-USER")
    plain.front("iptables -P FORWARD DROP")
    report = plain.report()
    plain.mend(report.the("docker-forward-drop"))
    report = plain.report()
    assert "docker-forward-drop" not in report.names and "-P FORWARD ACCEPT" in plain.front("iptables -S FORWARD").out.decode()


def test_forwarding_was_turned_off(plain):
    docker(plain)
    plain.host.sh("sysctl -qw net.ipv4.ip_forward=0")
    finding = plain.report().the("docker-forwarding-off")
    plain.mend({"mend": finding["mend"][:1]})
    assert "docker-forwarding-off" not in plain.report().names


def test_the_daemons_environment_is_read(plain):
    docker(plain)
    plain.beside("dockerd", "-H", "fd://", PATH="/usr/sbin:/usr/bin", DOCKER_INSECURE_NO_IPTABLES_RAW="1", DOCKER_RAW_DISABLE="1")
    report = plain.report()
    assert any("runs with DOCKER_INSECURE_NO_IPTABLES_RAW=1" in line for line in report.the("docker-raw-off")["evidence"])
    assert any("DOCKER_RAW_DISABLE=1" in line for line in report.the("docker-raw-myth")["evidence"])
    plain.companions = ""
    plain.beside("dockerd", "-H", "fd://", PATH="/usr/sbin:/usr/bin")
    assert not plain.report().names & {"docker-raw-off", "docker-raw-myth"}


class Bridged:
    """A client on one bridge of the host's, a router between that and a second one, which has the host's address; and a
    container, published there."""

    def __init__(self, live):
        self.live, host = live, live.host
        self.client, self.router, self.container = live.another(), live.another(), live.another()
        for bridge in ("br-lan", "br-dmz", "docker0"):
            host.sh(f"ip link add {bridge} type bridge")
            host.sh(f"ip link set {bridge} up")
        self.plug("br-lan", self.client, "eth0", "10.1.0.2/24")
        self.plug("br-lan", self.router, "lan", "10.1.0.254/24")
        self.plug("br-dmz", self.router, "dmz", "10.2.0.254/24")
        self.plug("docker0", self.container, "eth0", "172.17.0.2/16")
        host.sh("ip addr add 10.2.0.1/24 dev br-dmz")
        host.sh("ip addr add 172.17.0.1/16 dev docker0")
        host.sh("ip route add default via 10.2.0.254")
        self.client.sh("ip route add default via 10.1.0.254")
        self.container.sh("ip route add default via 172.17.0.1")
        self.router.sh("sysctl -qw net.ipv4.ip_forward=1")
        host.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.br-lan.rp_filter=0")
        docker(live)

    def plug(self, bridge, place, name, address):
        port = f"{bridge[:6]}{name}"
        self.live.host.sh(f"ip link add {port} type veth peer name {name} netns {place.path}")
        self.live.host.sh(f"ip link set {port} master {bridge} up")
        place.sh(f"ip addr add {address} dev {name}")
        place.sh(f"ip link set {name} up")

    def fetch(self):
        """What becomes of a call from the client: `unreachable`, `reset`, or what the container has answered."""
        with self.container.entered():
            server = socket.socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("172.17.0.2", 80))
            server.listen(8)
        with self.client.entered():
            client = socket.socket()
        with server, client:
            client.settimeout(1.5)
            server.settimeout(1.5)
            try:
                client.connect(("10.2.0.1", 80))
            except TimeoutError:
                return "unreachable"
            try:
                client.sendall(b"question\n")
                far, _ = server.accept()
                with far:
                    far.settimeout(1.5)
                    assert far.recv(100) == b"question\n"
                    far.sendall(b"answer\n")
                    return client.recv(100).decode().strip()
            except ConnectionResetError:
                return "reset"


@pytest.fixture(params=["backend", "carried"])
def bridged(request, variant, shim, tmp_path):
    subject = shim(variant, ("raw",) if request.param == "carried" else ())
    live = Live(subject, tmp_path)
    yield Bridged(live)
    live.close()


def test_connections_through_two_bridges_are_reset(bridged):
    live = bridged.live
    assert bridged.fetch() == "reset"
    report = live.report()
    finding = report.the("bridge-clash")
    evidence = "\n".join(finding["evidence"])
    for word in ("bridge-nf-call-iptables: 1", "bridge br-lan joins br-laneth0, br-lanlan, and has no address", "bridge br-dmz has the host's address 10.2.0.1", "--dst-type LOCAL -j DOCKER", "ended by a reset, such as 10.1.0.2:"):
        assert word in evidence, report.text
    assert finding["mend"] == ["iptables -t raw -I PREROUTING -i br-lan -j NOTRACK"]
    live.mend(finding)
    assert bridged.fetch() == "answer"
    report = live.report()
    assert (report.code, report.names) == (WELL, set()), report.text
    live.front("iptables -t raw -D PREROUTING -i br-lan -j NOTRACK")
    assert bridged.fetch() == "reset"
    assert "bridge-clash" in live.report().names


def test_the_reverse_path_filter_of_a_bridge_without_address(bridged):
    live = bridged.live
    live.host.sh("sysctl -qw net.ipv4.conf.br-lan.rp_filter=1")
    assert bridged.fetch() == "unreachable"
    finding = live.report().the("bridge-rp-filter")
    assert "/proc/sys/net/ipv4/conf/br-lan/rp_filter: 1" in finding["evidence"]
    result = live.run("--fix", "bridge-rp-filter")
    text = result.out.decode()
    assert result.rc == 0 and "does   iptables -t raw -I PREROUTING -i br-lan -j NOTRACK" in text and "undo   iptables -t raw -D" in text, result.text()
    assert bridged.fetch() == "answer"
    assert "bridge-rp-filter" not in live.report().names
    assert b"not found here" in live.run("--fix", "bridge-rp-filter").out


@pytest.mark.parametrize("network, driver", [("pasta", "implicit"), ("slirp4netns", "builtin")])
def test_rootless_networks_for_real(program, network, driver):
    """A port of 127.0.0.1 alone, as Docker publishes it: pasta resets it, and is named; slirp4netns answers, and nothing is
    wrong. rootlesskit, pasta and slirp4netns are Debian 13's."""
    out = rootless.run(program, network, driver)
    heard = dict(line.split(" ", 1) for line in out.splitlines() if line.startswith("port-"))
    report = json.loads(out[out.index("{"):])
    names = {finding["name"]: finding for finding in report["findings"]}
    assert heard["port-everywhere"] == "hello", out
    told = [line for title, line in report["host"] if title == "rootless"]
    assert told == [f"rootlesskit version 2.0.2; network {network}, ports by {driver}"], out
    if network == "pasta":
        assert heard["port-loopback"] == "reset", out
        evidence = "\n".join(names["rootless-pasta-loopback"]["evidence"])
        assert "2.0.2 is older than 2.3.2" in evidence and "runs without --host-lo-to-ns-lo" in evidence, out
    else:
        assert heard["port-loopback"] == "hello" and "rootless-pasta-loopback" not in names, out


def test_isolation_drops_between_two_networks(plain):
    host, one, two, router = plain.host, plain.another(), plain.another(), plain.another()
    plugged = Bridged.__new__(Bridged)
    plugged.live = plain
    for bridge in ("br-one", "br-two"):
        host.sh(f"ip link add {bridge} type bridge")
        host.sh(f"ip link set {bridge} up")
    plugged.plug("br-one", one, "eth0", "10.1.0.2/24")
    plugged.plug("br-two", two, "eth1", "10.2.0.2/24")
    host.sh("ip addr add 10.1.0.1/24 dev br-one")
    host.sh("ip addr add 10.2.0.1/24 dev br-two")
    one.sh("ip route add default via 10.1.0.1")
    two.sh("ip route add default via 10.2.0.1")
    host.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=1")
    docker(plain)
    for command in ("-N DOCKER-ISOLATION-STAGE-1", "-N DOCKER-ISOLATION-STAGE-2", "-I DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1", "-A DOCKER-ISOLATION-STAGE-1 -i br-one ! -o br-one -j DOCKER-ISOLATION-STAGE-2", "-A DOCKER-ISOLATION-STAGE-2 -o br-two -j DROP"):
        plain.front(f"iptables {command}")
    with two.entered():
        server = packets.listener(4, 80)

    def reaches():
        with one.entered():
            return packets.connects("10.2.0.2", 80)

    assert "bridge-isolation" not in plain.report().names
    assert not reaches()
    finding = plain.report().the("bridge-isolation")
    assert "-o br-two -j DROP has dropped" in finding["evidence"][-1]
    plain.mend(finding)
    with server:
        assert reaches()
    assert "bridge-isolation" not in plain.report().names
