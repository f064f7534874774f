// SPDX-License-Identifier: Apache-2.0
// Series that the tests write to files, and what their images must be: computed here once more, in the plainest way.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace stoker::testing {

// `count` samples of `channels` x `points` values with four decimals, sample after sample, channel after channel. Each
// is different; the same for the same seed.
struct Samples {
  size_t count, channels, points;
  std::vector<double> values;

  absl::Span<const double> Series(size_t sample, size_t channel) const {
    return absl::MakeConstSpan(values).subspan((sample * channels + channel) * points, points);
  }
};
Samples MakeSamples(size_t count, size_t channels, size_t points, uint64_t seed = 1);

// The label of a sample in the files, and its place in the sorted list Gamma, alpha, beta.
std::string LabelOf(size_t sample);
int64_t ClassOf(size_t sample);

std::string ToTs(const Samples& samples);
// Version 1.0, C order. `type` as numpy spells it: "<f8" for doubles, "<i8" for integers of 64 bits.
std::string ToNpy(absl::string_view type, absl::string_view shape, const void* data, size_t bytes);
std::string ToNpy(const Samples& samples);

// Gramian angular fields of one series, [size, size] each, by their definition: cosine of the sum and sine of the
// difference of the angles whose cosines are the series' means of `size` segments, scaled to [low, high].
struct Images {
  std::vector<double> gasf, gadf;
};
struct ImageOptions {
  size_t size = 0;  // 0: of the series
  double low = -1, high = 1;
  // What is scaled to low and high; equal: the minimum and maximum of the means.
  double from = 0, to = 0;
};
Images ReferenceImages(absl::Span<const double> series, const ImageOptions& options = {});

}  // namespace stoker::testing
