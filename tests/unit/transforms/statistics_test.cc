// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/support/status_matchers.h"

namespace stoker::transforms {
namespace {

using ::stoker::testing::IsOkAndHolds;
using ::stoker::testing::StatusIs;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::HasSubstr;
using ::testing::Pointwise;
using v1::GafRecipe;

constexpr GafRecipe::Stats kAllSets[] = {GafRecipe::STATS_UNSPECIFIED, GafRecipe::BASIC,
                                         GafRecipe::COMPREHENSIVE,     GafRecipe::CORRELATION_FOCUSED,
                                         GafRecipe::SIGNAL_BASIC,      GafRecipe::SIGNAL_COMPREHENSIVE,
                                         GafRecipe::SIGNAL_EXTENDED};

std::vector<float> Compute(GafRecipe::Stats set, const std::vector<double>& series, int64_t channels) {
  const auto shape = StatsShape(set, channels);
  EXPECT_OK(shape);
  size_t width = 1;
  for (const int64_t dimension : *shape) width *= dimension;
  std::vector<float> out(width, -77.0f);
  EXPECT_OK(ComputeStatistics(set, series, channels, absl::MakeSpan(out)));
  return out;
}

// Two channels of four points; the numbers beside are numpy's.
const std::vector<double> kSeries = {1, 2, 3, 4, 4, 1, 3, 10};

TEST(StatsShape, EachSet_WidthOfTheContract) {
  EXPECT_THAT(StatsShape(GafRecipe::BASIC, 26), IsOkAndHolds(ElementsAre(130)));
  EXPECT_THAT(StatsShape(GafRecipe::STATS_UNSPECIFIED, 26), IsOkAndHolds(ElementsAre(130)));
  EXPECT_THAT(StatsShape(GafRecipe::COMPREHENSIVE, 26), IsOkAndHolds(ElementsAre(130 + 325)));
  EXPECT_THAT(StatsShape(GafRecipe::CORRELATION_FOCUSED, 26), IsOkAndHolds(ElementsAre(130 + 975)));
  EXPECT_THAT(StatsShape(GafRecipe::SIGNAL_BASIC, 97), IsOkAndHolds(ElementsAre(97, 5)));
  EXPECT_THAT(StatsShape(GafRecipe::SIGNAL_COMPREHENSIVE, 97), IsOkAndHolds(ElementsAre(97, 8)));
  EXPECT_THAT(StatsShape(GafRecipe::SIGNAL_EXTENDED, 97), IsOkAndHolds(ElementsAre(97, 12)));
  EXPECT_THAT(StatsShape(GafRecipe::CORRELATION_FOCUSED, 1), IsOkAndHolds(ElementsAre(5)));
}

TEST(StatsShape, UnknownSet_InvalidArgumentThatNamesTheField) {
  EXPECT_THAT(StatsShape(static_cast<GafRecipe::Stats>(77), 2),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("recipe.gaf.stats: value 77")));
}

TEST(ComputeStatistics, Basic_FeatureAfterFeature) {
  EXPECT_THAT(Compute(GafRecipe::BASIC, kSeries, 2),
              Pointwise(FloatEq(), {2.5f, 4.5f, 1.29099444873f, 3.87298334621f, 4.f, 10.f, 1.f, 1.f, 2.f, 3.f}));
}

TEST(ComputeStatistics, Comprehensive_CorrelationsAfterTheBasic) {
  const std::vector<float> out = Compute(GafRecipe::COMPREHENSIVE, kSeries, 2);
  ASSERT_EQ(out.size(), 11u);
  EXPECT_FLOAT_EQ(out[3], 3.87298334621f);
  EXPECT_FLOAT_EQ(out[10], 0.666666659781f);
}

TEST(ComputeStatistics, CorrelationFocused_DifferencesInterleaved) {
  const std::vector<float> out = Compute(GafRecipe::CORRELATION_FOCUSED, kSeries, 2);
  ASSERT_EQ(out.size(), 13u);
  EXPECT_FLOAT_EQ(out[10], 0.666666659781f);
  EXPECT_EQ(out[11], 6.0f);
  EXPECT_EQ(out[12], 2.5f);
}

TEST(ComputeStatistics, ThreeChannels_PairsRowByRow) {
  // Channels 0, 1, 2 are constants 0, 1, 3 apart from each other.
  const std::vector<double> series = {0, 1, 2, 1, 2, 3, 3, 4, 5};
  const std::vector<float> out = Compute(GafRecipe::CORRELATION_FOCUSED, series, 3);
  ASSERT_EQ(out.size(), 24u);
  for (int pair = 0; pair < 3; ++pair) EXPECT_NEAR(out[15 + pair], 1.0f, 1e-6);
  EXPECT_THAT(std::vector<float>(out.begin() + 18, out.end()), ElementsAre(1, 1, 3, 3, 2, 2));
}

TEST(ComputeStatistics, SignalSets_ChannelAfterChannel) {
  const std::vector<float> first = {2.5f,           1.29099444873f,  4.f,   1.f,   2.f, 0.f,
                                    0.92249999668f, 0.516397777429f, 1.75f, 3.25f, 3.f, 1.f};
  const std::vector<float> second = {4.5f,           3.87298334621f,  10.f, 1.f,  3.f, 0.516397779405f,
                                     1.18916666661f, 0.860662963911f, 2.5f, 5.5f, 9.f, 2.75f};
  for (const auto& [set, count] : {std::pair{GafRecipe::SIGNAL_BASIC, 5}, std::pair{GafRecipe::SIGNAL_COMPREHENSIVE, 8},
                                   std::pair{GafRecipe::SIGNAL_EXTENDED, 12}}) {
    std::vector<float> want(first.begin(), first.begin() + count);
    want.insert(want.end(), second.begin(), second.begin() + count);
    EXPECT_THAT(Compute(set, kSeries, 2), Pointwise(FloatEq(), want));
  }
}

TEST(ComputeStatistics, OddLength_MedianIsTheMiddle) {
  EXPECT_EQ(Compute(GafRecipe::SIGNAL_BASIC, {9, 1, 5}, 1)[4], 5.0f);
  EXPECT_EQ(Compute(GafRecipe::SIGNAL_BASIC, {9, 1, 5, 7}, 1)[4], 5.0f);  // the lower of 5 and 7
}

TEST(ComputeStatistics, LongSeries_MatchesPlainSums) {
  const int64_t points = 103;
  std::vector<double> series(2 * points);
  for (int64_t t = 0; t < points; ++t) {
    series[t] = std::sin(0.3 * t);
    series[points + t] = std::cos(0.2 * t) + 0.01 * t;
  }
  const std::vector<float> out = Compute(GafRecipe::CORRELATION_FOCUSED, series, 2);
  double product = 0.0, sum = 0.0;
  const auto z = [&](int64_t c, int64_t t) { return (series[c * points + t] - double{out[c]}) / double{out[2 + c]}; };
  for (int64_t t = 0; t < points; ++t) {
    product += z(0, t) * z(1, t);
    sum += std::abs(series[t] - series[points + t]);
  }
  EXPECT_NEAR(out[10], product / (points - 1), 1e-6);
  EXPECT_NEAR(out[12], sum / points, 1e-6);
}

TEST(ComputeStatistics, OnePoint_FiniteWithoutSpread) {
  const std::vector<float> out = Compute(GafRecipe::SIGNAL_EXTENDED, {3.0}, 1);
  EXPECT_THAT(out, ElementsAre(3, 0, 3, 3, 3, 0, 0, 0, 3, 3, 0, 0));
  EXPECT_THAT(Compute(GafRecipe::CORRELATION_FOCUSED, {3.0, 5.0}, 2),
              ElementsAre(3, 5, 0, 0, 3, 5, 3, 5, 3, 5, 0, 2, 2));
}

TEST(ComputeStatistics, ConstantChannel_Finite) {
  const std::vector<double> series = {2, 2, 2, 2, 1, 2, 3, 4};
  for (const GafRecipe::Stats set : kAllSets) {
    EXPECT_THAT(Compute(set, series, 2), Each(::testing::ResultOf([](float v) { return std::isfinite(v); }, true)));
  }
  EXPECT_EQ(Compute(GafRecipe::COMPREHENSIVE, series, 2)[10], 0.0f);
}

TEST(ComputeStatistics, SizesThatDisagree_InvalidArgument) {
  std::vector<float> out(10, -77.0f);
  EXPECT_THAT(ComputeStatistics(GafRecipe::BASIC, {1.0, 2.0, 3.0}, 2, absl::MakeSpan(out)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("3 values in 2 channels")));
  EXPECT_THAT(ComputeStatistics(GafRecipe::BASIC, {1.0, 2.0}, 1, absl::MakeSpan(out)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("want whole channels and 5 results")));
  EXPECT_THAT(ComputeStatistics(GafRecipe::BASIC, {}, 2, absl::MakeSpan(out)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0 values")));
  EXPECT_THAT(out, Each(-77.0f));
}

}  // namespace
}  // namespace stoker::transforms
