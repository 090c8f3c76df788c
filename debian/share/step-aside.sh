# What `xtshim disable --for-removal` does, for when the program itself cannot be run any more.
step_aside() { # where iptables-xtshim is
	for group in iptables ip6tables; do
		front=$1/$group-xtshim
		if command -v update-alternatives >/dev/null; then
			former=$(sed -n "s/^$group manual //p" /var/lib/xtshim/previous 2>/dev/null || true)
			# update-alternatives gives up a manual choice whose file is gone. What was recorded stands, unless
			# somebody has chosen something else since.
			mode=$(update-alternatives --query "$group" 2>/dev/null | sed -n 's/^Status: //p' || true)
			[ -n "$mode" ] || mode=$(head -n 1 "/var/lib/alternatives/$group" 2>/dev/null || true)
			if [ -n "$former" ] && [ -x "$former" ] &&
				{ [ "$mode" = auto ] || [ "$(readlink "/etc/alternatives/$group" || true)" = "$front" ]; }; then
				update-alternatives --set "$group" "$former" || true
			fi
			update-alternatives --remove "$group" "$front" 2>/dev/null || true
		fi
	done
	for unit in docker nftables; do
		folder=/etc/systemd/system/$unit.service.d
		if [ -e "$folder/xtshim.conf" ]; then
			rm -f "$folder/xtshim.conf"
			rmdir "$folder" 2>/dev/null || true
			if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
		fi
	done
	for family in ip ip6; do
		for table in filter nat mangle raw security; do
			if command -v nft >/dev/null && nft delete table "$family" "xtshim-$table" 2>/dev/null; then
				echo "xtshim: the rules carried for $family $table are removed: restart Docker" >&2
			fi
		done
	done
	rm -f /var/lib/xtshim/previous /var/lib/xtshim/off
}
