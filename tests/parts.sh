#!/bin/sh
# Installs the Debian packages whose programs the tests talk to: rsync, sshd and ssh, Samba. Quick when none is missing.
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
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null 2>&1 || fail "these are missing and there is no apt-get to install them:$missing"
if [ "$(id -u)" = 0 ]; then as_root=""; elif command -v sudo >/dev/null 2>&1; then as_root=sudo
else fail "these Debian packages are needed; install them as root, then try again:$missing"; fi
printf 'tests: installing%s\n' "$missing"
# shellcheck disable=SC2086
$as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $missing >/dev/null || fail "apt-get could not install:$missing"
missing=""
need rsync rsync; need ssh openssh-client; need sshd openssh-server; need smbd samba
[ -z "$missing" ] || fail "still missing after the installation:$missing"
