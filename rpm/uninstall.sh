#!/bin/sh
# Takes away what install.sh put below PREFIX (/usr/local), after switching it off. With --purge, configuration and
# journal too.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
case $here in
*/lib/xtshim) PREFIX=${PREFIX:-${here%/lib/xtshim}} ;;
*) PREFIX=${PREFIX:-/usr/local} ;;
esac
if [ "$(id -u)" != 0 ]; then
	echo "uninstall.sh: that takes root: sudo ./uninstall.sh" >&2
	exit 1
fi
if [ ! -x "$PREFIX/sbin/xtshim" ] || ! "$PREFIX/sbin/xtshim" disable --for-removal; then
	for file in "$here/share/step-aside.sh" "$here/step-aside.sh" "$PREFIX/lib/xtshim/step-aside.sh"; do
		if [ -e "$file" ]; then
			# shellcheck source=/dev/null
			. "$file"
			step_aside "$PREFIX/sbin"
			break
		fi
	done
fi
if [ -e /etc/systemd/system/xtshim-probe.service ]; then
	if [ -d /run/systemd/system ]; then
		systemctl disable --now xtshim-probe.service || true
	fi
	rm -f /etc/systemd/system/xtshim-probe.service
fi
for family in iptables ip6tables; do
	for tool in '' -save -restore; do
		rm -f "$PREFIX/sbin/$family-xtshim$tool" "$PREFIX/share/man/man8/$family-xtshim$tool.8"
	done
done
rm -f "$PREFIX/sbin/xtshim" "$PREFIX/share/man/man8/xtshim.8" "$PREFIX/share/man/man5/xtshim.toml.5" \
	"$PREFIX/share/bash-completion/completions/xtshim" "$PREFIX/share/fish/vendor_completions.d/xtshim.fish" \
	"$PREFIX/share/zsh/site-functions/_xtshim" "$PREFIX/share/zsh/vendor-completions/_xtshim" \
	/usr/lib/tmpfiles.d/xtshim.conf /etc/logrotate.d/xtshim
rm -rf "$PREFIX/lib/xtshim" /run/xtshim
rmdir /var/lib/xtshim 2>/dev/null || true
if [ "${1:-}" = --purge ]; then
	rm -rf /etc/xtshim /var/log/xtshim /var/lib/xtshim
fi
for folder in bash-completion/completions bash-completion fish/vendor_completions.d fish zsh/site-functions zsh man/man5 \
	man/man8 man; do
	rmdir "$PREFIX/share/$folder" 2>/dev/null || true
done
echo "xtshim is removed. Restart Docker."
