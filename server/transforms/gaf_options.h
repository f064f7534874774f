// SPDX-License-Identifier: Apache-2.0
// What the images of a recipe are, resolved and checked once. Plain values; any thread.
//
//   STOKER_ASSIGN_OR_RETURN(GafOptions options, GafOptions::FromRecipe(recipe, /*points=*/96));
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "stoker/v1/recipe.pb.h"

namespace stoker::transforms {

struct ValueRange {
  double low;
  double high;
  bool operator==(const ValueRange&) const = default;
};

inline constexpr int64_t kMinImageSize = 2;
inline constexpr int64_t kMaxImageSize = 4096;

struct GafOptions {
  bool gasf = true;
  bool gadf = true;
  int64_t image_size = 0;  // S in [kMinImageSize, kMaxImageSize]
  bool overlapping = false;
  ValueRange sample_range = {-1.0, 1.0};
  v1::GafRecipe::Scale scale = v1::GafRecipe::WINDOW;
  ValueRange fixed_range = {0.0, 1.0};  // for FIXED only
  v1::DType dtype = v1::DTYPE_F32;      // F32, F16, BF16, U8 or U16

  // Defaults filled in. `points`: T, of the longest sample in padded data sets, >= 1. A recipe that asks for no image
  // (series or statistics alone) gives gasf == gadf == false and is checked all the same.
  // InvalidArgument naming the field (as in recipe.proto) for unknown enum values, numbers out of range, a field asked
  // for twice, an image of one pixel or of more pixels than points, `fixed_range` without FIXED or FIXED without it.
  static absl::StatusOr<GafOptions> FromRecipe(const v1::GafRecipe& recipe, int64_t points);

  // The same checks on these values as on a recipe's. OK from what FromRecipe returned.
  absl::Status Check() const;

  // Bytes of one image of one field: S * S * element size.
  size_t image_bytes() const;
};

}  // namespace stoker::transforms
