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

// Row kernels with ways > 1 make one word of `ways` neighbouring pixels in each lane. For that, of each block of
// lanes * ways points, vector q holds the points q, q + ways, q + 2 ways, …
template <int kWays, typename Out, typename In>
HWY_INLINE void Interleave(const In* in, int64_t size, int64_t lanes, Out* out) {
  for (int64_t block = 0; block < size; block += lanes * kWays) {
    for (int64_t k = 0; k < lanes; ++k) {
      for (int q = 0; q < kWays; ++q) out[block + q * lanes + k] = static_cast<Out>(in[block + k * kWays + q]);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
