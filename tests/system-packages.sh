#!/bin/sh
# Installs the system packages that the tests need and that are missing. Debian; root, or sudo without a password.
set -eu

missing=""
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
command -v tshark >/dev/null || missing="$missing tshark"
[ -n "$missing" ] || exit 0

echo "installing:$missing"
if [ "$(id -u)" -eq 0 ]; then as_root=""; else as_root="sudo -n"; fi
$as_root apt-get update -qq
# shellcheck disable=SC2086 # both are lists of words
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing
