#!/bin/sh
# Installs xtshim below PREFIX (/usr/local), or brings it up to date. Nothing is switched on by it: `xtshim enable` does.
set -eu
PREFIX=${PREFIX:-/usr/local}
here=$(cd "$(dirname "$0")" && pwd)
if [ "$(id -u)" != 0 ]; then
	echo "install.sh: that takes root: sudo ./install.sh" >&2
	exit 1
fi
case $PREFIX in
/*) ;;
*)
	echo "install.sh: PREFIX has to be an absolute path" >&2
	exit 2
	;;
esac
if ! "$here/xtshim" --version >/dev/null 2>&1; then
	echo "install.sh: this program is not for this machine ($(uname -m)): take another tarball" >&2
	exit 1
fi
# Without systemd there is nothing that would start the unit.
unit=--without-unit
if [ -d /run/systemd/system ]; then
	unit=
fi
# shellcheck disable=SC2086
"$here/share/stage.sh" $unit "$here/xtshim" "" "$PREFIX"
cp "$here/uninstall.sh" "$PREFIX/lib/xtshim/uninstall.sh"
cp "$here/share/step-aside.sh" "$PREFIX/lib/xtshim/step-aside.sh"
if [ -z "$unit" ]; then
	{ systemctl daemon-reload && systemctl enable xtshim-probe.service; } || true
fi
echo "$("$PREFIX/sbin/xtshim" --version) is in $PREFIX/sbin."
if [ -e /var/lib/xtshim/previous ] || [ -e /etc/systemd/system/docker.service.d/xtshim.conf ]; then
	exit 0
fi
echo "Next: sudo $PREFIX/sbin/xtshim enable, or enable --scope docker; then restart Docker."
