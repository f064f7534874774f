// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_format.h"
#include "shared/base/status_macros.h"

namespace stoker::transforms {
namespace {

using v1::GafRecipe;

constexpr double kEpsilon = 1e-8;
constexpr int64_t kBasicCount = 5;
constexpr int64_t kComprehensiveCount = 8;
constexpr int64_t kExtendedCount = 12;

// In the order of SIGNAL_EXTENDED, whose beginnings the smaller sets are.
using Features = std::array<double, kExtendedCount>;

// Features of each channel that a set holds; 0 for unknown sets.
int64_t FeatureCount(GafRecipe::Stats set) {
  switch (set) {
    case GafRecipe::STATS_UNSPECIFIED:
    case GafRecipe::BASIC:
    case GafRecipe::COMPREHENSIVE:
    case GafRecipe::CORRELATION_FOCUSED:
    case GafRecipe::SIGNAL_BASIC:
      return kBasicCount;
    case GafRecipe::SIGNAL_COMPREHENSIVE:
      return kComprehensiveCount;
    case GafRecipe::SIGNAL_EXTENDED:
      return kExtendedCount;
    default:
      return 0;
  }
}

bool IsSignalLevel(GafRecipe::Stats set) { return set >= GafRecipe::SIGNAL_BASIC; }
bool HasCorrelations(GafRecipe::Stats set) {
  return set == GafRecipe::COMPREHENSIVE || set == GafRecipe::CORRELATION_FOCUSED;
}

// The value that would stand at `rank` if `values` were sorted; reorders them.
double Ranked(absl::Span<double> values, size_t rank) {
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return values[rank];
}

// Linear between the neighbours of position q (T - 1).
double Quantile(absl::Span<double> values, double q) {
  const double position = q * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(position);
  const double low = Ranked(values, below);
  if (below + 1 == values.size()) return low;
  const double high = *std::min_element(values.begin() + below + 1, values.end());
  return low + (position - static_cast<double>(below)) * (high - low);
}

double MeanAndStd(absl::Span<const double> v, double* std) {
  const double count = static_cast<double>(v.size());
  double sum = 0.0;
  for (const double value : v) sum += value;
  const double mean = sum / count;
  double squares = 0.0;
  for (const double value : v) squares += (value - mean) * (value - mean);
  *std = v.size() == 1 ? 0.0 : std::sqrt(squares / (count - 1.0));
  return mean;
}

// The first `feature_count`; `scratch` has as many values as `v`.
Features ChannelFeatures(absl::Span<const double> v, int64_t feature_count, absl::Span<double> scratch) {
  Features f = {};
  const double count = static_cast<double>(v.size());
  const double mean = f[0] = MeanAndStd(v, &f[1]);
  const double std = f[1];
  f[2] = *std::max_element(v.begin(), v.end());
  f[3] = *std::min_element(v.begin(), v.end());
  std::copy(v.begin(), v.end(), scratch.begin());
  f[4] = Ranked(scratch, (v.size() - 1) / 2);
  if (feature_count == kBasicCount) return f;
  double cubes = 0.0, fourths = 0.0, distances = 0.0;
  for (const double value : v) {
    const double d = value - mean;
    cubes += d * d * d;
    fourths += d * d * d * d;
    distances += std::abs(d);
  }
  f[5] = cubes / count / (std * std * std + kEpsilon);
  f[6] = fourths / count / (std * std * std * std + kEpsilon);
  f[7] = std / (std::abs(mean) + kEpsilon);
  if (feature_count == kComprehensiveCount) return f;
  f[8] = Quantile(scratch, 0.25);
  f[9] = Quantile(scratch, 0.75);
  f[10] = f[2] - f[3];
  f[11] = distances / count;
  return f;
}

// Eight sums side by side: one would wait for itself. The order of additions is fixed, so every machine gives the same.
template <typename Term>
double SumOf(int64_t points, Term term) {
  double sums[8] = {};
  int64_t t = 0;
  for (; t + 8 <= points; t += 8) {
    for (int64_t lane = 0; lane < 8; ++lane) sums[lane] += term(t + lane);
  }
  for (; t < points; ++t) sums[0] += term(t);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// Of each pair of rows i < j of [channels, points] data.
template <typename Take>
void ForEachPair(absl::Span<const double> data, int64_t channels, Take take) {
  const int64_t points = static_cast<int64_t>(data.size()) / channels;
  for (int64_t i = 0; i < channels; ++i) {
    for (int64_t j = i + 1; j < channels; ++j) take(data.data() + i * points, data.data() + j * points, points);
  }
}

float* WriteCorrelations(absl::Span<const double> series, int64_t channels, float* out) {
  const size_t points = series.size() / channels;
  std::vector<double> z(series.begin(), series.end());
  for (int64_t c = 0; c < channels; ++c) {
    const absl::Span<double> channel(z.data() + c * points, points);
    double std;
    const double mean = MeanAndStd(channel, &std);
    for (double& value : channel) value = (value - mean) / (std + kEpsilon);
  }
  ForEachPair(z, channels, [&out](const double* a, const double* b, int64_t n) {
    const double product = SumOf(n, [a, b](int64_t t) { return a[t] * b[t]; });
    *out++ = n == 1 ? 0.0f : static_cast<float>(product / static_cast<double>(n - 1));
  });
  return out;
}

float* WriteDifferences(absl::Span<const double> series, int64_t channels, float* out) {
  ForEachPair(series, channels, [&out](const double* a, const double* b, int64_t n) {
    double greatest = 0.0;
    for (int64_t t = 0; t < n; ++t) greatest = std::max(greatest, std::abs(a[t] - b[t]));
    *out++ = static_cast<float>(greatest);
    *out++ = static_cast<float>(SumOf(n, [a, b](int64_t t) { return std::abs(a[t] - b[t]); }) / static_cast<double>(n));
  });
  return out;
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> StatsShape(GafRecipe::Stats set, int64_t channels) {
  const int64_t features = FeatureCount(set);
  if (features == 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "recipe.gaf.stats: value %d is unknown to this version; see proto/stoker/v1/recipe.proto", set));
  }
  if (IsSignalLevel(set)) return std::vector<int64_t>{channels, features};
  const int64_t pairs = channels * (channels - 1) / 2;
  const int64_t values_a_pair = set == GafRecipe::CORRELATION_FOCUSED ? 3 : set == GafRecipe::COMPREHENSIVE ? 1 : 0;
  return std::vector<int64_t>{features * channels + values_a_pair * pairs};
}

absl::Status ComputeStatistics(GafRecipe::Stats set, absl::Span<const double> series, int64_t channels,
                               absl::Span<float> out) {
  STOKER_ASSIGN_OR_RETURN(const std::vector<int64_t> shape, StatsShape(set, channels));
  size_t width = 1;
  for (const int64_t dimension : shape) width *= dimension;
  if (channels < 1 || series.empty() || series.size() % channels != 0 || out.size() != width) {
    return absl::InvalidArgumentError(
        absl::StrFormat("statistics of %d values in %d channels into %d results, want whole channels and %d results",
                        series.size(), channels, out.size(), width));
  }
  const size_t points = series.size() / channels;
  const int64_t features = FeatureCount(set);
  const bool by_channel = IsSignalLevel(set);
  std::vector<double> scratch(points);
  for (int64_t c = 0; c < channels; ++c) {
    const Features f = ChannelFeatures(series.subspan(c * points, points), features, absl::MakeSpan(scratch));
    for (int64_t k = 0; k < features; ++k) {
      out[by_channel ? c * features + k : k * channels + c] = static_cast<float>(f[k]);
    }
  }
  float* rest = out.data() + features * channels;
  if (HasCorrelations(set)) rest = WriteCorrelations(series, channels, rest);
  if (set == GafRecipe::CORRELATION_FOCUSED) WriteDifferences(series, channels, rest);
  return absl::OkStatus();
}

}  // namespace stoker::transforms
