#!/bin/sh
# Lays the files out: stage.sh [--without-unit] PROGRAM ROOT PREFIX [FOLDER-OF-PROGRAMS]
#
# For the packages and for install.sh, so that there is one list of what belongs where. Files are put in place at once:
# something may be calling iptables meanwhile.
set -eu
unit=yes
if [ "$1" = --without-unit ]; then
	unit=
	shift
fi
program=$1 root=$2 prefix=$3 sbin=${4:-$3/sbin}
here=$(cd "$(dirname "$0")" && pwd)
man=$here/man completions=$here/completions
if [ ! -d "$man" ]; then
	man=$here/../../docs/man completions=$here/../../docs/completions
fi

put() { # mode from to
	mkdir -p "$root$(dirname "$3")"
	cp "$2" "$root$3.new"
	chmod "$1" "$root$3.new"
	mv -f "$root$3.new" "$root$3"
}

link() { # to name
	mkdir -p "$root$(dirname "$2")"
	ln -sf "$1" "$root$2"
}

put 755 "$program" "$sbin/xtshim"
up=$(printf '%s' "$sbin" | sed "s|^$prefix/||")
for family in iptables ip6tables; do
	for tool in '' -save -restore; do
		link xtshim "$sbin/$family-xtshim$tool"
		link "../../../$up/xtshim" "$prefix/lib/xtshim/bin/$family$tool"
	done
done

share=$prefix/share
put 644 "$man/xtshim.8" "$share/man/man8/xtshim.8"
put 644 "$man/iptables-xtshim.8" "$share/man/man8/iptables-xtshim.8"
put 644 "$man/xtshim.toml.5" "$share/man/man5/xtshim.toml.5"
for name in iptables-xtshim-save iptables-xtshim-restore ip6tables-xtshim ip6tables-xtshim-save ip6tables-xtshim-restore; do
	link iptables-xtshim.8 "$share/man/man8/$name.8"
done
put 644 "$completions/xtshim.bash" "$share/bash-completion/completions/xtshim"
put 644 "$completions/xtshim.fish" "$share/fish/vendor_completions.d/xtshim.fish"
# Debian's zsh has a folder for packages.
case $prefix in
/usr) zsh=${ZSH_COMPLETIONS:-vendor-completions} ;;
*) zsh=site-functions ;;
esac
put 644 "$completions/_xtshim" "$share/zsh/$zsh/_xtshim"

if [ ! -e "$root/etc/xtshim/xtshim.toml" ]; then
	put 644 "$here/xtshim.toml" /etc/xtshim/xtshim.toml
fi
put 644 "$here/xtshim.logrotate" /etc/logrotate.d/xtshim
put 644 "$here/xtshim.tmpfiles" "/usr/lib/tmpfiles.d/xtshim.conf"
if [ -n "$unit" ]; then
	case $prefix in
	/usr) folder=/usr/lib/systemd/system ;;
	*) folder=/etc/systemd/system ;;
	esac
	sed "s|/usr/sbin/xtshim|$sbin/xtshim|" "$here/xtshim-probe.service" >"$here/.unit.$$"
	put 644 "$here/.unit.$$" "$folder/xtshim-probe.service"
	rm -f "$here/.unit.$$"
fi
