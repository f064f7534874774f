// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/scale.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/status_matchers.h"

namespace stoker::transforms {
namespace {

using ::stoker::testing::IsOkAndHolds;
using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(FindRange, Values_LeastAndGreatest) {
  EXPECT_THAT(FindRange({3.0, -1.0, 2.0, 7.0, 0.0, -2.0}), IsOkAndHolds(ValueRange{-2.0, 7.0}));
  EXPECT_THAT(FindRange({5.0}), IsOkAndHolds(ValueRange{5.0, 5.0}));
}

TEST(FindRange, NotFinite_NamesTheFirstPosition) {
  std::vector<double> values(11, 1.0);
  for (const double bad : {kNan, kInfinity, -kInfinity}) {
    for (size_t i = 0; i < values.size(); ++i) {
      std::vector<double> copy = values;
      copy[i] = bad;
      EXPECT_THAT(FindRange(copy),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           AllOf(HasSubstr("point " + std::to_string(i) + " of 11"), HasSubstr("finite"))));
    }
  }
}

TEST(ScaleValues, Window_LandsOnTheTarget) {
  std::vector<double> values = {0.0, 5.0, 10.0};
  ASSERT_OK(ScaleValues({0.0, 10.0}, {-1.0, 1.0}, absl::MakeSpan(values)));
  EXPECT_THAT(values, ElementsAre(-1.0, 0.0, 1.0));
  values = {0.0, 5.0, 10.0};
  ASSERT_OK(ScaleValues({0.0, 10.0}, {0.0, 1.0}, absl::MakeSpan(values)));
  EXPECT_THAT(values, ElementsAre(0.0, 0.5, 1.0));
}

TEST(ScaleValues, OutsideTheSource_Clipped) {
  std::vector<double> values = {-3.0, 0.0, 20.0};
  ASSERT_OK(ScaleValues({0.0, 10.0}, {-0.5, 0.5}, absl::MakeSpan(values)));
  EXPECT_THAT(values, ElementsAre(-0.5, -0.5, 0.5));
}

TEST(ScaleValues, RangeBelowTenEpsilon_CountsAsConstant) {
  std::vector<double> values = {1.0, 1.0 + 2e-15, 1.0};
  ASSERT_OK(ScaleValues({1.0, 1.0 + 2e-15}, {-1.0, 1.0}, absl::MakeSpan(values)));
  EXPECT_NEAR(values[1], -1.0, 1e-14);
  values = {1.0, 1.0 + 3e-15, 1.0};
  ASSERT_OK(ScaleValues({1.0, 1.0 + 3e-15}, {-1.0, 1.0}, absl::MakeSpan(values)));
  EXPECT_NEAR(values[1], 1.0, 1e-14);
}

TEST(ScaleValues, RangeOverflows_RefusedAndUntouched) {
  std::vector<double> values = {-1.7e308, 1.7e308};
  EXPECT_THAT(ScaleValues({-1.7e308, 1.7e308}, {-1.0, 1.0}, absl::MakeSpan(values)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("span more than a double holds")));
  EXPECT_THAT(values, ElementsAre(-1.7e308, 1.7e308));
}

TEST(ScaleValues, LargeConstant_StaysWithinTheTarget) {
  std::vector<double> values(4, 1e300);
  ASSERT_OK(ScaleValues({1e300, 1e300}, {-1.0, 1.0}, absl::MakeSpan(values)));
  EXPECT_THAT(values, Each(::testing::AllOf(::testing::Ge(-1.0), ::testing::Le(1.0))));
}

TEST(CheckUnitRange, ValueOutside_NamedWithItsPosition) {
  EXPECT_OK(CheckUnitRange({-1.0, 0.0, 1.0}));
  EXPECT_THAT(CheckUnitRange({0.0, 1.00001}),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("point 1 of 2"), HasSubstr("1.00001"))));
  EXPECT_THAT(CheckUnitRange({kNan}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("point 0")));
}

TEST(ScaleWindow, EachScale_TakesItsOwnRange) {
  GafOptions options;
  const auto scaled = [&](v1::GafRecipe::Scale scale) {
    std::vector<double> values = {0.25, 0.5};
    options.scale = scale;
    EXPECT_OK(ScaleWindow(options, {0.0, 1.0}, absl::MakeSpan(values)));
    return values;
  };
  EXPECT_THAT(scaled(v1::GafRecipe::WINDOW), ElementsAre(-1.0, 1.0));
  EXPECT_THAT(scaled(v1::GafRecipe::CHANNEL), ElementsAre(-0.5, 0.0));
  EXPECT_THAT(scaled(v1::GafRecipe::FIXED), ElementsAre(-0.5, 0.0));
  EXPECT_THAT(scaled(v1::GafRecipe::NONE), ElementsAre(0.25, 0.5));
}

TEST(ScaleWindow, NotFinite_RefusedByEveryScale) {
  GafOptions options;
  for (const auto scale : {v1::GafRecipe::WINDOW, v1::GafRecipe::CHANNEL, v1::GafRecipe::FIXED, v1::GafRecipe::NONE}) {
    options.scale = scale;
    for (const double bad : {kNan, kInfinity}) {
      std::vector<double> values = {0.0, bad};
      EXPECT_THAT(ScaleWindow(options, {0.0, 1.0}, absl::MakeSpan(values)),
                  StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("point 1 of 2")));
    }
  }
}

}  // namespace
}  // namespace stoker::transforms
