#!/bin/sh
# Installs the system packages that the tests need and that are missing. Debian; root, or sudo without a password.
set -eu

missing=""
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
command -v tshark >/dev/null || missing="$missing tshark"
command -v mariadbd >/dev/null || [ -x /usr/sbin/mariadbd ] || missing="$missing mariadb-server"
command -v mariadb-backup >/dev/null || missing="$missing mariadb-backup"
[ -e /usr/lib/galera/libgalera_smm.so ] || missing="$missing galera-4"
command -v garbd >/dev/null || missing="$missing galera-arbitrator-4"
command -v rsync >/dev/null || missing="$missing rsync"
command -v curl >/dev/null || missing="$missing curl"
command -v keepalived >/dev/null || [ -x /usr/sbin/keepalived ] || missing="$missing keepalived"
command -v ip >/dev/null || missing="$missing iproute2"
ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
[ -n "$missing" ] || exit 0

echo "installing:$missing"
if [ "$(id -u)" -eq 0 ]; then as_root=""; else as_root="sudo -n"; fi

# The tests start servers of their own: the system's must not start because its package is installed.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
    trap '$as_root rm -f "$policy"' EXIT
fi

$as_root apt-get update -qq
# shellcheck disable=SC2086 # both are lists of words
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing
