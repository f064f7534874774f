// SPDX-License-Identifier: Apache-2.0
// Indices with an offset, rounding of float32, and radial basis functions. Included once for each instruction set.
#if defined(STOKER_FLOAT_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_FLOAT_ROWS_INL_H_
#undef STOKER_FLOAT_ROWS_INL_H_
#else
#define STOKER_FLOAT_ROWS_INL_H_
#endif

#include <cstring>

#include "hwy/highway.h"
#include "server/transforms/crystal_kernels.h"
#include "server/transforms/line_stream-inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// How floats are stored as the words of a type.
struct AsF32 {
  using Type = float;
  template <class V>
  static HWY_INLINE void Store(V values, float* to) {
    hn::StoreU(values, hn::DFromV<V>(), to);
  }
};

// `Round` makes words of the bits of floats, the result in the lower half of each.
template <class Round>
struct AsHalves {
  using Type = uint16_t;
  template <class V>
  static HWY_INLINE void Store(V values, uint16_t* to) {
    const hn::DFromV<V> d;
    const hn::Rebind<uint16_t, decltype(d)> halves;
    const auto bits = hn::BitCast(hn::RebindToUnsigned<decltype(d)>(), values);
    hn::StoreU(hn::TruncateTo(halves, Round()(bits)), halves, to);
  }
};

// Half of the unit that is dropped is added, less one where the kept bit is even.
struct RoundBitsToBf16 {
  template <class V>
  HWY_INLINE V operator()(V bits) const {
    const hn::DFromV<V> d;
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(d, 0x7fffu)), odd));
    const auto is_nan = hn::Gt(hn::And(bits, hn::Set(d, 0x7fffffffu)), hn::Set(d, 0x7f800000u));
    return hn::IfThenElse(is_nan, hn::Set(d, 0x7fc0u), rounded);
  }
};
using AsBf16 = AsHalves<RoundBitsToBf16>;

struct RoundBitsToF16 {
  template <class V>
  HWY_INLINE V operator()(V bits) const {
    const hn::DFromV<V> d;
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
    const auto is_nan = hn::Gt(magnitude, hn::Set(d, 0x7f800000u));
    const auto finite = hn::IfThenElse(is_small, small, normal);
    const auto rounded = hn::IfThenElse(is_large, hn::Set(d, 0x7c00u), finite);
    return hn::Or(hn::IfThenElse(is_nan, hn::Set(d, 0x7e00u), rounded), hn::ShiftRight<16>(sign));
  }
};
using AsF16 = AsHalves<RoundBitsToF16>;

// `put(from, to)` makes kStep elements.
template <typename From, typename To, class Put>
HWY_INLINE void StreamRow(const From* from, size_t count, To* to, const Put put) {
  alignas(kLineBytes) To room[LineStream<To>::kRoom];
  LineStream<To> out(to, count, room);
  for (; count >= kStep; count -= kStep, from += kStep) {
    put(from, out.At());
    out.Advance(kStep);
  }
  if (count > 0) {
    From rest[kStep] = {};
    std::memcpy(rest, from, count * sizeof(From));
    put(rest, out.At());
    out.Advance(count);
  }
  out.Finish();
}

template <class As>
void RoundRow(const float* from, size_t count, void* to) {
  using Type = typename As::Type;
  StreamRow(from, count, static_cast<Type*>(to), [](const float* values, Type* words) HWY_ATTR {
    const hn::ScalableTag<float> d;
    for (size_t i = 0; i < kStep; i += hn::Lanes(d)) As::Store(hn::LoadU(d, values + i), words + i);
  });
}

template <typename Index>
void OffsetIndices(const int32_t* from, size_t count, int64_t offset, void* to) {
  StreamRow(from, count, static_cast<Index*>(to), [offset](const int32_t* numbers, Index* sums) HWY_ATTR {
    const hn::ScalableTag<Index> d;
    const hn::Rebind<int32_t, decltype(d)> narrow;
    for (size_t i = 0; i < kStep; i += hn::Lanes(d)) {
      const auto number = hn::LoadU(narrow, numbers + i);
      const auto add = hn::Set(d, static_cast<Index>(offset));
      if constexpr (sizeof(Index) == sizeof(int32_t)) {
        hn::StoreU(hn::Add(number, add), d, sums + i);
      } else {
        hn::StoreU(hn::Add(hn::PromoteTo(d, number), add), d, sums + i);
      }
    }
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
