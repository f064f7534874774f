// SPDX-License-Identifier: Apache-2.0
// Every path that this processor runs, against the reference and against the others.
#include "server/transforms/gaf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "server/transforms/gaf_reference.h"
#include "tests/unit/transforms/images.h"

namespace stoker::transforms {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pointwise;
using v1::GafRecipe;

// What real windows look like, and what breaks rounding.
std::vector<std::vector<double>> Windows(int64_t points) {
  std::mt19937_64 random(points);
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> windows(6, std::vector<double>(points));
  double walk = 0.0;
  for (int64_t t = 0; t < points; ++t) {
    walk += normal(random);
    windows[0][t] = walk;                                  // smooth
    windows[1][t] = normal(random);                        // noise
    windows[2][t] = std::floor(4.0 * normal(random)) / 4;  // a coarse sensor: many equal values
    windows[3][t] = t < points / 2 ? 21.3 : 48.1;          // on and off
    windows[4][t] = 21.3;                                  // stuck
    // Equal but for the last bits of a double, as sums of tenths are.
    windows[5][t] = 0.1 * static_cast<double>(t % 7) + (t % 3 == 0 ? 2.0e-16 : 0.0);
  }
  return windows;
}

class GafPath : public ::testing::TestWithParam<std::string> {
 protected:
  // Encodes and compares with the reference.
  void Check(const GafOptions& options, absl::Span<const double> window, ValueRange bounds = {}) {
    const auto reference = ReferenceGaf(options, window, options.image_size, bounds);
    ASSERT_OK(reference);
    const Encoded encoded = Encode(options, GetParam(), window, bounds);
    CheckImage(options, encoded.gasf, reference->gasf);
    CheckImage(options, encoded.gadf, reference->gadf);
  }

 private:
  void CheckImage(const GafOptions& options, const std::vector<uint8_t>& got, const std::vector<double>& want) {
    if (options.dtype == v1::DTYPE_F32) {
      const std::vector<float> pixels = As<float>(got);
      ASSERT_EQ(pixels.size(), want.size());
      for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(pixels[i], want[i], 5e-7) << "pixel " << i;
      return;
    }
    std::vector<uint8_t> bytes(got.size());
    QuantizeReference(want, options.dtype, bytes.data());
    if (options.dtype == v1::DTYPE_U8 || options.dtype == v1::DTYPE_U16) {
      ASSERT_TRUE(got == bytes) << "size " << options.image_size << ", dtype " << options.dtype;
      return;
    }
    // The float32 that is rounded may be off by 5e-7: no matter but where that crosses the middle of two neighbours.
    const std::vector<int16_t> a = As<int16_t>(got), b = As<int16_t>(bytes);
    for (size_t i = 0; i < want.size(); ++i) {
      if (std::abs(want[i]) > 1e-2) {
        ASSERT_LE(std::abs(a[i] - b[i]), 1) << "pixel " << i << " " << want[i];
      }
    }
  }
};

INSTANTIATE_TEST_SUITE_P(All, GafPath, ::testing::ValuesIn(GafPaths()), [](const auto& info) { return info.param; });

TEST_P(GafPath, SmallExample_AsInThePaper) {
  const GafOptions options = OptionsOf(3);
  const Encoded encoded = Encode(options, GetParam(), {-1.0, 0.0, 1.0});
  EXPECT_THAT(As<float>(encoded.gasf), ElementsAre(1, 0, -1, 0, -1, 0, -1, 0, 1));
  EXPECT_THAT(As<float>(encoded.gadf), ElementsAre(0, 1, 0, -1, 0, 1, 0, -1, 0));
}

TEST_P(GafPath, SmallExampleInHalfTheRange_AsPyts) {
  GafOptions options = OptionsOf(3);
  options.sample_range = {0.0, 1.0};
  const Encoded encoded = Encode(options, GetParam(), {-1.0, 0.0, 1.0});
  const float c = 0.866025403784f;  // cos(pi / 6)
  EXPECT_THAT(As<float>(encoded.gasf), Pointwise(FloatNear(5e-7), {-1.f, -c, 0.f, -c, -.5f, .5f, 0.f, .5f, 1.f}));
  EXPECT_THAT(As<float>(encoded.gadf), Pointwise(FloatNear(5e-7), {0.f, .5f, 1.f, -.5f, 0.f, c, -1.f, -c, 0.f}));
}

TEST_P(GafPath, EverySizeAndType_EqualsTheReference) {
  for (const int64_t size : {2, 3, 5, 16, 24, 31, 63, 64, 65, 96, 100, 150, 251}) {
    for (const v1::DType dtype : kImageTypes) {
      for (const std::vector<double>& window : Windows(size)) Check(OptionsOf(size, dtype), window);
    }
  }
}

TEST_P(GafPath, ReducedWindows_EqualTheReference) {
  for (const bool overlapping : {false, true}) {
    for (const v1::DType dtype : kImageTypes) {
      for (const auto& [points, size] : {std::pair{100, 16}, std::pair{97, 31}, std::pair{30, 22}, std::pair{96, 2}}) {
        GafOptions options = OptionsOf(size, dtype);
        options.overlapping = overlapping;
        for (const std::vector<double>& window : Windows(points)) Check(options, window);
      }
    }
  }
}

TEST_P(GafPath, EveryScale_EqualsTheReference) {
  for (const v1::DType dtype : kImageTypes) {
    GafOptions options = OptionsOf(50, dtype);
    options.scale = GafRecipe::CHANNEL;
    for (const std::vector<double>& window : Windows(50)) Check(options, window, {-2.0, 3.0});
    options.scale = GafRecipe::FIXED;
    options.fixed_range = {-1.0, 1.0};
    options.sample_range = {-0.5, 0.75};
    for (const std::vector<double>& window : Windows(50)) Check(options, window);
    options.scale = GafRecipe::NONE;
    std::vector<double> window(50);
    for (int t = 0; t < 50; ++t) window[t] = std::cos(0.2 * t);
    Check(options, window);
  }
}

TEST_P(GafPath, ValuesBesideRoundingBoundaries_EqualTheReference) {
  GafOptions options = OptionsOf(512);
  options.scale = GafRecipe::NONE;
  for (const double max : {255.0, 65535.0}) {
    options.dtype = max == 255.0 ? v1::DTYPE_U8 : v1::DTYPE_U16;
    // In the row of x = 1, g_ij is x_j: these are half-way between codes, and a step of a double or a float beside it.
    std::vector<double> window = {1.0, -1.0};
    for (int k = 0; window.size() < 512; ++k) {
      const double code = std::fmod(k * 37.0, max) + 0.5;
      const double x = code / (max / 2) - 1.0;
      window.push_back(x);
      window.push_back(std::nextafter(x, 2.0));
      window.push_back(std::nextafter(static_cast<float>(x), -2.0f));
    }
    window.resize(512);
    Check(options, window);
  }
}

TEST_P(GafPath, HalfFloats_AreTheFloatsRoundedToNearestEven) {
  // In the row of x = 1, g_ij is x_j: every exponent down to the smallest, at, above and below the middle of
  // neighbours.
  std::vector<double> window = {1.0, -1.0, 0.0};
  for (int exponent = 0; exponent <= 26; ++exponent) {
    for (const double mantissa : {1.0, 1.0 + 0x1p-11, 1.0 + 0x1.8p-10, 1.0 + 0x1p-8, 1.0 + 0x1.8p-7, 1.9999999}) {
      const double x = std::ldexp(mantissa, -exponent - 1);
      for (const double near : {x, -x, x + std::ldexp(1.0, -exponent - 24), x - std::ldexp(1.0, -exponent - 24)}) {
        window.push_back(std::clamp(near, -1.0, 1.0));
      }
    }
  }
  GafOptions options = OptionsOf(static_cast<int64_t>(window.size()));
  options.scale = GafRecipe::NONE;
  const Encoded floats = Encode(options, GetParam(), window);
  const std::vector<float> f32 = As<float>(floats.gasf);
  EXPECT_EQ(f32[3], static_cast<float>(window[3]));
  for (const v1::DType dtype : {v1::DTYPE_F16, v1::DTYPE_BF16}) {
    options.dtype = dtype;
    const Encoded encoded = Encode(options, GetParam(), window);
    std::vector<uint8_t> want(encoded.gasf.size());
    for (const auto& [halves, full] :
         {std::pair{&encoded.gasf, &floats.gasf}, std::pair{&encoded.gadf, &floats.gadf}}) {
      const std::vector<float> values = As<float>(*full);
      QuantizeReference(std::vector<double>(values.begin(), values.end()), dtype, want.data());
      EXPECT_TRUE(*halves == want) << "dtype " << dtype;
    }
  }
}

TEST_P(GafPath, AnyPath_SameBytesAsThePortableOne) {
  for (const int64_t size : {2, 31, 96, 150}) {
    for (const v1::DType dtype : kImageTypes) {
      for (const std::vector<double>& window : Windows(size)) {
        const GafOptions options = OptionsOf(size, dtype);
        const Encoded here = Encode(options, GetParam(), window), portable = Encode(options, "scalar", window);
        ASSERT_TRUE(here.gasf == portable.gasf && here.gadf == portable.gadf) << "size " << size << ", dtype " << dtype;
      }
    }
  }
}

TEST_P(GafPath, Images_SymmetricAndAntisymmetricWithZeroDiagonal) {
  const int64_t n = 97;
  for (const std::vector<double>& window : Windows(n)) {
    const Encoded encoded = Encode(OptionsOf(n), GetParam(), window);
    const std::vector<float> gasf = As<float>(encoded.gasf), gadf = As<float>(encoded.gadf);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(gadf[i * n + i], 0.0f);
      for (int64_t j = 0; j < i; ++j) {
        ASSERT_EQ(gasf[i * n + j], gasf[j * n + i]);
        ASSERT_EQ(gadf[i * n + j], -gadf[j * n + i]);
      }
    }
    EXPECT_THAT(gasf, Each(AllOf(::testing::Ge(-1.0f), ::testing::Le(1.0f))));
  }
}

TEST_P(GafPath, OneField_SameAsTogether) {
  for (const v1::DType dtype : kImageTypes) {
    GafOptions options = OptionsOf(45, dtype);
    const std::vector<double> window = Windows(45)[0];
    const Encoded both = Encode(options, GetParam(), window);
    options.gadf = false;
    const Encoded sum = Encode(options, GetParam(), window);
    EXPECT_EQ(sum.gasf, both.gasf);
    EXPECT_THAT(sum.gadf, IsEmpty());
    options.gasf = false;
    options.gadf = true;
    EXPECT_EQ(Encode(options, GetParam(), window).gadf, both.gadf);
  }
}

TEST_P(GafPath, AnyPlaceInALine_SameImageAndNothingElse) {
  for (const v1::DType dtype : kImageTypes) {
    for (const int64_t size : {2, 5, 31, 96}) {
      auto encoder = GafEncoder::Create(OptionsOf(size, dtype), GetParam());
      ASSERT_OK(encoder);
      const std::vector<double> window = Windows(size)[0];
      const Encoded want = EncodeWith(*encoder, window, size);
      for (const size_t offset : {1, 3, 13, 16, 31, 40, 63}) {
        const Encoded got = EncodeWith(*encoder, window, size, {}, offset);
        ASSERT_TRUE(got.gasf == want.gasf && got.gadf == want.gadf) << "offset " << offset << ", size " << size;
      }
    }
  }
}

TEST_P(GafPath, ShortSampleOfAPaddedSet_ImageInTheCornerAndZeroAround) {
  const int64_t size = 70;
  for (const v1::DType dtype : kImageTypes) {
    auto padded = GafEncoder::Create(OptionsOf(size, dtype), GetParam());
    ASSERT_OK(padded);
    for (const int64_t valid : {1, 2, 31, 64, 69, 70}) {
      const std::vector<double> window = Windows(valid)[0];
      const auto reference = ReferenceGaf(padded->options(), window, valid, {});
      ASSERT_OK(reference);
      const Encoded got = EncodeWith(*padded, window, valid);
      std::vector<uint8_t> want(got.gasf.size());
      QuantizeReference(reference->gadf, dtype, want.data());
      if (dtype == v1::DTYPE_U8 || dtype == v1::DTYPE_U16) {
        ASSERT_TRUE(got.gadf == want);
      }
      const size_t bytes = tensor::DTypeSize(dtype);
      for (int64_t i = 0; i < size; ++i) {
        for (int64_t j = 0; j < size; ++j) {
          if (i < valid && j < valid) continue;
          const size_t at = (i * size + j) * bytes;
          for (const std::vector<uint8_t>* image : {&got.gasf, &got.gadf}) {
            ASSERT_TRUE(std::equal(image->begin() + at, image->begin() + at + bytes, want.begin() + at));
          }
        }
      }
    }
    const Encoded one = EncodeWith(*padded, {7.0}, 1);
    if (dtype == v1::DTYPE_F32) {
      EXPECT_EQ(As<float>(one.gasf)[0], 1.0f);
    }
    if (dtype == v1::DTYPE_U8) {
      EXPECT_THAT(one.gadf, Each(128));
    }
    if (dtype == v1::DTYPE_U16) {
      EXPECT_THAT(As<uint16_t>(one.gadf), Each(32768));
    }
  }
}

TEST_P(GafPath, ReducedSampleOfAPaddedSet_ReducedToItsValidPart) {
  GafOptions options = OptionsOf(20);
  auto encoder = GafEncoder::Create(options, GetParam());
  ASSERT_OK(encoder);
  const std::vector<double> window = Windows(40)[0];
  const std::vector<float> got = As<float>(EncodeWith(*encoder, window, 12).gasf);
  options.image_size = 12;
  const std::vector<float> small = As<float>(Encode(options, GetParam(), window).gasf);
  for (int i = 0; i < 20; ++i) {
    for (int j = 0; j < 20; ++j) ASSERT_EQ(got[i * 20 + j], i < 12 && j < 12 ? small[i * 12 + j] : 0.0f);
  }
}

TEST_P(GafPath, LengthsThatChange_EachAsOnItsOwn) {
  GafOptions options = OptionsOf(16, v1::DTYPE_U16);
  auto encoder = GafEncoder::Create(options, GetParam());
  ASSERT_OK(encoder);
  for (const int64_t points : {16, 100, 37, 16, 100, 17}) {
    const std::vector<double> window = Windows(points)[1];
    EXPECT_EQ(EncodeWith(*encoder, window, 16).gadf, Encode(options, GetParam(), window).gadf);
  }
}

TEST_P(GafPath, ImagesWiderThanACut_EqualTheReference) {
  for (const int64_t size : {512, 513, 700, 1100}) {
    for (const v1::DType dtype : {v1::DTYPE_F32, v1::DTYPE_BF16, v1::DTYPE_U8})
      Check(OptionsOf(size, dtype), Windows(size)[0]);
  }
}

// ---- edge cases of pyts ----

TEST_P(GafPath, ConstantWindow_SumIsTwoASquaredMinusOne) {
  for (const auto& [range, sum] :
       {std::pair{ValueRange{-1, 1}, 1.0f}, std::pair{ValueRange{0, 1}, -1.0f}, std::pair{ValueRange{-.5, .5}, -.5f}}) {
    GafOptions options = OptionsOf(40);
    options.sample_range = range;
    const Encoded encoded = Encode(options, GetParam(), std::vector<double>(40, 5.0));
    EXPECT_THAT(As<float>(encoded.gasf), Each(FloatNear(sum, 5e-7)));
    EXPECT_THAT(As<float>(encoded.gadf), Each(0.0f));
  }
}

TEST_P(GafPath, ConstantUnscaledWindow_SumIsTwoASquaredMinusOne) {
  GafOptions options = OptionsOf(4);
  options.scale = GafRecipe::NONE;
  EXPECT_THAT(As<float>(Encode(options, GetParam(), std::vector<double>(4, 0.5)).gasf), Each(FloatNear(-0.5f, 5e-7)));
}

TEST_P(GafPath, TwoPoints_PlusAndMinusOne) {
  EXPECT_THAT(As<float>(Encode(OptionsOf(2), GetParam(), {3.0, 8.0}).gasf), ElementsAre(1, -1, -1, 1));
}

TEST_P(GafPath, NoiseAboveTenEpsilon_FullContrast) {
  const Encoded encoded = Encode(OptionsOf(3), GetParam(), {1.0, 1.0 + 3e-15, 1.0});
  EXPECT_THAT(As<float>(encoded.gasf), ElementsAreArray({1, -1, 1, -1, 1, -1, 1, -1, 1}));
}

TEST_P(GafPath, NoiseBelowTenEpsilon_Constant) {
  EXPECT_THAT(As<float>(Encode(OptionsOf(3), GetParam(), {1.0, 1.0 + 1e-15, 1.0}).gasf), Each(1.0f));
}

TEST_P(GafPath, HugeConstant_WithinRangeInEveryType) {
  for (const v1::DType dtype : kImageTypes) Check(OptionsOf(33, dtype), std::vector<double>(33, 1e300));
}

TEST_P(GafPath, BadWindow_InvalidArgumentAndNothingWritten) {
  GafOptions options = OptionsOf(3);
  options.scale = GafRecipe::WINDOW;
  auto encoder = GafEncoder::Create(options, GetParam());
  ASSERT_OK(encoder);
  std::vector<float> gasf(9, 77.0f), gadf(9, 77.0f);
  const auto encode = [&](absl::Span<const double> window, int64_t valid) {
    return encoder->Encode(window, valid, {}, gasf.data(), gadf.data());
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(encode({1.0, nan, 2.0}, 3),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("point 1 of 3 is nan")));
  EXPECT_THAT(encode({1.0, 2.0, HUGE_VAL}, 3),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("point 2 of 3 is inf")));
  EXPECT_THAT(encode({-1.7e308, 0.0, 1.7e308}, 3),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("span more than a double holds")));
  EXPECT_THAT(encode({1.7e308, 1.7e308, 0, 0, 0, 0}, 3),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("point 0 of 3 is inf")));
  EXPECT_THAT(encode({1.0, 2.0}, 3),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("2 points cannot fill 3 rows")));
  EXPECT_THAT(encode({1.0, 2.0}, 0), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("cannot fill 0 rows")));
  EXPECT_THAT(encode({1.0, 2.0, 3.0, 4.0}, 4), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("image of 3")));
  EXPECT_THAT(gasf, Each(77.0f));
  EXPECT_THAT(gadf, Each(77.0f));
}

TEST_P(GafPath, UnscaledValueOutsideAfterTheReduction_InvalidArgument) {
  GafOptions options = OptionsOf(2);
  options.scale = GafRecipe::NONE;
  auto encoder = GafEncoder::Create(options, GetParam());
  ASSERT_OK(encoder);
  float gasf[4], gadf[4];
  EXPECT_THAT(encoder->Encode({0.0, 1.00001}, 2, {}, gasf, gadf),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("1.00001"), HasSubstr("[-1, 1]"))));
  EXPECT_OK(encoder->Encode({0.0, 1.5, 0.0, 0.5}, 2, {}, gasf, gadf));  // means 0.75 and 0.25
}

TEST(GafEncoder, NeitherField_InvalidArgument) {
  GafOptions options = OptionsOf(4);
  options.gasf = options.gadf = false;
  EXPECT_THAT(GafEncoder::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("recipe.gaf.fields")));
}

TEST(GafEncoder, BadOptions_InvalidArgument) {
  EXPECT_THAT(GafEncoder::Create(OptionsOf(1)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("recipe.gaf.image_size")));
}

TEST(GafEncoder, Path_BestUnlessNamed) {
  ASSERT_THAT(GafPaths(), ::testing::Contains("scalar"));
  const auto best = GafEncoder::Create(OptionsOf(4));
  ASSERT_OK(best);
  EXPECT_EQ(best->path(), GafPaths().front());
  EXPECT_THAT(GafEncoder::Create(OptionsOf(4), "abacus"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"abacus\"")));
}

TEST(GafEncoder, Moved_GoesOn) {
  auto encoder = GafEncoder::Create(OptionsOf(8));
  ASSERT_OK(encoder);
  GafEncoder other = *std::move(encoder);
  const std::vector<double> window = Windows(8)[0];
  EXPECT_EQ(EncodeWith(other, window, 8).gasf, Encode(OptionsOf(8), "", window).gasf);
}

}  // namespace
}  // namespace stoker::transforms
