// SPDX-License-Identifier: Apache-2.0
// What the row kernels read, made once a window. Included once for each instruction set.
#if defined(STOKER_GAF_POINTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_GAF_POINTS_INL_H_
#undef STOKER_GAF_POINTS_INL_H_
#else
#define STOKER_GAF_POINTS_INL_H_
#endif

#include <algorithm>
#include <bit>

#include "hwy/highway.h"
#include "server/transforms/gaf_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// s = sqrt(clip(1 - x^2, 0, 1)). The padding of both becomes NaN with a payload that arithmetic hands on and that the
// integer kernels take for a number beyond doubt, in float32 as in float64.
inline void PrepareRoots(const GafPoints& p) {
  const hn::ScalableTag<double> d;
  const auto one = hn::Set(d, 1.0);
  for (int64_t j = 0; j < p.size; j += hn::Lanes(d)) {
    const auto x = hn::Load(d, p.x + j);
    const auto rest = hn::Sub(one, hn::Mul(x, x));
    hn::Store(hn::Sqrt(hn::Min(hn::Max(rest, hn::Zero(d)), one)), d, p.s + j);
  }
  const double padding = std::bit_cast<double>(uint64_t{0x7ff8555555555555});
  std::fill(p.x + p.size, p.x + PaddedPixels(p.size), padding);
  std::fill(p.s + p.size, p.s + PaddedPixels(p.size), padding);
}

// out[j] = value(j) for j in [0, size), in an order that suits row kernels which make one word of kWays neighbouring
// pixels in each lane: of each block of lanes * kWays points, vector q holds the points q, q + kWays, q + 2 kWays, …
template <int kWays, class D, class F>
HWY_INLINE void Interleave(D d, int64_t size, const F& value, hn::TFromD<D>* out) {
  using T = hn::TFromD<D>;
  const int64_t n = hn::Lanes(d);
  HWY_ALIGN T points[kWays * hn::MaxLanes(d)];
  for (int64_t block = 0; block < size; block += n * kWays) {
    for (int64_t k = 0; k < n * kWays; ++k) points[k] = static_cast<T>(value(block + k));
    hn::Vec<D> v[4];
    if constexpr (kWays == 1) v[0] = hn::Load(d, points);
    if constexpr (kWays == 2) hn::LoadInterleaved2(d, points, v[0], v[1]);
    if constexpr (kWays == 4) hn::LoadInterleaved4(d, points, v[0], v[1], v[2], v[3]);
    for (int q = 0; q < kWays; ++q) hn::Store(v[q], d, out + block + q * n);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
