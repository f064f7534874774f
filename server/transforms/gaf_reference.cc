// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/gaf_reference.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "server/transforms/paa.h"
#include "server/transforms/scale.h"
#include "shared/base/status_macros.h"

namespace stoker::transforms {
namespace {

using Image = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// `image` in the top left of size x size zeros.
std::vector<double> Padded(const Image& image, int64_t size) {
  Image padded = Image::Zero(size, size);
  padded.topLeftCorner(image.rows(), image.cols()) = image;
  return std::vector<double>(padded.data(), padded.data() + padded.size());
}

// T's values of float32(clip(image, -1, 1)).
template <typename T, typename Convert>
void ConvertAll(absl::Span<const double> image, void* out, Convert convert) {
  T* to = static_cast<T*>(out);
  for (const double g : image) *to++ = convert(std::clamp(static_cast<float>(g), -1.0f, 1.0f));
}

template <typename T>
T RoundToCode(float g) {
  const double half_max = static_cast<T>(-1) / 2.0;
  return static_cast<T>(std::nearbyint((static_cast<double>(g) + 1.0) * half_max));  // to even
}

}  // namespace

absl::StatusOr<GafImages> ReferenceGaf(const GafOptions& options, absl::Span<const double> window, int64_t valid_size,
                                       const ValueRange& bounds) {
  const int64_t n = static_cast<int64_t>(window.size());
  if (valid_size < 1 || valid_size > options.image_size || valid_size > n) {
    return absl::InvalidArgumentError("valid_size is outside [1, min(image_size, points)]");
  }
  Eigen::VectorXd x(valid_size);
  const absl::Span<double> values(x.data(), valid_size);
  if (n == valid_size) {
    std::copy(window.begin(), window.end(), values.begin());
  } else {
    PaaMeans(window, PaaSegments(n, valid_size, options.overlapping), values);
  }
  STOKER_RETURN_IF_ERROR(
      ScaleWindow(options, options.scale == v1::GafRecipe::FIXED ? options.fixed_range : bounds, values));
  const Eigen::VectorXd s = (1.0 - x.array().square()).cwiseMax(0.0).cwiseMin(1.0).sqrt();
  GafImages images;
  if (options.gasf) images.gasf = Padded(x * x.transpose() - s * s.transpose(), options.image_size);
  if (options.gadf) images.gadf = Padded(s * x.transpose() - x * s.transpose(), options.image_size);
  return images;
}

void QuantizeReference(absl::Span<const double> image, v1::DType dtype, void* out) {
  switch (dtype) {
    case v1::DTYPE_F16:
      return ConvertAll<Eigen::half>(image, out, [](float g) { return Eigen::half(g); });
    case v1::DTYPE_BF16:
      return ConvertAll<Eigen::bfloat16>(image, out, [](float g) { return Eigen::bfloat16(g); });
    case v1::DTYPE_U8:
      return ConvertAll<uint8_t>(image, out, &RoundToCode<uint8_t>);
    case v1::DTYPE_U16:
      return ConvertAll<uint16_t>(image, out, &RoundToCode<uint16_t>);
    default:
      return ConvertAll<float>(image, out, [](float g) { return g; });
  }
}

}  // namespace stoker::transforms
