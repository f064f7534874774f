// SPDX-License-Identifier: Apache-2.0
// Measures the transforms on this core into the caller's memory, beside what plain streaming stores reach there.
// Blocks for about (1 + rows) * repeats passes over the memory. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace stoker::transforms {

struct TransformBenchmarkRow {
  std::string name;                  // "streaming_stores", "gaf_dual_f32_avx3", …
  double bytes_per_second;           // median over the passes, of bytes written
  double ratio_to_streaming;         // median of the ratio to the streaming pass just before
  double in_cache_bytes_per_second;  // the arithmetic limit: images made row by row into the first cache; 0: none
  double series_per_second;          // windows of one channel; 0 for streaming stores
  int median_of;                     // passes
  double low, high;                  // least and greatest bytes_per_second of the passes
};

struct TransformBenchmarkOptions {
  int64_t points = 96;     // T = S
  int repeats = 9;         // passes a row, odd; a pass fills all of the memory
  bool all_paths = false;  // also the paths that this machine has but would not choose
};

// `memory`: warm (every page touched) and writable, what the images are written to; at least 16 images, better more
// than the caches hold (256 MiB). Its contents are lost. Each kernel's images are compared with the reference before it
// is timed. InvalidArgument for options or memory out of range; Internal when a comparison fails.
absl::StatusOr<std::vector<TransformBenchmarkRow>> RunTransformBenchmarks(const TransformBenchmarkOptions& options,
                                                                          absl::Span<uint8_t> memory);

// Fills `memory` with plain streaming stores: what the limit is measured with. REQUIRES: address and size multiples
// of 64.
void StreamFill(absl::Span<uint8_t> memory);

}  // namespace stoker::transforms
