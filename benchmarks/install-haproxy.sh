#!/bin/sh
# Installs HAProxy where it is missing, to compare with. Debian; root, or sudo without a password. Where that cannot be
# done it says so and ends with 0: the benchmark measures the rest, and its output says that HAProxy is absent.
set -u

PATH="$PATH:/usr/sbin:/usr/local/sbin"
command -v haproxy >/dev/null && exit 0

absent() {
	echo "HAProxy is missing and $1; the benchmark goes on without it" >&2
	exit 0
}

command -v apt-get >/dev/null || absent "this system has no apt-get to install it with"
if [ "$(id -u)" -eq 0 ]; then
	as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
	as_root="sudo -n"
else
	absent "installing it needs root, or sudo without a password"
fi

echo "installing: haproxy"
$as_root apt-get update -qq || absent "apt-get update failed"
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends haproxy ||
	absent "apt-get install haproxy failed"
# Only the binary is wanted: no service is left running that was not there before.
if [ -d /run/systemd/system ]; then $as_root systemctl disable --quiet --now haproxy; fi
