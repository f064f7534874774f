// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/series.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace stoker::testing {
namespace {

constexpr const char* kLabels[] = {"beta", "Gamma", "alpha"};
constexpr int64_t kClasses[] = {2, 0, 1};

std::vector<double> SegmentMeans(absl::Span<const double> series, size_t size) {
  const double width = static_cast<double>(series.size()) / static_cast<double>(size);
  std::vector<double> means;
  for (size_t i = 0; i < size; ++i) {
    const auto begin = static_cast<size_t>(static_cast<double>(i) * width);
    const size_t end = i + 1 == size ? series.size() : static_cast<size_t>(static_cast<double>(i + 1) * width);
    double sum = 0;
    for (size_t t = begin; t < end; ++t) sum += series[t];
    means.push_back(sum / static_cast<double>(end - begin));
  }
  return means;
}

}  // namespace

Samples MakeSamples(size_t count, size_t channels, size_t points, uint64_t seed) {
  Samples samples = {count, channels, points, {}};
  uint64_t state = seed;
  for (size_t i = 0; i < count * channels; ++i) {
    for (size_t t = 0; t < points; ++t) {
      state = state * 6364136223846793005 + 1442695040888963407;
      const double noise = static_cast<double>(state >> 40) / (1 << 24);
      const double value = 5 * std::sin(0.3 * static_cast<double>(t) + static_cast<double>(i)) + noise;
      samples.values.push_back(std::round(value * 1e4) / 1e4);
    }
  }
  return samples;
}

std::string LabelOf(size_t sample) { return kLabels[sample % 3]; }
int64_t ClassOf(size_t sample) { return kClasses[sample % 3]; }

std::string ToTs(const Samples& samples) {
  std::string text = absl::StrCat("# written by a test\n@problemName Written\n@timeStamps false\n@missing false\n",
                                  samples.channels == 1 ? "@univariate true\n" : "@univariate false\n", "@dimensions ",
                                  samples.channels, "\n@equalLength true\n@seriesLength ", samples.points,
                                  "\n@classLabel true beta Gamma alpha\n@data\n");
  for (size_t i = 0; i < samples.count; ++i) {
    for (size_t c = 0; c < samples.channels; ++c) {
      for (const double value : samples.Series(i, c)) absl::StrAppendFormat(&text, "%.4f,", value);
      text.back() = ':';
    }
    absl::StrAppend(&text, LabelOf(i), "\n");
  }
  return text;
}

std::string ToNpy(absl::string_view type, absl::string_view shape, const void* data, size_t bytes) {
  std::string header = absl::StrCat("{'descr': '", type, "', 'fortran_order': False, 'shape': ", shape, ", }");
  constexpr size_t kPreamble = 10, kAlignment = 64;
  header.resize((kPreamble + header.size() + 1 + kAlignment - 1) / kAlignment * kAlignment - kPreamble - 1, ' ');
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() & 255);
  file += static_cast<char>(header.size() >> 8);
  return absl::StrCat(file, header, absl::string_view(static_cast<const char*>(data), bytes));
}

std::string ToNpy(const Samples& samples) {
  return ToNpy("<f8", absl::StrCat("(", samples.count, ", ", samples.channels, ", ", samples.points, ")"),
               samples.values.data(), samples.values.size() * sizeof(double));
}

Images ReferenceImages(absl::Span<const double> series, const ImageOptions& options) {
  const size_t size = options.size == 0 ? series.size() : options.size;
  const std::vector<double> means = SegmentMeans(series, size);
  const bool own = options.from == options.to;
  const double from = own ? *std::min_element(means.begin(), means.end()) : options.from;
  const double to = own ? *std::max_element(means.begin(), means.end()) : options.to;
  std::vector<double> cosines, sines;
  for (const double value : means) {
    const double scaled = options.low + (value - from) * (options.high - options.low) / (to - from);
    cosines.push_back(std::clamp(scaled, -1.0, 1.0));
    sines.push_back(std::sqrt(1 - cosines.back() * cosines.back()));
  }
  Images images;
  for (size_t i = 0; i < size; ++i) {
    for (size_t j = 0; j < size; ++j) {
      images.gasf.push_back(cosines[i] * cosines[j] - sines[i] * sines[j]);
      images.gadf.push_back(sines[i] * cosines[j] - cosines[i] * sines[j]);
    }
  }
  return images;
}

}  // namespace stoker::testing
