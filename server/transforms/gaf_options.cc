// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/gaf_options.h"

#include <cmath>

#include "absl/strings/str_format.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/dtype.h"

namespace stoker::transforms {
namespace {

using v1::GafRecipe;

absl::Status Unknown(std::string_view field, int value) {
  return absl::InvalidArgumentError(absl::StrFormat(
      "recipe.gaf.%s: value %d is unknown to this version; see proto/stoker/v1/recipe.proto", field, value));
}

absl::Status CheckEnums(const GafRecipe& recipe) {
  if (!GafRecipe::Scale_IsValid(recipe.scale())) return Unknown("scale", recipe.scale());
  if (!v1::DType_IsValid(recipe.dtype())) return Unknown("dtype", recipe.dtype());
  if (!GafRecipe::SeriesScale_IsValid(recipe.series_scale())) return Unknown("series_scale", recipe.series_scale());
  if (!GafRecipe::Stats_IsValid(recipe.stats())) return Unknown("stats", recipe.stats());
  return absl::OkStatus();
}

// Sets gasf and gadf.
absl::Status ReadFields(const GafRecipe& recipe, GafOptions* options) {
  if (recipe.fields().empty()) return absl::OkStatus();  // both, as by default
  bool seen[GafRecipe::Field_ARRAYSIZE] = {};
  for (const int field : recipe.fields()) {
    if (!GafRecipe::Field_IsValid(field) || field == GafRecipe::FIELD_UNSPECIFIED) return Unknown("fields", field);
    if (seen[field]) {
      return absl::InvalidArgumentError(
          absl::StrFormat("recipe.gaf.fields: %s is asked for twice; name each field once",
                          GafRecipe::Field_Name(static_cast<GafRecipe::Field>(field))));
    }
    seen[field] = true;
  }
  options->gasf = seen[GafRecipe::GASF];
  options->gadf = seen[GafRecipe::GADF];
  return absl::OkStatus();
}

absl::Status CheckFixedRange(const GafRecipe& recipe) {
  const bool fixed = recipe.scale() == GafRecipe::FIXED;
  if (fixed == recipe.has_fixed_range()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fixed ? "recipe.gaf.fixed_range: missing; scale FIXED needs the range that values are scaled from"
            : "recipe.gaf.fixed_range: is for scale FIXED only; leave it out or choose that scale");
}

}  // namespace

absl::StatusOr<GafOptions> GafOptions::FromRecipe(const GafRecipe& recipe, int64_t points) {
  GafOptions options;
  STOKER_RETURN_IF_ERROR(CheckEnums(recipe));
  STOKER_RETURN_IF_ERROR(ReadFields(recipe, &options));
  STOKER_RETURN_IF_ERROR(CheckFixedRange(recipe));
  const bool images = options.gasf || options.gadf;
  if (recipe.image_size() > points) {
    return absl::InvalidArgumentError(
        absl::StrFormat("recipe.gaf.image_size: %d is above the %d points of a window; choose at most %d",
                        recipe.image_size(), points, points));
  }
  options.image_size = recipe.image_size() != 0 ? recipe.image_size() : points;
  // Without images, nobody asked for this size.
  if (!images && recipe.image_size() == 0) options.image_size = kMinImageSize;
  options.overlapping = recipe.overlapping();
  if (recipe.has_sample_range()) options.sample_range = {recipe.sample_range().low(), recipe.sample_range().high()};
  if (recipe.scale() != GafRecipe::SCALE_UNSPECIFIED) options.scale = recipe.scale();
  if (recipe.has_fixed_range()) options.fixed_range = {recipe.fixed_range().low(), recipe.fixed_range().high()};
  if (recipe.dtype() != v1::DTYPE_UNSPECIFIED) options.dtype = recipe.dtype();
  STOKER_RETURN_IF_ERROR(options.Check());
  return options;
}

absl::Status GafOptions::Check() const {
  if (image_size < kMinImageSize || image_size > kMaxImageSize) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "recipe.gaf.image_size: %d is outside [%d, %d] (0 takes the length of the windows); choose one inside",
        image_size, kMinImageSize, kMaxImageSize));
  }
  if (!(-1.0 <= sample_range.low && sample_range.low < sample_range.high && sample_range.high <= 1.0)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("recipe.gaf.sample_range: [%g, %g] is not a range within [-1, 1]; choose -1 <= low < high <= 1",
                        sample_range.low, sample_range.high));
  }
  if (!GafRecipe::Scale_IsValid(scale) || scale == GafRecipe::SCALE_UNSPECIFIED) return Unknown("scale", scale);
  if (scale == GafRecipe::FIXED &&
      !(std::isfinite(fixed_range.low) && std::isfinite(fixed_range.high) && fixed_range.low < fixed_range.high &&
        std::isfinite(fixed_range.high - fixed_range.low))) {
    return absl::InvalidArgumentError(
        absl::StrFormat("recipe.gaf.fixed_range: [%g, %g] is not a finite range; choose low < high", fixed_range.low,
                        fixed_range.high));
  }
  if (dtype < v1::DTYPE_F32 || dtype > v1::DTYPE_U16) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "recipe.gaf.dtype: %s is not for images; choose F32, F16, BF16, U8 or U16", v1::DType_Name(dtype)));
  }
  return absl::OkStatus();
}

size_t GafOptions::image_bytes() const {
  return static_cast<size_t>(image_size) * static_cast<size_t>(image_size) * tensor::DTypeSize(dtype);
}

}  // namespace stoker::transforms
