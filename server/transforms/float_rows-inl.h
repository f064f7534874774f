// SPDX-License-Identifier: Apache-2.0
// Rounding of float32, and radial basis functions. Included once for each instruction set.
#if defined(STOKER_FLOAT_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_FLOAT_ROWS_INL_H_
#undef STOKER_FLOAT_ROWS_INL_H_
#else
#define STOKER_FLOAT_ROWS_INL_H_
#endif

#include <cstring>

#include "hwy/highway.h"
#include "server/transforms/crystal_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline void RoundToF32(const float* from, size_t count, void* to) { std::memcpy(to, from, count * sizeof(float)); }

// `Lanes` is the lower half of each word of what `round` makes of the bits of a vector.
template <typename Round>
HWY_INLINE void RoundWords(const float* from, size_t count, void* to, Round round) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> words;
  const hn::Rebind<uint16_t, decltype(d)> halves;
  uint16_t* out = static_cast<uint16_t*>(to);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    hn::StoreU(hn::TruncateTo(halves, round(hn::BitCast(words, hn::LoadU(d, from + i)))), halves, out + i);
  }
  if (i == count) return;
  HWY_ALIGN float rest[hn::MaxLanes(d)] = {};
  HWY_ALIGN uint16_t rounded[hn::MaxLanes(d)];
  std::memcpy(rest, from + i, (count - i) * sizeof(float));
  hn::Store(hn::TruncateTo(halves, round(hn::BitCast(words, hn::Load(d, rest)))), halves, rounded);
  std::memcpy(out + i, rounded, (count - i) * sizeof(uint16_t));
}

// Half of the unit that is dropped is added, less one where the kept bit is even. REQUIRES: not NaN.
inline void RoundToBf16(const float* from, size_t count, void* to) {
  RoundWords(from, count, to, [](auto bits) HWY_ATTR {
    const hn::DFromV<decltype(bits)> d;
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
    return hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(d, 0x7fffu)), odd));
  });
}

inline void RoundToF16(const float* from, size_t count, void* to) {
  RoundWords(from, count, to, [](auto bits) HWY_ATTR {
    const hn::DFromV<decltype(bits)> d;
    const hn::RebindToFloat<decltype(d)> f;
    const auto sign = hn::And(bits, hn::Set(d, 0x80000000u));
    const auto magnitude = hn::Xor(bits, sign);
    // Normal numbers: exponent from bias 127 to 15.
    const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(d, 1u));
    const auto normal = hn::ShiftRight<13>(hn::Add(hn::Add(magnitude, hn::Set(d, 0xc8000fffu)), odd));
    // Below 2^-14 the unit is 2^-24, that of float32 in [0.5, 1): the addition rounds.
    const auto half = hn::Set(f, 0.5f);
    const auto value = hn::BitCast(f, magnitude);
    const auto small = hn::Sub(hn::BitCast(d, hn::Add(value, half)), hn::BitCast(d, half));
    const auto is_small = hn::RebindMask(d, hn::Lt(value, hn::Set(f, 0x1p-14f)));
    // From the middle between 65504 and 65536 on: infinity.
    const auto is_large = hn::RebindMask(d, hn::Ge(value, hn::Set(f, 65520.0f)));
    const auto finite = hn::IfThenElse(is_small, small, normal);
    return hn::Or(hn::IfThenElse(is_large, hn::Set(d, 0x7c00u), finite), hn::ShiftRight<16>(sign));
  });
}

// exp(x) for x <= 0: 2^n e^r with |r| <= ln 2 / 2, e^r by its Taylor series to r^7; within 2 units of the last place. 0
// where the result is below 2^-126.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V ExpOfNegative(D d, V x) {
  const hn::RebindToSigned<D> integers;
  const auto n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504f)));
  // ln 2 in two parts, of which the first has few enough bits that n times it is exact.
  auto r = hn::Sub(x, hn::Mul(n, hn::Set(d, 0.693359375f)));
  r = hn::Sub(r, hn::Mul(n, hn::Set(d, -2.12194440e-4f)));
  auto sum = hn::Set(d, 1.0f / 5040);
  for (const float coefficient : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f}) {
    sum = hn::Add(hn::Mul(sum, r), hn::Set(d, coefficient));
  }
  sum = hn::Add(hn::Add(hn::Mul(hn::Mul(sum, r), r), r), hn::Set(d, 1.0f));
  const auto tiny = hn::Lt(x, hn::Set(d, -87.33654f));
  const auto exponent = hn::ShiftLeft<23>(hn::ConvertTo(integers, hn::IfThenElse(tiny, hn::Zero(d), n)));
  const auto scaled = hn::BitCast(d, hn::Add(hn::BitCast(integers, sum), exponent));
  return hn::IfThenElse(tiny, hn::Zero(d), scaled);
}

inline void Rbf(float distance, const float* centres, size_t count, float gamma, float* out) {
  const hn::ScalableTag<float> d;
  const auto at = hn::Set(d, distance), minus_gamma = hn::Set(d, -gamma);
  for (size_t k = 0; k < count; k += hn::Lanes(d)) {
    const auto from_centre = hn::Sub(at, hn::LoadU(d, centres + k));
    hn::StoreU(ExpOfNegative(d, hn::Mul(minus_gamma, hn::Mul(from_centre, from_centre))), d, out + k);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
