// SPDX-License-Identifier: Apache-2.0
// Rows in f32, f16 and bf16. Arithmetic in float32, each product and the difference rounded: the same on every
// instruction set, exactly antisymmetric for GADF. Included once for each instruction set.
#if defined(STOKER_GAF_FLOAT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_GAF_FLOAT_INL_H_
#undef STOKER_GAF_FLOAT_INL_H_
#else
#define STOKER_GAF_FLOAT_INL_H_
#endif

#include "hwy/highway.h"
#include "server/transforms/gaf_points-inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {

using FloatTag = hn::ScalableTag<float>;
using FloatVector = hn::Vec<FloatTag>;
using WordTag = hn::RebindToUnsigned<FloatTag>;
using WordVector = hn::Vec<WordTag>;

// Past the caches or not.
template <bool kStream, class V, class D>
HWY_INLINE void Store(V v, D d, hn::TFromD<D>* out) {
  if constexpr (kStream) {
    hn::Stream(v, d, out);
  } else {
    hn::StoreU(v, d, out);
  }
}

// Rounding may leave [-1, 1] by one unit of the last place.
struct AsF32 {
  using Element = float;
  static constexpr int kWays = 1;
  template <bool kStream>
  static HWY_INLINE void Put(const FloatVector* g, float* out) {
    const FloatTag d;
    Store<kStream>(hn::Min(hn::Max(g[0], hn::Set(d, -1.0f)), hn::Set(d, 1.0f)), d, out);
  }
};

struct AsF16 {
  using Element = uint16_t;
  static constexpr int kWays = 1;
  template <bool kStream>
  static HWY_INLINE void Put(const FloatVector* g, uint16_t* out) {
    const hn::Rebind<uint16_t, FloatTag> d;
#if HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SCALAR
    Store<kStream>(hn::TruncateTo(d, Rounded(g[0])), d, out);
#else
    Store<kStream>(hn::BitCast(d, hn::DemoteTo(hn::Rebind<hwy::float16_t, FloatTag>(), g[0])), d, out);
#endif
  }

#if HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SCALAR
  // Without an instruction for it; Highway's own conversion truncates there. |g| < 65520.
  static HWY_INLINE WordVector Rounded(FloatVector g) {
    const WordTag d;
    const auto bits = hn::BitCast(d, g);
    const auto sign = hn::And(bits, hn::Set(d, 0x80000000u));
    const auto magnitude = hn::Xor(bits, sign);
    // Normal numbers: exponent from bias 127 to 15, half of the dropped unit added (less one where the kept bit is
    // even).
    const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(d, 1u));
    const auto normal = hn::ShiftRight<13>(hn::Add(hn::Add(magnitude, hn::Set(d, 0xc8000fffu)), odd));
    // Below 2^-14 the unit is 2^-24, that of float32 in [0.5, 1): the addition rounds.
    const auto half = hn::Set(FloatTag(), 0.5f);
    const auto small = hn::Sub(hn::BitCast(d, hn::Add(hn::BitCast(FloatTag(), magnitude), half)), hn::BitCast(d, half));
    const auto is_small = hn::Lt(hn::BitCast(FloatTag(), magnitude), hn::Set(FloatTag(), 0x1p-14f));
    return hn::Or(hn::IfThenElse(hn::RebindMask(d, is_small), small, normal), hn::ShiftRight<16>(sign));
  }
#endif
};

struct AsBf16 {
  using Element = uint16_t;
#if HWY_TARGET == HWY_SCALAR
  static constexpr int kWays = 1;
  template <bool kStream>
  static HWY_INLINE void Put(const FloatVector* g, uint16_t* out) {
    *out = static_cast<uint16_t>(hn::GetLane(Rounded(g[0])) >> 16);
  }
#else
  static constexpr int kWays = 2;
  template <bool kStream>
  static HWY_INLINE void Put(const FloatVector* g, uint16_t* out) {
    const hn::Repartition<uint16_t, FloatTag> d;
    const auto even = hn::BitCast(d, hn::ShiftRight<16>(Rounded(g[0])));
    Store<kStream>(hn::OddEven(hn::BitCast(d, Rounded(g[1])), even), d, out);
  }
#endif
  // The upper half of each word.
  static HWY_INLINE WordVector Rounded(FloatVector g) {
    const WordTag d;
    const auto bits = hn::BitCast(d, g);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
    return hn::Add(hn::Add(bits, hn::Set(d, 0x7fffu)), odd);
  }
};

template <class Format>
void PrepareFloat(const GafPoints& p) {
  PrepareRoots(p);
  Interleave<Format::kWays>(
      FloatTag(), p.size, [&p](int64_t j) { return p.x[j]; }, static_cast<float*>(p.fast_x));
  Interleave<Format::kWays>(
      FloatTag(), p.size, [&p](int64_t j) { return p.s[j]; }, static_cast<float*>(p.fast_s));
}

// a x_j - b s_j for the columns of one row: of GASF with a = x_i and b = s_i, of GADF with a = s_i and b = x_i.
template <class Format, bool kStream>
HWY_INLINE void FloatRow(const float* HWY_RESTRICT x, const float* HWY_RESTRICT s, double a, double b, int64_t columns,
                         typename Format::Element* HWY_RESTRICT out) {
  constexpr int kWays = Format::kWays;
  const FloatTag d;
  const int64_t n = hn::Lanes(d);
  const auto va = hn::Set(d, static_cast<float>(a));
  const auto vb = hn::Set(d, static_cast<float>(b));
  for (int64_t j = 0; j < columns; j += n * kWays) {
    FloatVector g[kWays];
    HWY_UNROLL(2)
    for (int q = 0; q < kWays; ++q) {
      g[q] = hn::Sub(hn::Mul(va, hn::Load(d, x + j + q * n)), hn::Mul(vb, hn::Load(d, s + j + q * n)));
    }
    Format::template Put<kStream>(g, out + j);
  }
}

// Row by row, one field after the other: memory takes two streams best in runs of several lines.
template <class Format, bool kStream>
void FloatBlock(const GafPoints& points, const Block& block, void* gasf, void* gadf) {
  const GafPoints p = points;  // of its own, so that stores to the outputs cannot change it
  const float* x = static_cast<const float*>(p.fast_x) + block.begin;
  const float* s = static_cast<const float*>(p.fast_s) + block.begin;
  auto* sum = static_cast<typename Format::Element*>(gasf);
  auto* difference = static_cast<typename Format::Element*>(gadf);
  for (int64_t k = 0; k < block.rows; ++k) {
    const double xi = p.x[block.row + k], si = p.s[block.row + k];
    const int64_t at = k * block.stride;
    if (sum != nullptr) FloatRow<Format, kStream>(x, s, xi, si, block.columns, sum + at);
    if (difference != nullptr) FloatRow<Format, kStream>(x, s, si, xi, block.columns, difference + at);
  }
}

// None where a step is less than the 16 bytes that x86 streams at least.
template <class Format>
StreamKernel StreamRows() {
  const size_t step = hn::Lanes(FloatTag()) * Format::kWays * sizeof(typename Format::Element);
  if (HWY_TARGET == HWY_SSE4 && step < 16) return {};
  return {&FloatBlock<Format, true>, step};
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
