// SPDX-License-Identifier: Apache-2.0
// Scaling of one (reduced) window of one channel to x in [-1, 1], with the arithmetic of scikit-learn's MinMaxScaler as
// pyts uses it, all in double. Pure functions; any thread.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/transforms/gaf_options.h"

namespace stoker::transforms {

// values, in place, to [target.low, target.high]:
//   r = from.high - from.low, taken as 1 when below 10 * 2^-52 (absolute: such a window counts as constant)
//   k = (target.high - target.low) / r;  m = target.low - from.low * k;  v' = v * k + m  (two roundings)
// and clipped to the target. (pyts does not clip; by rounding its largest value may miss target.high by 4.4e-16.)
// InvalidArgument, values untouched, when r is not finite: the values span more than a double holds.
// REQUIRES: values are finite, target is within [-1, 1].
absl::Status ScaleValues(const ValueRange& from, const ValueRange& target, absl::Span<double> values);

// The least and greatest value. InvalidArgument naming the first position (0-based) that is NaN or infinite.
// REQUIRES: values is not empty.
absl::StatusOr<ValueRange> FindRange(absl::Span<const double> values);

// InvalidArgument naming the first position and value outside [-1, 1] (or NaN).
absl::Status CheckUnitRange(absl::Span<const double> values);

// values, in place, by `options`: WINDOW by their own minimum and maximum, CHANNEL and FIXED by `bounds` with clipping
// to options.sample_range, NONE checked only. InvalidArgument otherwise; the caller puts the sample's name before it.
absl::Status ScaleWindow(const GafOptions& options, const ValueRange& bounds, absl::Span<double> values);

}  // namespace stoker::transforms
