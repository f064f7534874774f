// SPDX-License-Identifier: Apache-2.0
// Piecewise aggregate approximation: a series of n points becomes `size` means of consecutive points, cut exactly as
// pyts (BSD-3, 0.13) cuts them. Pure functions; any thread.
//
//   std::vector<Segment> segments = PaaSegments(series.size(), 16, /*overlapping=*/false);
//   PaaMeans(series, segments, means);   // means.size() == 16
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace stoker::transforms {

// Points [begin, end) of the series.
struct Segment {
  int64_t begin;
  int64_t end;
  bool operator==(const Segment&) const = default;
};

// Not overlapping: cut i of size + 1 is trunc(double(i) * (double(n) / size)) and the last is n. In double, as numpy's
// linspace computes it: i * n / size in integers differs, first at n = 30, size = 22.
// Overlapping: all segments have w = ceil(n / size) points; segment i begins at i * w - d_i where d_i =
// trunc(i * (double(size * w - n) / (size - 1))) and the last d is size * w - n.
// With size == n every segment is one point. With size == 1 the only segment is the whole series.
// REQUIRES: 1 <= size <= n. No segment is empty.
std::vector<Segment> PaaSegments(int64_t n, int64_t size, bool overlapping);

// means[i] = (sum of series over segments[i], added one after the other from the first) / count.
// REQUIRES: means.size() == segments.size(); segments lie within series. Overflow gives an infinite mean.
void PaaMeans(absl::Span<const double> series, absl::Span<const Segment> segments, absl::Span<double> means);

}  // namespace stoker::transforms
