#!/bin/sh
# Installs the Debian packages whose programs the tests talk to: rsync, sshd and ssh, Samba, faketime, a session bus with
# GNOME's keyring, and what makes and mounts small filesystems. Quick when none is missing. Nothing that is installed is started.
set -eu
PATH="$PATH:/usr/sbin:/sbin"

fail() { printf 'tests: %s\n' "$*" >&2; exit 1; }

missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need rsync rsync
need ssh openssh-client
need ssh-keygen openssh-client
need sshd openssh-server
need smbd samba
need faketime faketime
need dbus-daemon dbus
need gnome-keyring-daemon gnome-keyring
need mkfs.ext4 e2fsprogs
need mkfs.btrfs btrfs-progs
need mkfs.xfs xfsprogs
need fsfreeze util-linux
need mount mount
need chattr e2fsprogs
need fusermount3 fuse3
need ntfs-3g ntfs-3g
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null 2>&1 || fail "these are missing and there is no apt-get to install them:$missing"
if [ "$(id -u)" = 0 ]; then as_root=""; elif command -v sudo >/dev/null 2>&1; then as_root=sudo
else fail "these Debian packages are needed; install them as root, then try again:$missing"; fi
printf 'tests: installing%s\n' "$missing"
# The tests start their own sshd and smbd; Debian's packages would start one for everybody as well.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
    trap '$as_root rm -f "$policy"' EXIT
fi
# shellcheck disable=SC2086
$as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $missing >/dev/null || fail "apt-get could not install:$missing"
missing=""
need rsync rsync; need ssh openssh-client; need sshd openssh-server; need smbd samba; need faketime faketime
[ -z "$missing" ] || fail "still missing after the installation:$missing"
