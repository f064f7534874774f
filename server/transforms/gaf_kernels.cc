// SPDX-License-Identifier: Apache-2.0
// Compiled once for each instruction set by Highway's foreach_target.h.
#include "server/transforms/gaf_kernels.h"

// Processors with SSSE3 but no SSE4 are gone; SVE vectors have no fixed size, and NEON runs on the same processors.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/transforms/gaf_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"
#include "server/transforms/gaf_float-inl.h"
#include "server/transforms/gaf_integer-inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {

void StreamLines(const uint8_t* from, uint8_t* to, size_t lines) {
  const hn::ScalableTag<uint8_t> d;
  const size_t n = hn::Lanes(d);
  for (size_t i = 0; i < lines * kCacheLineBytes; i += n) hn::Stream(hn::Load(d, from + i), d, to + i);
}

void FillLines(uint8_t* to, size_t lines) {
  const hn::ScalableTag<uint8_t> d;
  const auto value = hn::Set(d, uint8_t{0x3f});
  for (size_t i = 0; i < lines * kCacheLineBytes; i += hn::Lanes(d)) hn::Stream(value, d, to + i);
}

const GafKernels* Kernels(std::string_view name) {
  static const GafKernels kernels = {
      name,
      &StreamLines,
      &FillLines,
      {&PrepareFloat<AsF32>, &PrepareFloat<AsF16>, &PrepareFloat<AsBf16>, &PrepareInteger<uint8_t>,
       &PrepareInteger<uint16_t>},
      {&FloatBlock<AsF32, false>, &FloatBlock<AsF16, false>, &FloatBlock<AsBf16, false>, &IntegerBlock<uint8_t>,
       &IntegerBlock<uint16_t>},
      {StreamRows<AsF32>(), StreamRows<AsF16>(), StreamRows<AsBf16>(), {}, {}},
  };
  return &kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoker::transforms {

std::vector<const GafKernels*> SupportedGafKernels() {
  std::vector<const GafKernels*> kernels;
  [[maybe_unused]] const int64_t supported = hwy::SupportedTargets();
#if HWY_TARGETS & HWY_AVX3
  if (supported & HWY_AVX3) kernels.push_back(N_AVX3::Kernels("avx3"));
#endif
#if HWY_TARGETS & HWY_AVX2
  if (supported & HWY_AVX2) kernels.push_back(N_AVX2::Kernels("avx2"));
#endif
#if HWY_TARGETS & HWY_SSE4
  if (supported & HWY_SSE4) kernels.push_back(N_SSE4::Kernels("sse4"));
#endif
#if HWY_TARGETS & HWY_NEON
  if (supported & HWY_NEON) kernels.push_back(N_NEON::Kernels("neon"));
#endif
#if HWY_TARGETS & HWY_SCALAR
  kernels.push_back(N_SCALAR::Kernels("scalar"));
#endif
  return kernels;
}

}  // namespace stoker::transforms
#endif  // HWY_ONCE
