# $1: iptables or ip6tables; $2: ip or ip6. Rules are in ./legacy and ./native.
unshare -n sleep 300 >/dev/null 2>&1 &
peer=$!
trap 'kill $peer' EXIT
until [ "$(readlink /proc/$peer/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link set lo up
ip link add v0 address 02:00:00:00:00:01 type veth peer name v1 address 00:11:22:aa:bb:cc netns $peer
there() { nsenter -t $peer -n "$@"; }
ip addr add 10.9.0.1/24 dev v0
ip addr add fd09::1/64 dev v0 nodad
there ip addr add 10.9.0.2/24 dev v1
there ip addr add fd09::2/64 dev v1 nodad
ip link set v0 up
there ip link set lo up
there ip link set v1 up
ip addr add fe80::1/64 dev v0 nodad
sleep 1
$1-legacy -t raw -A PREROUTING -p udp -j MARK --set-mark 0x10
$1-legacy -t raw -A PREROUTING -p tcp -j MARK --set-mark 0x1
$1-legacy -t raw -A PREROUTING -p udp -m multiport --dports 53,443 -j NOTRACK
$1-legacy -t nat -A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 80
$1-legacy -t nat -A POSTROUTING -p udp --dport 5353 -j MASQUERADE --to-ports 1000-2000
# Neighbour discovery and multicast reports come when they like: one between the two, at either end, would be told
# as a difference.
$1-legacy -t raw -I PREROUTING -j DROP
$1-legacy-restore <legacy >&2 || echo "legacy rules not loaded" >&2
nft -f native >&2 || echo "native rules not loaded" >&2
$1-legacy -t raw -D PREROUTING -j DROP
there timeout 60 python3 send.py serve $2 >/dev/null &
for _ in {1..300}; do there ss -Hltn 'sport = :80' | grep -q . && break || sleep 0.1; done
python3 send.py connect $2
there python3 send.py send $2
sleep 0.3
$1-legacy -t raw -I PREROUTING -j DROP
$1-legacy-save -c -t mangle
echo @@native
nft list chain $2 test c
