#!/bin/sh
# Makes a node of a fresh Debian in directory $1, whose modules of kernel $2 are in directory $3.
set -eu
cp -R "$(dirname "$0")/root/." "$1/"
mkdir -p "$1/lib/modules" "$1/data" "$1/etc/kubernetes"
cp -R "$3" "$1/lib/modules/$2"
chroot "$1" depmod "$2"
chroot "$1" systemctl -q enable plimsoll-network.service plimsoll-shell.socket
# The tests start containerd when its configuration says which driver they want; nothing else is wanted.
chroot "$1" systemctl -q disable containerd.service e2scrub_reap.service getty@.service
chroot "$1" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
  fstrim.timer serial-getty@.service systemd-logind.service systemd-pstore.service \
  systemd-tmpfiles-clean.timer systemd-update-utmp.service
chroot "$1" systemctl -q set-default multi-user.target
# No caches of apt: they are a fifth of it all.
rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*
