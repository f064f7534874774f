// SPDX-License-Identifier: Apache-2.0
// Rows of a batch: indices with an offset, rounded float32, radial basis functions. They are written past the caches,
// and nothing beyond the elements said: call LineGraph::Flush before another thread is told.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "stoker/v1/recipe.pb.h"

namespace stoker::transforms {

// from + offset, to I32 or I64.
void OffsetIndices(absl::Span<const int32_t> from, int64_t offset, v1::DType dtype, void* to);

// To F32, F16 or BF16, to nearest even; NaN stays NaN.
void RoundFloats(absl::Span<const float> from, v1::DType dtype, void* to);

// `bins` centres evenly from low to high, bins >= 2.
std::vector<float> RbfCentres(double low, double high, uint32_t bins);

// [distances, centres]: exp(-gamma (distance - centre)^2) in float32, the exponential within 2 units of
// the last place (0 below 2^-126), then rounded to `dtype`. REQUIRES: gamma >= 0
void ExpandRbf(absl::Span<const float> distances, absl::Span<const float> centres, float gamma, v1::DType dtype,
               void* to);

}  // namespace stoker::transforms
