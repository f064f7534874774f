// SPDX-License-Identifier: Apache-2.0
// Rounding of float32, and radial basis functions.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "stoker/v1/recipe.pb.h"

namespace stoker::transforms {

// To F32, F16 or BF16, to nearest even. Nothing is written beyond from.size() elements.
void RoundFloats(absl::Span<const float> from, v1::DType dtype, void* to);

// `bins` centres evenly from low to high, bins >= 2.
std::vector<float> RbfCentres(double low, double high, uint32_t bins);

// [distances, centres]: exp(-gamma (distance - centre)^2) in float32, then rounded to `dtype`.
void ExpandRbf(absl::Span<const float> distances, absl::Span<const float> centres, float gamma, v1::DType dtype,
               void* to);

}  // namespace stoker::transforms
