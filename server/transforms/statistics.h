// SPDX-License-Identifier: Apache-2.0
// Statistical features of one sample, a series of C channels and T points. All sums in float64, results float32.
// Pure functions; any thread.
//
// Per channel, with values v_0 .. v_{T-1} and their sorted order v_(0) <= .. <= v_(T-1):
//   mean      m = sum v / T
//   std       sqrt(sum (v - m)^2 / (T - 1)); 0 when T = 1
//   max, min
//   median    v_((T - 1) / 2), integer division: the lower of the two in the middle
//   skewness  (sum (v - m)^3 / T) / (std^3 + 1e-8)
//   kurtosis  (sum (v - m)^4 / T) / (std^4 + 1e-8)     3 for a normal distribution
//   cv        std / (|m| + 1e-8)
//   p25, p75  linear between neighbours: at position q (T - 1) of the sorted values
//   range     max - min
//   mad       sum |v - m| / T
// Per pair of channels i < j, in the order (0,1) (0,2) .. (0,C-1) (1,2) ..:
//   corr      sum_t z_i z_j / (T - 1), z = (v - m) / (std + 1e-8); 0 when T = 1. Close to 1, never beyond it by
//   rounding
//             only: a constant channel gives 0
//   max_diff  max_t |v_i - v_j|
//   mean_diff sum_t |v_i - v_j| / T
//
// set                  width and order
//   BASIC                5 C: all means, all stds, all max, all min, all medians
//   COMPREHENSIVE        BASIC, then corr of each pair: 5 C + C (C - 1) / 2
//   CORRELATION_FOCUSED  COMPREHENSIVE, then max_diff, mean_diff of each pair in turn: 5 C + 3 C (C - 1) / 2
//   SIGNAL_BASIC         [C, 5]: mean, std, max, min, median of each channel
//   SIGNAL_COMPREHENSIVE [C, 8]: those, then skewness, kurtosis, cv
//   SIGNAL_EXTENDED      [C, 12]: those, then p25, p75, range, mad
// STATS_UNSPECIFIED means BASIC.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "stoker/v1/recipe.pb.h"

namespace stoker::transforms {

// Shape of one sample's statistics: {width} or {C, features}. InvalidArgument naming `stats` for a set that this
// version does not know; REQUIRES channels >= 1.
absl::StatusOr<std::vector<int64_t>> StatsShape(v1::GafRecipe::Stats set, int64_t channels);

// `series`: [channels, points], channel after channel. `out`: the product of StatsShape values, row-major.
// InvalidArgument, out untouched, for an unknown set or sizes that do not agree. Finite input gives finite output as
// long as the sums of fourth powers fit into a double and the results into a float.
absl::Status ComputeStatistics(v1::GafRecipe::Stats set, absl::Span<const double> series, int64_t channels,
                               absl::Span<float> out);

}  // namespace stoker::transforms
