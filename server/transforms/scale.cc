// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/scale.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "shared/base/status_macros.h"

namespace stoker::transforms {
namespace {

constexpr double kConstantBelow = 10 * std::numeric_limits<double>::epsilon();

absl::Status NotFinite(absl::Span<const double> values) {
  size_t i = 0;
  while (std::isfinite(values[i])) ++i;
  return absl::InvalidArgumentError(absl::StrFormat(
      "point %d of %d is %g: images need finite values; fill gaps at ingest, or rescale the source", i, values.size(),
      values[i]));
}

}  // namespace

absl::StatusOr<ValueRange> FindRange(absl::Span<const double> values) {
  // Four at a time: one comparison would wait for the one before.
  double low[4], high[4], zero[4] = {};
  std::fill_n(low, 4, values[0]);
  std::fill_n(high, 4, values[0]);
  const auto take = [&](size_t lane, double v) {
    low[lane] = v < low[lane] ? v : low[lane];
    high[lane] = v > high[lane] ? v : high[lane];
    zero[lane] += v - v;  // NaN for NaN and infinity
  };
  size_t i = 0;
  for (; i + 4 <= values.size(); i += 4) {
    for (size_t lane = 0; lane < 4; ++lane) take(lane, values[i + lane]);
  }
  for (; i < values.size(); ++i) take(0, values[i]);
  if (!(zero[0] + zero[1] + zero[2] + zero[3] == 0)) return NotFinite(values);
  return ValueRange{*std::min_element(low, low + 4), *std::max_element(high, high + 4)};
}

absl::Status ScaleValues(const ValueRange& from, const ValueRange& target, absl::Span<double> values) {
  double r = from.high - from.low;
  if (!std::isfinite(r)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "values from %g to %g span more than a double holds; rescale the source", from.low, from.high));
  }
  if (r < kConstantBelow) r = 1.0;
  const double k = (target.high - target.low) / r;
  const double m = target.low - from.low * k;
  for (double& v : values) {
    const double scaled = v * k + m;
    v = scaled < target.low ? target.low : scaled > target.high ? target.high : scaled;
  }
  return absl::OkStatus();
}

absl::Status CheckUnitRange(absl::Span<const double> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] >= -1.0 && values[i] <= 1.0) continue;
    return absl::InvalidArgumentError(absl::StrFormat(
        "point %d of %d is %.17g, outside [-1, 1], and the recipe does not scale (scale: NONE); choose another scale", i,
        values.size(), values[i]));
  }
  return absl::OkStatus();
}

absl::Status ScaleWindow(const GafOptions& options, const ValueRange& bounds, absl::Span<double> values) {
  if (options.scale == v1::GafRecipe::NONE) return CheckUnitRange(values);
  STOKER_ASSIGN_OR_RETURN(const ValueRange own, FindRange(values));
  const ValueRange& from = options.scale == v1::GafRecipe::WINDOW ? own : bounds;
  return ScaleValues(from, options.sample_range, values);
}

}  // namespace stoker::transforms
