// SPDX-License-Identifier: Apache-2.0
// Rows in u8 and u16. Included once for each instruction set.
//
// The answer is defined by float64 arithmetic with g rounded to float32: Exact(). That is 4 times too slow, so it is found
// another way and Exact() is asked only where that leaves a doubt. With h = max / 2 and a base B that holds the half which
// rounding adds,
//   y = h g + B
// is a number of known exponent, so that its integer part stands at known bits of the floating-point number, with the
// fraction below it; cutting off the fraction rounds. The error bound e of y is part of B: then the code is certain unless
// the fraction is below 2 e. That is one pixel in 8192 for u8 and one in 512 for u16, beside ties: g = 0 in GADF is always
// in doubt. But where x_i == x_j, as on the diagonal and wherever a sensor stands still, g is 0 for certain and y gives the
// right code, (max + 1) / 2; these pixels do not count as doubtful.
//
//   u8   float32, y in [256, 512), unit of the last place u = 2^-15. Errors in u: x, s and their multiples by h rounded
//        0.5; two sums 0.5 each; products where they are not fused 0.25; g rounded to float32 by the definition 0.125.
//        e = 2 u, the integer part is bits 15..22.
//   u16  float64, y in [2^20, 2^20 + 2^16), u = 2^-32. g rounded to float32 by the definition: h 2^-25 < 2^-10; the rest is
//        far below 2^-20. e = 2^-10 + 2^-20, the integer part is bits 32..47.
#if defined(STOKER_GAF_INTEGER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_GAF_INTEGER_INL_H_
#undef STOKER_GAF_INTEGER_INL_H_
#else
#define STOKER_GAF_INTEGER_INL_H_
#endif

#include "hwy/highway.h"
#include "server/transforms/gaf_points-inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {

// out[j] = code of a x[j] - b s[j].
template <typename T>
HWY_NOINLINE void Exact(const double* x, const double* s, int64_t count, double a, double b, T* out) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::Rebind<T, decltype(d)> dt;
  const auto va = hn::Set(d, a), vb = hn::Set(d, b), one = hn::Set(d, 1.0);
  const auto half_max = hn::Set(d, static_cast<T>(-1) / 2.0);
  const auto rounder = hn::Set(d, 0x1p52);  // adding it leaves no bits for a fraction
  const int64_t n = hn::Lanes(d);
  for (int64_t j = 0; j < count; j += n) {
    const auto g64 = hn::Sub(hn::Mul(va, hn::Load(d, x + j)), hn::Mul(vb, hn::Load(d, s + j)));
    const auto g = hn::Min(hn::Max(hn::PromoteTo(d, hn::DemoteTo(df, g64)), hn::Neg(one)), one);
    const auto code = hn::BitCast(du, hn::Add(hn::Mul(hn::Add(g, one), half_max), rounder));
    hn::StoreU(hn::TruncateTo(dt, code), dt, out + j);
  }
}

#if HWY_TARGET == HWY_SCALAR
template <typename T>
void PrepareInteger(const GafPoints& p) {
  PrepareRoots(p);
}

template <typename T>
void IntegerBlock(const GafPoints& p, const Block& block, void* gasf, void* gadf) {
  const double *x = p.x + block.begin, *s = p.s + block.begin;
  for (int64_t k = 0; k < block.rows; ++k) {
    const double xi = p.x[block.row + k], si = p.s[block.row + k];
    const int64_t at = k * block.stride;
    if (gasf != nullptr) Exact(x, s, block.columns, xi, si, static_cast<T*>(gasf) + at);
    if (gadf != nullptr) Exact(x, s, block.columns, si, xi, static_cast<T*>(gadf) + at);
  }
}
#else

template <typename T>
struct Code;

template <>
struct Code<uint8_t> {
  using Tag = hn::ScalableTag<float>;
  using V = hn::Vec<Tag>;
  using FractionTag = hn::Repartition<uint16_t, Tag>;  // the even ones; 2^-16
  static constexpr float kHalfMax = 127.5f;
  static constexpr float kBase = 384.0f + 0x1p-14f;
  static constexpr uint16_t kDoubt = 7;
  static constexpr uint32_t kOthers = 0xffff0000u;

  static HWY_INLINE hn::Vec<FractionTag> Fraction(V y) {
    const hn::RebindToUnsigned<Tag> d;
    return hn::BitCast(FractionTag(), hn::Add(hn::BitCast(d, y), hn::BitCast(d, y)));
  }
  static HWY_INLINE void Pack(const V* y, uint8_t* out) {
    const hn::RebindToUnsigned<Tag> d;
    const hn::Repartition<uint16_t, Tag> d16;
    const hn::Repartition<uint8_t, Tag> d8;
    const auto even = hn::OddEven(Fraction(y[2]), hn::BitCast(d16, hn::ShiftRight<15>(hn::BitCast(d, y[0]))));
    const auto odd = hn::OddEven(Fraction(y[3]), hn::BitCast(d16, hn::ShiftRight<15>(hn::BitCast(d, y[1]))));
    hn::StoreU(hn::BitCast(d8, hn::OrAnd(hn::ShiftLeft<8>(odd), even, hn::Set(d16, 0x00ff))), d8, out);
  }
};

template <>
struct Code<uint16_t> {
  using Tag = hn::ScalableTag<double>;
  using V = hn::Vec<Tag>;
  using FractionTag = hn::Repartition<uint32_t, Tag>;  // the even ones; 2^-32
  static constexpr double kHalfMax = 32767.5;
  static constexpr double kBase = 0x1p20 + 32768 + 0x1p-10 + 0x1p-20;
  static constexpr uint32_t kDoubt = (1u << 23) + (1u << 13);
  static constexpr uint64_t kOthers = 0xffffffff00000000u;

  static HWY_INLINE hn::Vec<FractionTag> Fraction(V y) { return hn::BitCast(FractionTag(), y); }
  static HWY_INLINE void Pack(const V* y, uint16_t* out) {
    const hn::RebindToUnsigned<Tag> d;
    const hn::Repartition<uint32_t, Tag> d32;
    const hn::Repartition<uint16_t, Tag> d16;
    const auto even =
        hn::OddEven(hn::BitCast(d32, y[2]), hn::BitCast(d32, hn::ShiftRight<32>(hn::BitCast(d, y[0]))));
    const auto odd = hn::OddEven(hn::BitCast(d32, y[3]), hn::BitCast(d32, hn::ShiftRight<32>(hn::BitCast(d, y[1]))));
    hn::StoreU(hn::OddEven(hn::BitCast(d16, hn::ShiftLeft<16>(odd)), hn::BitCast(d16, even)), d16, out);
  }
};

template <typename T>
void PrepareInteger(const GafPoints& p) {
  PrepareRoots(p);
  using Real = hn::TFromD<typename Code<T>::Tag>;
  const int64_t n = hn::Lanes(typename Code<T>::Tag());
  Interleave<4>(p.x, p.size, n, static_cast<Real*>(p.fast_x));
  Interleave<4>(p.s, p.size, n, static_cast<Real*>(p.fast_s));
  if constexpr (sizeof(T) == 1) Interleave<4>(reinterpret_cast<const uint64_t*>(p.x), p.size, n, p.low);
}

// All ones where x_j is x_i. float32 and the lower half of the float64 together tell any two apart that differ by more than
// 2^-126.
struct TiesU8 {
  using Tag = Code<uint8_t>::Tag;
  using WordTag = hn::RebindToUnsigned<Tag>;
  TiesU8(const GafPoints& p, int64_t row)
      : x_(hn::Set(Tag(), static_cast<float>(p.x[row]))),
        low_(hn::Set(WordTag(), static_cast<uint32_t>(reinterpret_cast<const uint64_t*>(p.x)[row]))) {}
  HWY_INLINE auto Mask(const GafPoints& p, int64_t j, hn::Vec<Tag> xj) const {
    const WordTag d;
    const auto same_low = hn::Eq(hn::Load(d, p.low + j), low_);
    return hn::VecFromMask(d, hn::And(hn::RebindMask(d, hn::Eq(xj, x_)), same_low));
  }
  hn::Vec<Tag> x_;
  hn::Vec<WordTag> low_;
};
struct TiesU16 {
  using Tag = Code<uint16_t>::Tag;
  TiesU16(const GafPoints& p, int64_t row) : x_(hn::Set(Tag(), p.x[row])) {}
  HWY_INLINE auto Mask(const GafPoints&, int64_t, hn::Vec<Tag> xj) const {
    return hn::BitCast(hn::RebindToUnsigned<Tag>(), hn::VecFromMask(Tag(), hn::Eq(xj, x_)));
  }
  hn::Vec<Tag> x_;
};

template <typename T>
HWY_INLINE bool InDoubt(hn::Vec<typename Code<T>::FractionTag> fractions) {
  const typename Code<T>::FractionTag d;
  const hn::RebindToUnsigned<typename Code<T>::Tag> wide;
  const auto relevant = hn::BitCast(d, hn::Or(hn::BitCast(wide, fractions), hn::Set(wide, Code<T>::kOthers)));
  return !hn::AllFalse(d, hn::Eq(hn::Min(relevant, hn::Set(d, Code<T>::kDoubt)), relevant));
}

template <typename T, bool kGasf, bool kGadf>
HWY_INLINE void IntegerRow(const GafPoints& p, int64_t row, int64_t begin, int64_t columns, T* gasf, T* gadf) {
  using C = Code<T>;
  const typename C::Tag d;
  const typename C::FractionTag df;
  using Real = hn::TFromD<decltype(d)>;
  const int64_t n = hn::Lanes(d);
  const auto base = hn::Set(d, C::kBase);
  const auto hx = hn::Set(d, static_cast<Real>(p.x[row] * C::kHalfMax));
  const auto hs = hn::Set(d, static_cast<Real>(p.s[row] * C::kHalfMax));
  const std::conditional_t<sizeof(T) == 1, TiesU8, TiesU16> ties(p, row);
  const auto* fast_x = static_cast<const Real*>(p.fast_x);
  const auto* fast_s = static_cast<const Real*>(p.fast_s);
  for (int64_t k = 0; k < columns; k += 4 * n) {
    const int64_t j = begin + k;
    typename C::V sum[4], difference[4];
    auto least_sum = hn::Set(df, static_cast<hn::TFromD<decltype(df)>>(-1)), least_difference = least_sum;
    HWY_UNROLL(4)
    for (int q = 0; q < 4; ++q) {
      const auto xj = hn::Load(d, fast_x + j + q * n);
      const auto sj = hn::Load(d, fast_s + j + q * n);
      if constexpr (kGasf) {
        sum[q] = hn::MulAdd(hx, xj, hn::NegMulAdd(hs, sj, base));
        least_sum = hn::Min(least_sum, C::Fraction(sum[q]));
      }
      if constexpr (kGadf) {
        difference[q] = hn::MulAdd(hs, xj, hn::NegMulAdd(hx, sj, base));
        const auto tie = hn::BitCast(df, ties.Mask(p, j + q * n, xj));
        least_difference = hn::Min(least_difference, hn::Or(C::Fraction(difference[q]), tie));
      }
    }
    if constexpr (kGasf) C::Pack(sum, gasf + k);
    if constexpr (kGadf) C::Pack(difference, gadf + k);
    if (HWY_LIKELY(!InDoubt<T>(hn::Min(least_sum, least_difference)))) continue;
    if (kGasf && InDoubt<T>(least_sum)) Exact(p.x + j, p.s + j, 4 * n, p.x[row], p.s[row], gasf + k);
    if (kGadf && InDoubt<T>(least_difference)) Exact(p.x + j, p.s + j, 4 * n, p.s[row], p.x[row], gadf + k);
  }
}

template <typename T>
void IntegerBlock(const GafPoints& points, const Block& block, void* gasf, void* gadf) {
  const GafPoints p = points;  // of its own, so that stores to the outputs cannot change it
  T *a = static_cast<T*>(gasf), *b = static_cast<T*>(gadf);
  for (int64_t k = 0; k < block.rows; ++k) {
    const int64_t row = block.row + k, at = k * block.stride;
    if (a != nullptr && b != nullptr) {
      IntegerRow<T, true, true>(p, row, block.begin, block.columns, a + at, b + at);
    } else if (a != nullptr) {
      IntegerRow<T, true, false>(p, row, block.begin, block.columns, a + at, b);
    } else {
      IntegerRow<T, false, true>(p, row, block.begin, block.columns, a, b + at);
    }
  }
}
#endif  // HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
