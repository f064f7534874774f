// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>

#include "absl/status/status.h"

namespace stoker::workers {

struct BenchmarkOptions {
  int mib = 256;    // of /dev/shm, warm, that is written to
  int threads = 1;  // above 1: the streaming-store limit with so many threads, too
  int repeats = 9;  // passes a row; medians are given
  bool all_paths = false;
};

// What this machine's memory takes and what the transforms make of it. One line of JSON a row:
//   {"name": …, "value": …, "unit": "GB/s", "ratio_to_limit": …, "arithmetic_limit": …, "series_per_second": …,
//   "median_of": …, "spread": [low, high],
//    "threads": …}
// ResourceExhausted when there is no room for the memory.
absl::Status RunBenchmark(const BenchmarkOptions& options, std::ostream& out);

}  // namespace stoker::workers
