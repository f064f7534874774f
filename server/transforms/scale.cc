// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/scale.h"

#include <Eigen/Core>
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
  return absl::InvalidArgumentError(
      absl::StrFormat("point %d of %d is %g: images need finite values; fill gaps at ingest, or rescale the source", i,
                      values.size(), values[i]));
}

}  // namespace

absl::StatusOr<ValueRange> FindRange(absl::Span<const double> values) {
  const Eigen::Map<const Eigen::ArrayXd> v(values.data(), static_cast<Eigen::Index>(values.size()));
  if (!((v - v).sum() == 0)) return NotFinite(values);  // NaN for NaN and infinity
  return ValueRange{v.minCoeff(), v.maxCoeff()};
}

absl::Status ScaleValues(const ValueRange& from, const ValueRange& target, absl::Span<double> values) {
  double r = from.high - from.low;
  if (!std::isfinite(r)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("values from %g to %g span more than a double holds; rescale the source", from.low, from.high));
  }
  if (r < kConstantBelow) r = 1.0;
  const double k = (target.high - target.low) / r;
  const double m = target.low - from.low * k;
  const double low = target.low, high = target.high;  // of its own, so that stores to values cannot change it
  for (double& v : values) {
    v = std::min(std::max(v * k + m, low), high);
  }
  return absl::OkStatus();
}

absl::Status CheckUnitRange(absl::Span<const double> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] >= -1.0 && values[i] <= 1.0) continue;
    return absl::InvalidArgumentError(absl::StrFormat(
        "point %d of %d is %.17g, outside [-1, 1], and the recipe does not scale (scale: NONE); choose another scale",
        i, values.size(), values[i]));
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
