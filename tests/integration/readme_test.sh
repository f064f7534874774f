#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The C++ of the README is that of the example which the tests compile and run.
set -euo pipefail
cd "$(dirname "$0")/../.."
example=client/examples/read_batches.cc
# shellcheck disable=SC2016  # backquotes are Markdown here
shown=$(sed -n '/^```cpp$/,/^```$/{/^```/d;p}' README.md)
if [ -z "$shown" ] || [[ "$(<"$example")" != *"$shown"* ]]; then
  diff <(echo "$shown") "$example" || true
  echo "README.md does not show what is in $example"
  exit 1
fi
