// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/float_rows.h"

#include <algorithm>

#include "server/transforms/crystal_kernels.h"
#include "shared/tensor/dtype.h"

namespace stoker::transforms {
namespace {

const CrystalKernels& Kernels() {
  static const CrystalKernels* const best = FindCrystalKernels("");
  return *best;
}

}  // namespace

void RoundFloats(absl::Span<const float> from, v1::DType dtype, void* to) {
  if (!from.empty()) Kernels().RoundTo(dtype)(from.data(), from.size(), to);
}

std::vector<float> RbfCentres(double low, double high, uint32_t bins) {
  std::vector<float> centres(bins);
  for (uint32_t k = 0; k < bins; ++k) centres[k] = static_cast<float>(low + (high - low) * k / (bins - 1));
  return centres;
}

void ExpandRbf(absl::Span<const float> distances, absl::Span<const float> centres, float gamma, v1::DType dtype,
               void* to) {
  std::vector<float> padded(centres.size() + kRowPadding), row(centres.size() + kRowPadding);
  std::copy(centres.begin(), centres.end(), padded.begin());
  auto* out = static_cast<uint8_t*>(to);
  for (const float distance : distances) {
    Kernels().rbf(distance, padded.data(), centres.size(), gamma, row.data());
    RoundFloats({row.data(), centres.size()}, dtype, out);
    out += centres.size() * tensor::DTypeSize(dtype);
  }
}

}  // namespace stoker::transforms
