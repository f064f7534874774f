#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the built programs and the unit into a small Debian, boots it with its own systemd in a container, and runs
# systemd_guest.sh there: readiness, who may connect, a batch through shared memory, watchdog, kill -9, drain.
#
#   tests/integration/systemd_test.sh --prepare     makes the Debian, once (root; needs the package archive)
#   tests/integration/systemd_test.sh BUILD_DIR     the test; exit status 77: it cannot run here, and says why
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=/var/cache/stoker-tests
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
image=$cache/debian-$codename

skip() {
  echo "SKIPPED: $*"
  exit 77
}
[ "$(id -u)" -eq 0 ] || skip "needs root, to boot a container"
for program in debootstrap systemd-nspawn unshare; do
  command -v "$program" >/dev/null || skip "$program is missing; 'make test-systemd' installs it"
done

# The container runs the host's build, so it is of the host's release.
prepare() {
  [ ! -d "$image" ] || return 0
  mkdir -p "$cache"
  rm -rf "$image.new"
  echo "Preparing a small Debian $codename in $image (about a minute)"
  if ! debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus "$codename" "$image.new" \
    >"$cache/debootstrap.log" 2>&1; then
    tail -n 5 "$cache/debootstrap.log" >&2
    echo "systemd_test.sh: debootstrap failed; all of its output is in $cache/debootstrap.log" >&2
    return 1
  fi
  mv "$image.new" "$image"
}
if [ "${1:-}" = --prepare ]; then
  prepare
  exit
fi

build=$(realpath "${1:?usage: tests/integration/systemd_test.sh --prepare | BUILD_DIR}")
[ -d "$image" ] || skip "there is no container yet; 'make test-systemd' makes it"

# A mount namespace of our own: whatever happens, the overlay goes with it.
if [ -z "${STOKER_IN_NAMESPACE:-}" ]; then
  exec env STOKER_IN_NAMESPACE=1 unshare --mount --propagation private "$0" "$build"
fi
work=$(mktemp -d /var/tmp/stoker-systemd.XXXXXX)
trap 'umount "$work/root" 2>/dev/null; rm -rf "$work"' EXIT
mkdir "$work"/{upper,overlay,root,out}
mount -t overlay overlay -o "lowerdir=$image,upperdir=$work/upper,workdir=$work/overlay" "$work/root" ||
  skip "this host lets us mount no overlay"
systemd-nspawn --quiet --register=no --keep-unit --private-network --directory="$work/root" true 2>"$work/console" ||
  skip "this host starts no container"

DESTDIR=$work/root cmake --install "$build" --prefix /usr >/dev/null
# Libraries that the minimal Debian does not have.
for program in stokerd stoker-worker stokerctl; do
  ldd "$work/root/usr/bin/$program" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p'
done | sort -u | while read -r library; do
  [ -e "$work/root$library" ] || install -D "$(realpath "$library")" "$work/root$library"
done
mkdir -p "$work/root/srv/data"
cp deploy/samples/pacific_monthly.csv "$work/root/srv/data/"
install -m 755 tests/integration/systemd_guest.sh "$work/root/usr/bin/systemd_guest.sh"
cat >"$work/root/etc/systemd/system/stoker-test.service" <<'UNIT'
[Unit]
After=basic.target
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=oneshot
ExecStart=/usr/bin/systemd_guest.sh
StandardOutput=append:/out/output
StandardError=inherit
[Install]
WantedBy=multi-user.target
UNIT
systemctl --quiet --root="$work/root" enable stoker-test.service 2>/dev/null

timeout 110 systemd-nspawn --quiet --boot --register=no --keep-unit --private-network --directory="$work/root" \
  --bind="$work/out:/out" --console=pipe </dev/null >"$work/console" 2>&1 || true
cat "$work/out/output" 2>/dev/null || tail -n 40 "$work/console"
[ -e "$work/out/passed" ]
