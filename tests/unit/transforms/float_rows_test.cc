// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/float_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "server/transforms/crystal_kernels.h"

namespace stoker::transforms {
namespace {

using ::testing::ElementsAre;

// Every upper half of the bits of a float32 that is not NaN, each with lower halves around the places where rounding
// changes its mind.
std::vector<float> Numbers() {
  std::vector<float> numbers;
  for (uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (const uint32_t lower :
         {0u, 1u, 0x0fffu, 0x1000u, 0x1001u, 0x2fffu, 0x3000u, 0x3001u, 0x7fffu, 0x8000u, 0x8001u, 0xf000u, 0xffffu}) {
      const auto value = std::bit_cast<float>(upper << 16 | lower);
      if (!std::isnan(value)) numbers.push_back(value);
    }
  }
  return numbers;
}

// RoundFloats by each set of kernels, which must not write beyond the end.
std::vector<uint16_t> Round(const CrystalKernels& kernels, v1::DType dtype, const std::vector<float>& from) {
  std::vector<uint16_t> to(from.size() + 32, 0xbeef);
  kernels.RoundTo(dtype)(from.data(), from.size(), to.data());
  EXPECT_THAT(std::vector<uint16_t>(to.begin() + static_cast<ptrdiff_t>(from.size()), to.end()), testing::Each(0xbeef));
  to.resize(from.size());
  return to;
}

TEST(RoundFloats, EveryPath_RoundsAsEigen) {
  const std::vector<float> numbers = Numbers();
  std::vector<uint16_t> half, bfloat;
  for (const float x : numbers) {
    half.push_back(std::bit_cast<uint16_t>(static_cast<Eigen::half>(x)));
    bfloat.push_back(std::bit_cast<uint16_t>(static_cast<Eigen::bfloat16>(x)));
  }
  for (const CrystalKernels* kernels : SupportedCrystalKernels()) {
    EXPECT_TRUE(Round(*kernels, v1::DTYPE_F16, numbers) == half) << kernels->name;
    EXPECT_TRUE(Round(*kernels, v1::DTYPE_BF16, numbers) == bfloat) << kernels->name;
  }
}

TEST(RoundFloats, EdgesOfTheRange_AreRoundedToNearestEven) {
  const std::vector<float> from = {65519.996f,  65520,    -65520,    0x1p-24f, 0x1p-25f, 0x1.000002p-25f,
                                   -0x1.8p-24f, 0x1p-14f, 0x1p-149f, -0.0f,    INFINITY, -INFINITY};
  std::vector<uint16_t> to(from.size());
  RoundFloats(from, v1::DTYPE_F16, to.data());
  EXPECT_THAT(to, ElementsAre(0x7bff, 0x7c00, 0xfc00, 1, 0, 1, 0x8002, 0x0400, 0, 0x8000, 0x7c00, 0xfc00));
  RoundFloats({0x1.fffffep127f, 0x1p-149f, 0x1p-133f, INFINITY}, v1::DTYPE_BF16, to.data());
  EXPECT_THAT(absl::MakeSpan(to).first(4), ElementsAre(0x7f80, 0, 1, 0x7f80));
}

TEST(RoundFloats, Nan_StaysNan) {
  const std::vector<float> nans = {std::bit_cast<float>(0x7f800001u), std::bit_cast<float>(0x7fffffffu),
                                   std::bit_cast<float>(0xff800001u), std::bit_cast<float>(0xffffffffu), NAN};
  for (const CrystalKernels* kernels : SupportedCrystalKernels()) {
    for (const uint16_t bits : Round(*kernels, v1::DTYPE_F16, nans)) {
      EXPECT_TRUE(Eigen::numext::isnan(std::bit_cast<Eigen::half>(bits))) << kernels->name;
    }
    for (const uint16_t bits : Round(*kernels, v1::DTYPE_BF16, nans)) {
      EXPECT_TRUE(Eigen::numext::isnan(std::bit_cast<Eigen::bfloat16>(bits))) << kernels->name;
    }
  }
}

TEST(RoundFloats, AnyCount_WritesSoManyAndNoMore) {
  for (const CrystalKernels* kernels : SupportedCrystalKernels()) {
    for (size_t count = 0; count < 70; ++count) {
      std::vector<float> from(count);
      for (size_t i = 0; i < count; ++i) from[i] = 1.0f + static_cast<float>(i);
      const std::vector<uint16_t> to = Round(*kernels, v1::DTYPE_F16, from);
      for (size_t i = 0; i < count; ++i) EXPECT_EQ(to[i], std::bit_cast<uint16_t>(static_cast<Eigen::half>(from[i])));
    }
  }
}

// Whole cache lines are written in another way than what comes before and after them.
TEST(RoundFloats, AtAnyPlaceInACacheLine_WritesItsElementsAndNoOther) {
  std::vector<float> from(300);
  for (size_t i = 0; i < from.size(); ++i) from[i] = 1.0f + static_cast<float>(i);
  for (const CrystalKernels* kernels : SupportedCrystalKernels()) {
    for (size_t place = 0; place < 16; ++place) {
      for (const size_t count : {0, 1, 15, 16, 17, 128, 129, 300}) {
        std::vector<float> to(from.size() + 48, -7), wanted = to;
        kernels->RoundTo(v1::DTYPE_F32)(from.data(), count, to.data() + place);
        std::copy_n(from.begin(), count, wanted.begin() + static_cast<ptrdiff_t>(place));
        ASSERT_EQ(to, wanted) << kernels->name << ", place " << place << ", count " << count;
      }
    }
  }
}

template <typename Index>
void ExpectOffset(OffsetKernel kernel, int64_t offset) {
  const std::vector<int32_t> from(77, 3);
  for (size_t place = 0; place < 64 / sizeof(Index); ++place) {
    for (size_t count = 0; count <= from.size(); ++count) {
      std::vector<Index> to(from.size() + 64, -7), wanted = to;
      kernel(from.data() + from.size() - count, count, offset, to.data() + place);
      std::fill_n(wanted.begin() + static_cast<ptrdiff_t>(place), count, static_cast<Index>(3 + offset));
      ASSERT_EQ(to, wanted) << "place " << place << ", count " << count;
    }
  }
}

TEST(OffsetIndices, EveryPathAndType_AddsTheOffsetAndWritesNoMore) {
  for (const CrystalKernels* kernels : SupportedCrystalKernels()) {
    SCOPED_TRACE(kernels->name);
    ExpectOffset<int32_t>(kernels->offset_i32, 1'000'000'007);
    ExpectOffset<int64_t>(kernels->offset_i64, 1'000'000'000'007);
  }
  const std::vector<int32_t> from = {0, 1, 2147483647, 5};
  std::vector<int64_t> to(5, -1);
  OffsetIndices(from, 40, v1::DTYPE_I64, to.data());
  EXPECT_THAT(to, ElementsAre(40, 41, 2147483687, 45, -1));
  OffsetIndices({}, 40, v1::DTYPE_I64, nullptr);
}

TEST(RbfCentres, AreEvenlySpacedFromLowToHigh) { EXPECT_THAT(RbfCentres(0, 8, 5), ElementsAre(0, 2, 4, 6, 8)); }

// The argument is itself rounded, by half a unit of its last place at each of three operations; what that makes of the
// exponential is part of the value asked for, so the argument here is the float32 one.
TEST(ExpandRbf, EveryPath_IsWithinTwoUnitsOfTheExponential) {
  const std::vector<float> centres = RbfCentres(0, 8, 80);
  std::vector<float> padded = centres;
  padded.resize(centres.size() + kRowPadding);
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(0, 9);
  std::vector<float> row(padded.size()), best(padded.size());
  double worst = 0;
  for (int i = 0; i < 3000; ++i) {
    const float distance = uniform(random), gamma = uniform(random) * (i % 2 == 0 ? 1.0f : 10.0f);
    FindCrystalKernels("")->rbf(distance, padded.data(), centres.size(), gamma, best.data());
    for (const CrystalKernels* kernels : SupportedCrystalKernels()) {
      kernels->rbf(distance, padded.data(), centres.size(), gamma, row.data());
      ASSERT_EQ(std::memcmp(row.data(), best.data(), centres.size() * sizeof(float)), 0) << kernels->name;
    }
    for (size_t k = 0; k < centres.size(); ++k) {
      const float from_centre = distance - centres[k], argument = -gamma * (from_centre * from_centre);
      const double exact = std::exp(double{argument});
      if (exact < std::numeric_limits<float>::min()) {
        ASSERT_LE(row[k], std::numeric_limits<float>::min() * 1.000001f);
        continue;
      }
      const auto nearest = static_cast<float>(exact);
      worst = std::max(worst, std::abs(row[k] - exact) / (std::nextafter(nearest, INFINITY) - nearest));
    }
  }
  EXPECT_LE(worst, 2);
  EXPECT_GT(worst, 0);
}

TEST(ExpandRbf, EveryType_IsTheRoundedRowAndNoMore) {
  const std::vector<float> distances = {0, 1.5f, 2.75f}, centres = RbfCentres(0, 5, 21);
  std::vector<float> wide(63 + 8, -7);
  ExpandRbf(distances, centres, 2, v1::DTYPE_F32, wide.data());
  EXPECT_THAT(absl::MakeSpan(wide).subspan(63), testing::Each(-7));
  for (size_t i = 0; i < 63; ++i) {
    const float d = distances[i / 21] - centres[i % 21];
    EXPECT_NEAR(wide[i], std::exp(-2 * d * d), 3e-7f);
  }
  EXPECT_EQ(wide[0], 1);
  std::vector<uint16_t> narrow(63 + 8, 0xbeef), wanted(63);
  ExpandRbf(distances, centres, 2, v1::DTYPE_BF16, narrow.data());
  EXPECT_THAT(absl::MakeSpan(narrow).subspan(63), testing::Each(0xbeef));
  RoundFloats(absl::MakeSpan(wide).first(63), v1::DTYPE_BF16, wanted.data());
  narrow.resize(63);
  EXPECT_EQ(narrow, wanted);
}

TEST(ExpandRbf, ManyDistances_AreRowsOfOne) {
  std::vector<float> distances(200);
  for (size_t i = 0; i < distances.size(); ++i) distances[i] = 0.04f * static_cast<float>(i);
  const std::vector<float> centres = RbfCentres(0, 8, 21);
  std::vector<float> all(distances.size() * 21), row(21);
  ExpandRbf(distances, centres, 2, v1::DTYPE_F32, all.data());
  for (size_t i = 0; i < distances.size(); ++i) {
    ExpandRbf({&distances[i], 1}, centres, 2, v1::DTYPE_F32, row.data());
    ASSERT_TRUE(std::equal(row.begin(), row.end(), all.begin() + static_cast<ptrdiff_t>(21 * i))) << i;
  }
}

}  // namespace
}  // namespace stoker::transforms
