// SPDX-License-Identifier: Apache-2.0
// The kernels of LineGraph. Included once for each instruction set.
#if defined(STOKER_LINE_GRAPH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_LINE_GRAPH_INL_H_
#undef STOKER_LINE_GRAPH_INL_H_
#else
#define STOKER_LINE_GRAPH_INL_H_
#endif

#include <algorithm>
#include <cstring>

#include "hwy/highway.h"
#include "server/transforms/crystal_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Triplets at a time. Most runs are one step: the last triplets of a step that are beyond the run are overwritten by
// the next run.
constexpr size_t kStep = 16;
static_assert(kStep <= kRowPadding);

template <typename Index>
HWY_INLINE void IndexStep(int64_t edge, int64_t partner, Index* first, Index* second) {
  const hn::ScalableTag<Index> d;
  const auto edges = hn::Set(d, static_cast<Index>(edge));
  // Not Iota(d, partner), which is put together in memory.
  auto partners = hn::Add(hn::Set(d, static_cast<Index>(partner)), hn::Iota(d, 0));
  for (size_t i = 0; i < kStep; i += hn::Lanes(d)) {
    hn::StoreU(edges, d, first + i);
    hn::StoreU(partners, d, second + i);
    partners = hn::Add(partners, hn::Set(d, static_cast<Index>(hn::Lanes(d))));
  }
}

template <typename Index>
void TripletIndex(const PartnerRun* runs, size_t run_count, size_t triplets, int64_t offset, void* first,
                  void* second) {
  Index* a = static_cast<Index*>(first);
  Index* b = static_cast<Index*>(second);
  const Index* const end = a + triplets;
  for (size_t n = 0; n < run_count; ++n) {
    const PartnerRun run = runs[n];
    const auto count = static_cast<size_t>(run.count);
    for (size_t i = 0; i < count; i += kStep) {
      const int64_t edge = run.edge + offset, partner = run.begin + static_cast<int64_t>(i) + offset;
      if (end - (a + i) >= static_cast<ptrdiff_t>(kStep)) {
        IndexStep(edge, partner, a + i, b + i);
      } else {
        Index edges[2 * kStep], partners[2 * kStep];  // twice the room: GCC warns of stores that it does not make
        IndexStep(edge, partner, edges, partners);
        const size_t rest = std::min(kStep, count - i);
        std::copy_n(edges, rest, a + i);
        std::copy_n(partners, rest, b + i);
      }
    }
    a += count;
    b += count;
  }
}

inline void DirectionsOf(const float* r, size_t edges, float* x, float* y, float* z) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  HWY_ALIGN float rest[3 * hn::MaxLanes(d)] = {};
  for (size_t e = 0; e < edges; e += lanes) {
    const float* from = r + 3 * e;
    if (e + lanes > edges) {
      std::memcpy(rest, from, 3 * (edges - e) * sizeof(float));
      from = rest;
    }
    hn::Vec<decltype(d)> a, b, c;
    hn::LoadInterleaved3(d, from, a, b, c);
    const auto length = hn::Sqrt(hn::Add(hn::Add(hn::Mul(a, a), hn::Mul(b, b)), hn::Mul(c, c)));
    const auto scale = hn::IfThenElseZero(hn::Gt(length, hn::Zero(d)), hn::Div(hn::Set(d, 1.0f), length));
    hn::StoreU(hn::Mul(a, scale), d, x + e);
    hn::StoreU(hn::Mul(b, scale), d, y + e);
    hn::StoreU(hn::Mul(c, scale), d, z + e);
  }
}

inline void TripletCosine(const Directions& directions, const PartnerRun* runs, size_t run_count, size_t triplets,
                          float sign, float* cosines) {
  const hn::ScalableTag<float> d;
  const auto one = hn::Set(d, 1.0f), minus_one = hn::Set(d, -1.0f);
  const Directions to = directions;  // not in memory that `cosines` might be, for all the compiler knows
  const float* const end = cosines + triplets;
  for (size_t n = 0; n < run_count; ++n) {
    const PartnerRun run = runs[n];
    const auto count = static_cast<size_t>(run.count);
    const auto x = hn::Set(d, sign * to.x[run.edge]);
    const auto y = hn::Set(d, sign * to.y[run.edge]);
    const auto z = hn::Set(d, sign * to.z[run.edge]);
    const auto step = [&](size_t from, float* out) HWY_ATTR {
      for (size_t b = from; b < from + kStep; b += hn::Lanes(d)) {
        const auto xy = hn::Add(hn::Mul(x, hn::LoadU(d, to.x + b)), hn::Mul(y, hn::LoadU(d, to.y + b)));
        const auto cosine = hn::Add(xy, hn::Mul(z, hn::LoadU(d, to.z + b)));
        hn::StoreU(hn::Min(hn::Max(cosine, minus_one), one), d, out + (b - from));
      }
    };
    for (size_t i = 0; i < count; i += kStep) {
      if (end - (cosines + i) >= static_cast<ptrdiff_t>(kStep)) {
        step(run.begin + i, cosines + i);
      } else {
        float last[2 * kStep];  // as in TripletIndex
        step(run.begin + i, last);
        std::copy_n(last, std::min(kStep, count - i), cosines + i);
      }
    }
    cosines += count;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
