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

void OffsetIndices(absl::Span<const int32_t> from, int64_t offset, v1::DType dtype, void* to) {
  if (from.empty()) return;
  const OffsetKernel kernel = dtype == v1::DTYPE_I32 ? Kernels().offset_i32 : Kernels().offset_i64;
  kernel(from.data(), from.size(), offset, to);
}

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
  constexpr size_t kRows = 64;  // at a time: each time shares lines with what is written before and after
  const size_t width = centres.size();
  std::vector<float> padded(width + kRowPadding), rows(kRows * width + kRowPadding);
  std::copy(centres.begin(), centres.end(), padded.begin());
  auto* out = static_cast<uint8_t*>(to);
  for (size_t done = 0; done < distances.size(); done += kRows) {
    const size_t count = std::min(kRows, distances.size() - done);
    for (size_t i = 0; i < count; ++i) {
      Kernels().rbf(distances[done + i], padded.data(), width, gamma, rows.data() + i * width);
    }
    RoundFloats({rows.data(), count * width}, dtype, out);
    out += count * width * tensor::DTypeSize(dtype);
  }
}

}  // namespace stoker::transforms
