// SPDX-License-Identifier: Apache-2.0
// The kernels of LineGraph. Included once for each instruction set.
#if defined(STOKER_LINE_GRAPH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_LINE_GRAPH_INL_H_
#undef STOKER_LINE_GRAPH_INL_H_
#else
#define STOKER_LINE_GRAPH_INL_H_
#endif

#include "hwy/highway.h"
#include "server/transforms/crystal_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename Index>
void TripletIndex(const PartnerRun* runs, size_t run_count, int64_t offset, void* first, void* second) {
  const hn::ScalableTag<Index> d;
  Index* a = static_cast<Index*>(first);
  Index* b = static_cast<Index*>(second);
  const auto step = hn::Set(d, static_cast<Index>(hn::Lanes(d)));
  for (const PartnerRun* run = runs; run != runs + run_count; ++run) {
    const auto edge = hn::Set(d, static_cast<Index>(run->edge + offset));
    auto partner = hn::Iota(d, static_cast<Index>(run->begin + offset));
    for (int32_t i = 0; i < run->count; i += static_cast<int32_t>(hn::Lanes(d))) {
      hn::StoreU(edge, d, a + i);
      hn::StoreU(partner, d, b + i);
      partner = hn::Add(partner, step);
    }
    a += run->count;
    b += run->count;
  }
}

inline void TripletCosine(const Directions& directions, const PartnerRun* runs, size_t run_count, float sign,
                          float* cosines) {
  const hn::ScalableTag<float> d;
  const auto one = hn::Set(d, 1.0f), minus_one = hn::Set(d, -1.0f);
  for (const PartnerRun* run = runs; run != runs + run_count; ++run) {
    const auto x = hn::Set(d, sign * directions.x[run->edge]);
    const auto y = hn::Set(d, sign * directions.y[run->edge]);
    const auto z = hn::Set(d, sign * directions.z[run->edge]);
    for (int32_t i = 0; i < run->count; i += static_cast<int32_t>(hn::Lanes(d))) {
      const int32_t b = run->begin + i;
      const auto xy = hn::Add(hn::Mul(x, hn::LoadU(d, directions.x + b)), hn::Mul(y, hn::LoadU(d, directions.y + b)));
      const auto cosine = hn::Add(xy, hn::Mul(z, hn::LoadU(d, directions.z + b)));
      hn::StoreU(hn::Min(hn::Max(cosine, minus_one), one), d, cosines + i);
    }
    cosines += run->count;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
