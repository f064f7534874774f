// SPDX-License-Identifier: Apache-2.0
// Rows in u8 and u16. Included once for each instruction set.
//
// The answer is defined by float64 arithmetic with g rounded to float32: Exact(). That is 6 times too slow, so it is
// found another way and Exact() is asked only where that leaves a doubt. With h = max / 2, a base B that holds the half
// which rounding adds, a = h (x_i + s_i) / 2 and b = h (s_i - x_i) / 2,
//   P = a (x_j - s_j) + B    GASF  y = P - b (x_j + s_j)    GADF  y = P + b (x_j + s_j)
// is h g + B in three operations for both, a number of known exponent, so that its integer part stands at known bits of
// the floating-point number, with the fraction below it; cutting off the fraction rounds. The error bound e of y is
// part of B: then the code is certain unless the fraction is below 2 e. That is one pixel in 8192 for u8 and one in 512
// for u16, beside ties: g = 0 in GADF is always in doubt. But where x_i == x_j, as on the diagonal and wherever a
// sensor stands still, g is 0 for certain and y gives the right code, (max + 1) / 2; these pixels do not count as
// doubtful.
//
//   u8   float32, y in [256, 512), unit of the last place u = 2^-15. Errors in u: x_j -+ s_j, a and b rounded 0.5, as
//   the
//        two products together are at most h; two sums 0.5 each; products where they are not fused 0.25; g rounded to
//        float32 by the definition 0.125. e = 2 u, the integer part is bits 15..22.
//   u16  float64, y in [2^20, 2^20 + 2^16), u = 2^-32. g rounded to float32 by the definition: h 2^-25 < 2^-10; the
//   rest is
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
  using FractionTag = hn::Repartition<uint16_t, Tag>;  // 2^-16; with AVX-512 all count, else the even ones
  using Fractions = hn::Vec<FractionTag>;
  static constexpr float kHalfMax = 127.5f;
  static constexpr float kBase = 384.0f + 0x1p-14f;
  static constexpr uint16_t kDoubt = 7;
  static constexpr uint32_t kCode = 0xffff0000u;
  static constexpr uint32_t kOthers = HWY_TARGET == HWY_AVX3 ? 0 : kCode;

  // In the even ones.
  static HWY_INLINE Fractions Fraction(V y) {
    const hn::RebindToUnsigned<Tag> d;
    return hn::BitCast(FractionTag(), hn::Add(hn::BitCast(d, y), hn::BitCast(d, y)));
  }
  // The codes of two vectors in the lower bytes of the even and the odd words.
  static HWY_INLINE Fractions Merge(V even, V odd, Fractions* least) {
    const hn::RebindToUnsigned<Tag> d;
    const FractionTag d16;
    const auto f = Fraction(odd);
#if HWY_TARGET == HWY_AVX3
    const auto r = hn::BitCast(d16, hn::RotateRight<15>(hn::BitCast(d, even)));  // its fraction is now in the odd words
    *least = hn::Min(*least, hn::OddEven(r, f));
    return hn::OddEven(f, r);
#else
    *least = hn::Min(*least, hn::Min(Fraction(even), f));
    return hn::OddEven(f, hn::BitCast(d16, hn::ShiftRight<15>(hn::BitCast(d, even))));
#endif
  }
  static HWY_INLINE void Pack(const V* y, Fractions* least, uint8_t* out) {
    const FractionTag d16;
    const hn::Repartition<uint8_t, Tag> d8;
    const auto even = Merge(y[0], y[2], least), odd = Merge(y[1], y[3], least);
    hn::StoreU(hn::BitCast(d8, hn::OrAnd(hn::ShiftLeft<8>(odd), even, hn::Set(d16, 0x00ff))), d8, out);
  }
};

template <>
struct Code<uint16_t> {
  using Tag = hn::ScalableTag<double>;
  using V = hn::Vec<Tag>;
  using FractionTag = hn::Repartition<uint32_t, Tag>;  // the even ones; 2^-32
  using Fractions = hn::Vec<FractionTag>;
  static constexpr double kHalfMax = 32767.5;
  static constexpr double kBase = 0x1p20 + 32768 + 0x1p-10 + 0x1p-20;
  static constexpr uint32_t kDoubt = (1u << 23) + (1u << 13);
  static constexpr uint64_t kCode = 0xffffffff00000000u, kOthers = kCode;

  static HWY_INLINE Fractions Fraction(V y) { return hn::BitCast(FractionTag(), y); }
  static HWY_INLINE void Pack(const V* y, Fractions* least, uint16_t* out) {
    *least = hn::Min(*least, hn::Min(hn::Min(Fraction(y[0]), Fraction(y[1])), hn::Min(Fraction(y[2]), Fraction(y[3]))));
    const hn::RebindToUnsigned<Tag> d;
    const hn::Repartition<uint32_t, Tag> d32;
    const hn::Repartition<uint16_t, Tag> d16;
    const auto even = hn::OddEven(hn::BitCast(d32, y[2]), hn::BitCast(d32, hn::ShiftRight<32>(hn::BitCast(d, y[0]))));
    const auto odd = hn::OddEven(hn::BitCast(d32, y[3]), hn::BitCast(d32, hn::ShiftRight<32>(hn::BitCast(d, y[1]))));
    hn::StoreU(hn::OddEven(hn::BitCast(d16, hn::ShiftLeft<16>(odd)), hn::BitCast(d16, even)), d16, out);
  }
};

inline uint32_t Low(double x) { return static_cast<uint32_t>(std::bit_cast<uint64_t>(x)); }

template <typename T>
void PrepareInteger(const GafPoints& p) {
  PrepareRoots(p);
  const typename Code<T>::Tag d;
  using Real = hn::TFromD<decltype(d)>;
  Interleave<4>(
      d, p.size, [&p](int64_t j) { return p.x[j]; }, static_cast<Real*>(p.fast_x));
  Interleave<4>(
      d, p.size, [&p](int64_t j) { return p.x[j] - p.s[j]; }, static_cast<Real*>(p.minus));
  Interleave<4>(
      d, p.size, [&p](int64_t j) { return p.x[j] + p.s[j]; }, static_cast<Real*>(p.plus));
  if constexpr (sizeof(T) == 1) {
    Interleave<4>(
        hn::RebindToUnsigned<decltype(d)>(), p.size, [&p](int64_t j) { return Low(p.x[j]); }, p.low);
  }
}

// All ones where x_j is x_i. float32 and the lower half of the float64 together tell any two apart that differ by more
// than 2^-126.
struct TiesU8 {
  using Tag = Code<uint8_t>::Tag;
  using WordTag = hn::RebindToUnsigned<Tag>;
  TiesU8(const GafPoints& p, int64_t row)
      : x_(hn::Set(Tag(), static_cast<float>(p.x[row]))), low_(hn::Set(WordTag(), Low(p.x[row]))) {}
  HWY_INLINE auto Mask(const GafPoints& p, int64_t j) const {
    const WordTag d;
    const auto same = hn::Eq(hn::Load(Tag(), static_cast<const float*>(p.fast_x) + j), x_);
    return hn::VecFromMask(d, hn::And(hn::RebindMask(d, same), hn::Eq(hn::Load(d, p.low + j), low_)));
  }
  hn::Vec<Tag> x_;
  hn::Vec<WordTag> low_;
};
struct TiesU16 {
  using Tag = Code<uint16_t>::Tag;
  TiesU16(const GafPoints& p, int64_t row) : x_(hn::Set(Tag(), p.x[row])) {}
  HWY_INLINE auto Mask(const GafPoints& p, int64_t j) const {
    const auto same = hn::Eq(hn::Load(Tag(), static_cast<const double*>(p.fast_x) + j), x_);
    return hn::BitCast(hn::RebindToUnsigned<Tag>(), hn::VecFromMask(Tag(), same));
  }
  hn::Vec<Tag> x_;
};

template <typename T>
HWY_INLINE typename Code<T>::Fractions NoDoubt() {
  return hn::Set(typename Code<T>::FractionTag(), static_cast<hn::TFromD<typename Code<T>::FractionTag> >(-1));
}

// `others`: the bits of each lane of y that hold no fraction.
template <typename T>
HWY_INLINE bool InDoubt(typename Code<T>::Fractions fractions,
                        hn::TFromD<hn::RebindToUnsigned<typename Code<T>::Tag> > others) {
  const typename Code<T>::FractionTag d;
  const hn::RebindToUnsigned<typename Code<T>::Tag> wide;
  const auto relevant = hn::BitCast(d, hn::Or(hn::BitCast(wide, fractions), hn::Set(wide, others)));
  return !hn::AllFalse(d, hn::Eq(hn::Min(relevant, hn::Set(d, Code<T>::kDoubt)), relevant));
}

// What a row is made with: a, b and B, and what it reads.
template <typename T>
struct RowTerms {
  using C = Code<T>;
  using Tag = typename C::Tag;
  using Real = hn::TFromD<Tag>;
  using V = hn::Vec<Tag>;
  RowTerms(const GafPoints& p, int64_t row)
      : a(hn::Set(Tag(), static_cast<Real>((p.x[row] + p.s[row]) * (C::kHalfMax / 2)))),
        b(hn::Set(Tag(), static_cast<Real>((p.s[row] - p.x[row]) * (C::kHalfMax / 2)))),
        base(hn::Set(Tag(), C::kBase)),
        minus(static_cast<const Real*>(p.minus)),
        plus(static_cast<const Real*>(p.plus)) {}
  HWY_INLINE V First(int64_t j) const { return hn::MulAdd(hn::Load(Tag(), minus + j), a, base); }
  HWY_INLINE V Second(int64_t j) const { return hn::Load(Tag(), plus + j); }
  HWY_INLINE V Gasf(V first, V second) const { return hn::NegMulAdd(b, second, first); }
  HWY_INLINE V Gadf(V first, V second) const { return hn::MulAdd(b, second, first); }
  V a, b, base;
  const Real* minus;
  const Real* plus;
};

// The 4 vectors of GADF at j exactly, unless only ties are in doubt.
template <typename T>
HWY_NOINLINE void MendGadf(const GafPoints& p, int64_t row, int64_t j, T* gadf) {
  using C = Code<T>;
  const RowTerms<T> r(p, row);
  const std::conditional_t<sizeof(T) == 1, TiesU8, TiesU16> ties(p, row);
  auto least = NoDoubt<T>();
  const int64_t n = hn::Lanes(typename C::Tag());
  for (int64_t at = j; at < j + 4 * n; at += n) {
    const auto fraction = C::Fraction(r.Gadf(r.First(at), r.Second(at)));
    least = hn::Min(least, hn::Or(fraction, hn::BitCast(typename C::FractionTag(), ties.Mask(p, at))));
  }
  if (InDoubt<T>(least, C::kCode)) Exact(p.x + j, p.s + j, 4 * n, p.s[row], p.x[row], gadf);
}

// Takes the pixel of the diagonal, `at` pixels behind the first of the 4 vectors, out of doubt: a quarter more does not
// change its code.
template <typename T>
HWY_INLINE void SkipDiagonal(int64_t at, typename Code<T>::V* y) {
  const typename Code<T>::Tag d;
  using Real = hn::TFromD<decltype(d)>;
  const auto lane = hn::Iota(d, 0);
  for (int64_t q = 0; q < 4; ++q) {
    const auto here = hn::Eq(lane, hn::Set(d, static_cast<Real>(at % 4 == q ? at / 4 : -1)));
    y[q] = hn::Add(y[q], hn::IfThenElseZero(here, hn::Set(d, static_cast<Real>(0.25))));
  }
}

template <typename T, bool kGasf, bool kGadf>
HWY_INLINE void IntegerRow(const GafPoints& p, int64_t row, int64_t begin, int64_t columns, T* gasf, T* gadf) {
  using C = Code<T>;
  const int64_t n = hn::Lanes(typename C::Tag());
  const RowTerms<T> r(p, row);
  for (int64_t k = 0; k < columns; k += 4 * n) {
    const int64_t j = begin + k;
    typename C::V sum[4], difference[4];
    HWY_UNROLL(4)
    for (int q = 0; q < 4; ++q) {
      const auto first = r.First(j + q * n), second = r.Second(j + q * n);
      if constexpr (kGasf) sum[q] = r.Gasf(first, second);
      if constexpr (kGadf) difference[q] = r.Gadf(first, second);
    }
    if (kGadf && row >= j && row < j + 4 * n) SkipDiagonal<T>(row - j, difference);
    auto least_sum = NoDoubt<T>(), least_difference = NoDoubt<T>();
    if constexpr (kGasf) C::Pack(sum, &least_sum, gasf + k);
    if constexpr (kGadf) C::Pack(difference, &least_difference, gadf + k);
    if (HWY_LIKELY(!InDoubt<T>(hn::Min(least_sum, least_difference), C::kOthers))) continue;
    if (kGasf && InDoubt<T>(least_sum, C::kOthers)) Exact(p.x + j, p.s + j, 4 * n, p.x[row], p.s[row], gasf + k);
    if (kGadf && InDoubt<T>(least_difference, C::kOthers)) MendGadf(p, row, j, gadf + k);
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
