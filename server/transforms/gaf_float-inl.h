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

// Rounding may leave [-1, 1] by one unit of the last place.
struct AsF32 {
  using Element = float;
  static constexpr int kWays = 1;
  static HWY_INLINE void Put(const FloatVector* g, float* out) {
    const FloatTag d;
    hn::StoreU(hn::Min(hn::Max(g[0], hn::Set(d, -1.0f)), hn::Set(d, 1.0f)), d, out);
  }
};

struct AsF16 {
  using Element = uint16_t;
  static constexpr int kWays = 1;
  static HWY_INLINE void Put(const FloatVector* g, uint16_t* out) {
    const hn::Rebind<uint16_t, FloatTag> d;
#if HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SCALAR
    hn::StoreU(hn::TruncateTo(d, Rounded(g[0])), d, out);
#else
    hn::StoreU(hn::BitCast(d, hn::DemoteTo(hn::Rebind<hwy::float16_t, FloatTag>(), g[0])), d, out);
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
  static HWY_INLINE void Put(const FloatVector* g, uint16_t* out) {
    *out = static_cast<uint16_t>(hn::GetLane(Rounded(g[0])) >> 16);
  }
#else
  static constexpr int kWays = 2;
  static HWY_INLINE void Put(const FloatVector* g, uint16_t* out) {
    const hn::Repartition<uint16_t, FloatTag> d;
    const auto even = hn::BitCast(d, hn::ShiftRight<16>(Rounded(g[0])));
    hn::StoreU(hn::OddEven(hn::BitCast(d, Rounded(g[1])), even), d, out);
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

template <class Format, bool kGasf, bool kGadf>
HWY_INLINE void FloatRow(const GafPoints& p, int64_t row, int64_t begin, int64_t columns,
                         typename Format::Element* gasf, typename Format::Element* gadf) {
  constexpr int kWays = Format::kWays;
  const FloatTag d;
  const int64_t n = hn::Lanes(d);
  const auto xi = hn::Set(d, static_cast<float>(p.x[row]));
  const auto si = hn::Set(d, static_cast<float>(p.s[row]));
  const float* x = static_cast<const float*>(p.fast_x) + begin;
  const float* s = static_cast<const float*>(p.fast_s) + begin;
  for (int64_t j = 0; j < columns; j += n * kWays) {
    FloatVector sum[kWays], difference[kWays];
    HWY_UNROLL(2)
    for (int q = 0; q < kWays; ++q) {
      const auto xj = hn::Load(d, x + j + q * n);
      const auto sj = hn::Load(d, s + j + q * n);
      sum[q] = hn::Sub(hn::Mul(xi, xj), hn::Mul(si, sj));
      difference[q] = hn::Sub(hn::Mul(si, xj), hn::Mul(xi, sj));
    }
    if constexpr (kGasf) Format::Put(sum, gasf + j);
    if constexpr (kGadf) Format::Put(difference, gadf + j);
  }
}

template <class Format>
void FloatBlock(const GafPoints& points, const Block& block, void* gasf, void* gadf) {
  const GafPoints p = points;  // of its own, so that stores to the outputs cannot change it
  auto* a = static_cast<typename Format::Element*>(gasf);
  auto* b = static_cast<typename Format::Element*>(gadf);
  for (int64_t k = 0; k < block.rows; ++k) {
    const int64_t row = block.row + k, at = k * block.stride;
    if (a != nullptr && b != nullptr) {
      FloatRow<Format, true, true>(p, row, block.begin, block.columns, a + at, b + at);
    } else if (a != nullptr) {
      FloatRow<Format, true, false>(p, row, block.begin, block.columns, a + at, b);
    } else {
      FloatRow<Format, false, true>(p, row, block.begin, block.columns, a, b + at);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
