#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The part of systemd_test.sh that runs inside the container, as root, under its systemd. Each check says what it found;
# the first that fails ends the run with the unit's log.
set -euo pipefail

fail() {
  echo "FAILED: $*"
  systemctl --no-pager --full status stokerd.service || true
  journalctl --no-pager --unit stokerd.service | tail -n 40
  exit 1
}
ok() { echo "ok: $*"; }
property() { systemctl show --value --property "$1" stokerd.service; }
segments() { find /dev/shm -name 'stoker.*' | sort; }
processes() { grep -lsxE "$1" /proc/[0-9]*/comm | wc -l; }
# Waits until the command succeeds; ten seconds at most.
eventually() {
  local i
  for ((i = 0; i < 100; i++)); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  return 1
}
main_pid_is_new() { [ "$(property MainPID)" != "$1" ] && [ "$(property MainPID)" != 0 ] && stokerctl health --quiet; }

getent passwd stoker >/dev/null || fail "sysusers made no user 'stoker'"
useradd --create-home --groups stoker member
useradd --create-home other
sed -i -e 's|^# root: .*|root: "/srv/data"|' -e 's|^arena_bytes: .*|arena_bytes: "64MiB"|' -e 's|^workers: .*|workers: "2"|' \
  /etc/stoker/stokerd.textproto
# The watchdog of the unit as shipped, made short enough to wait for.
mkdir -p /run/systemd/system/stokerd.service.d
printf '[Service]\nWatchdogSec=2s\n' >/run/systemd/system/stokerd.service.d/test.conf
systemctl daemon-reload

systemctl start stokerd.service || fail "it does not start"
[ "$(property ActiveState)" = active ] || fail "after READY=1 it is $(property ActiveState)"
stokerctl health >/dev/null || fail "READY=1 was sent before health is SERVING"
ok "starts, is ready when health is SERVING: $(property StatusText)"

runuser -u member -- stokerctl health >/dev/null || fail "a member of the group is refused"
if runuser -u other -- stokerctl health >/dev/null 2>&1; then fail "a user outside the group is let in"; fi
for socket in /run/stoker/stoker.sock /run/stoker/stoker.sock.lane; do
  [ "$(stat -c '%U:%G %a' "$socket")" = "stoker:stoker 660" ] || fail "$(stat -c '%n is %U:%G %a' "$socket")"
done
ok "members of the group may connect, others may not"

while read -r segment; do
  [ "$(stat -c '%U:%G %a' "$segment")" = "stoker:stoker 640" ] || fail "$(stat -c '%n is %U:%G %a' "$segment")"
done < <(segments)
[ -n "$(segments)" ] || fail "no segment is visible in /dev/shm outside the unit"
runuser -u member -- stokerctl ingest pacific --source /srv/data/pacific_monthly.csv --window 60 --missing linear --quiet ||
  fail "a member cannot ingest"
runuser -u member -- stokerctl read pacific --batch-size 32 --transport shm --json >/tmp/read.json ||
  fail "a member cannot read batches through shared memory"
if runuser -u member -- stokerctl ingest passwords --source /etc/passwd --quiet 2>/dev/null; then
  fail "a file outside the roots was read"
fi
ok "ingests and delivers through shared memory, below its roots only"

sleep 5
[ "$(property NRestarts)" = 0 ] || fail "the watchdog ended a daemon that was well"
pid=$(property MainPID)
kill -STOP "$pid"
eventually main_pid_is_new "$pid" || fail "a stopped daemon was not replaced by the watchdog"
ok "the watchdog lets a daemon live that works, and replaces one that hangs"

pid=$(property MainPID)
before=$(segments)
kill -KILL "$pid"
eventually main_pid_is_new "$pid" || fail "it was not started again after kill -9"
[ -z "$(comm -12 <(echo "$before") <(segments))" ] || fail "segments of the killed daemon are left: $(segments)"
[ "$(processes stoker-worker)" -eq 2 ] || fail "there are $(processes stoker-worker) workers, not 2"
stokerctl datasets | grep -q pacific || fail "the data set is gone after kill -9"
ok "started again after kill -9; segments and workers of the dead one are gone, data sets are there"

systemctl stop stokerd.service
[ "$(property Result)" = success ] || fail "stopping: result $(property Result)"
[ "$(property ExecMainStatus)" = 0 ] || fail "stopping: exit status $(property ExecMainStatus)"
[ -z "$(segments)" ] || fail "after a stop there is $(segments)"
[ "$(processes 'stokerd|stoker-worker')" -eq 0 ] || fail "after a stop there are processes left"
ok "SIGTERM drains: exit status 0, nothing in /dev/shm"

echo 'workers: "many"' >>/etc/stoker/stokerd.textproto
if systemctl start stokerd.service 2>/dev/null; then fail "it starts with a malformed configuration"; fi
sleep 2
[ "$(property NRestarts)" -eq 0 ] || fail "it is started again and again with a malformed configuration"
journalctl --unit stokerd.service --no-pager | grep -qE 'stokerd.textproto:[0-9]+.*workers' ||
  fail "the journal names neither line nor field of the malformed configuration"
ok "a malformed configuration is named in the journal, and is not tried again"

touch /out/passed
