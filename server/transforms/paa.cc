// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/paa.h"

namespace stoker::transforms {
namespace {

std::vector<Segment> OverlappingSegments(int64_t n, int64_t size) {
  const int64_t width = (n + size - 1) / size;
  const int64_t excess = size * width - n;
  const double step = static_cast<double>(excess) / static_cast<double>(size - 1);
  std::vector<Segment> segments(size);
  for (int64_t i = 0; i < size; ++i) {
    const int64_t shift = i == size - 1 ? excess : static_cast<int64_t>(static_cast<double>(i) * step);
    segments[i] = {i * width - shift, i * width - shift + width};
  }
  return segments;
}

}  // namespace

std::vector<Segment> PaaSegments(int64_t n, int64_t size, bool overlapping) {
  if (size == 1) return {{0, n}};
  if (overlapping) return OverlappingSegments(n, size);
  const double step = static_cast<double>(n) / static_cast<double>(size);
  std::vector<Segment> segments(size);
  for (int64_t i = 0; i < size; ++i) {
    const int64_t end = i == size - 1 ? n : static_cast<int64_t>(static_cast<double>(i + 1) * step);
    segments[i] = {i == 0 ? 0 : segments[i - 1].end, end};
  }
  return segments;
}

void PaaMeans(absl::Span<const double> series, absl::Span<const Segment> segments, absl::Span<double> means) {
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    double sum = 0.0;
    for (int64_t t = segment.begin; t < segment.end; ++t) sum += series[t];
    means[i] = sum / static_cast<double>(segment.end - segment.begin);
  }
}

}  // namespace stoker::transforms
