// SPDX-License-Identifier: Apache-2.0
// Compiled once for each instruction set by Highway's foreach_target.h.
#include "server/transforms/crystal_kernels.h"

// As in gaf_kernels.cc.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/transforms/crystal_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"
#include "server/transforms/float_rows-inl.h"
#include "server/transforms/line_graph-inl.h"
#include "server/transforms/neighbour_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {

const CrystalKernels* CrystalKernelSet(std::string_view name) {
  static const CrystalKernels kernels = {
      .name = name,
      .add_near = &AddNear,
      .collect = &Collect,
      .sort_few = &SortFew,
      .sort_many = &SortMany,
      .list_edges = &ListEdges,
      .directions = &DirectionsOf,
      .triplets_i32 = {&Triplets<int32_t, AsF32>, &Triplets<int32_t, AsF16>, &Triplets<int32_t, AsBf16>},
      .triplets_i64 = {&Triplets<int64_t, AsF32>, &Triplets<int64_t, AsF16>, &Triplets<int64_t, AsBf16>},
      .offset_i32 = &OffsetIndices<int32_t>,
      .offset_i64 = &OffsetIndices<int64_t>,
      .round = {&RoundRow<AsF32>, &RoundRow<AsF16>, &RoundRow<AsBf16>},
      .rbf = &Rbf,
  };
  return &kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoker::transforms {

std::vector<const CrystalKernels*> SupportedCrystalKernels() {
  std::vector<const CrystalKernels*> kernels;
  [[maybe_unused]] const int64_t supported = hwy::SupportedTargets();
#if HWY_TARGETS & HWY_AVX3
  if (supported & HWY_AVX3) kernels.push_back(N_AVX3::CrystalKernelSet("avx3"));
#endif
#if HWY_TARGETS & HWY_AVX2
  if (supported & HWY_AVX2) kernels.push_back(N_AVX2::CrystalKernelSet("avx2"));
#endif
#if HWY_TARGETS & HWY_SSE4
  if (supported & HWY_SSE4) kernels.push_back(N_SSE4::CrystalKernelSet("sse4"));
#endif
#if HWY_TARGETS & HWY_NEON
  if (supported & HWY_NEON) kernels.push_back(N_NEON::CrystalKernelSet("neon"));
#endif
#if HWY_TARGETS & HWY_SCALAR
  kernels.push_back(N_SCALAR::CrystalKernelSet("scalar"));
#endif
  return kernels;
}

const CrystalKernels* FindCrystalKernels(std::string_view name) {
  for (const CrystalKernels* kernels : SupportedCrystalKernels()) {
    if (name.empty() || name == kernels->name) return kernels;
  }
  return nullptr;
}

}  // namespace stoker::transforms
#endif  // HWY_ONCE
