// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/float_rows.h"

#include <Eigen/Core>
#include <cmath>
#include <cstring>

#include "shared/tensor/dtype.h"

namespace stoker::transforms {

void RoundFloats(absl::Span<const float> from, v1::DType dtype, void* to) {
  if (from.empty()) return;
  if (dtype == v1::DTYPE_F16) {
    auto* const out = static_cast<Eigen::half*>(to);
    for (size_t i = 0; i < from.size(); ++i) out[i] = static_cast<Eigen::half>(from[i]);
  } else if (dtype == v1::DTYPE_BF16) {
    auto* const out = static_cast<Eigen::bfloat16*>(to);
    for (size_t i = 0; i < from.size(); ++i) out[i] = static_cast<Eigen::bfloat16>(from[i]);
  } else {
    std::memcpy(to, from.data(), from.size() * sizeof(float));
  }
}

std::vector<float> RbfCentres(double low, double high, uint32_t bins) {
  std::vector<float> centres(bins);
  for (uint32_t k = 0; k < bins; ++k) centres[k] = static_cast<float>(low + (high - low) * k / (bins - 1));
  return centres;
}

void ExpandRbf(absl::Span<const float> distances, absl::Span<const float> centres, float gamma, v1::DType dtype,
               void* to) {
  std::vector<float> row(centres.size());
  auto* out = static_cast<uint8_t*>(to);
  for (const float distance : distances) {
    for (size_t k = 0; k < centres.size(); ++k) {
      const float d = distance - centres[k];
      row[k] = std::exp(-gamma * (d * d));
    }
    RoundFloats(row, dtype, out);
    out += centres.size() * tensor::DTypeSize(dtype);
  }
}

}  // namespace stoker::transforms
