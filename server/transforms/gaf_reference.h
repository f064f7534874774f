// SPDX-License-Identifier: Apache-2.0
// The same images as GafEncoder's, plain and slow, with Eigen: everything in float64, rounded once at the end (to
// float32 first where the element is narrower). For tests, and for reading.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/transforms/gaf_options.h"

namespace stoker::transforms {

// Images as float64, row-major S x S, empty where not asked for. Not clipped, as in pyts.
struct GafImages {
  std::vector<double> gasf;
  std::vector<double> gadf;
};

// Arguments and errors as GafEncoder::Encode.
absl::StatusOr<GafImages> ReferenceGaf(const GafOptions& options, absl::Span<const double> window, int64_t valid_size,
                                       const ValueRange& bounds);

// The elements of `image` as `dtype` (F32, F16, BF16, U8 or U16) to `out`, image.size() of them: clipped to [-1, 1],
// then as gaf.h says.
void QuantizeReference(absl::Span<const double> image, v1::DType dtype, void* out);

}  // namespace stoker::transforms
