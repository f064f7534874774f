#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The kernels fit into registers on every architecture that they are built for: ptxas' report, made by the build, has an
# entry for each and none that spills or has a stack.
#
#   spill_test.sh REPORT ENTRIES
set -euo pipefail
report=$1
entries=$2
found=$(grep -c 'bytes spill stores' "$report")
clean=$(grep -c ' 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads' "$report" || true)
grep -E 'Compiling entry|Used [0-9]+ registers' "$report"
if [ "$found" -ne "$entries" ] || [ "$clean" -ne "$entries" ]; then
  echo "$report: $clean of $found kernels without spills, want $entries of $entries" >&2
  exit 1
fi
