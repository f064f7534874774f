// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/gaf_options.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"

namespace stoker::transforms {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

v1::GafRecipe Recipe(const std::string& text) {
  v1::GafRecipe recipe;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &recipe)) << text;
  return recipe;
}

TEST(GafOptions, EmptyRecipe_DefaultsOfTheContract) {
  const auto options = GafOptions::FromRecipe({}, 96);
  ASSERT_OK(options);
  EXPECT_TRUE(options->gasf && options->gadf);
  EXPECT_EQ(options->image_size, 96);
  EXPECT_FALSE(options->overlapping);
  EXPECT_EQ(options->sample_range, (ValueRange{-1.0, 1.0}));
  EXPECT_EQ(options->scale, v1::GafRecipe::WINDOW);
  EXPECT_EQ(options->dtype, v1::DTYPE_F32);
  EXPECT_EQ(options->image_bytes(), 96u * 96u * 4u);
}

TEST(GafOptions, EveryField_Taken) {
  const auto options = GafOptions::FromRecipe(
      Recipe("fields: GADF image_size: 24 overlapping: true sample_range { low: 0 high: 0.5 } scale: FIXED "
             "fixed_range { low: -40 high: 60 } dtype: DTYPE_U16"),
      96);
  ASSERT_OK(options);
  EXPECT_FALSE(options->gasf);
  EXPECT_TRUE(options->gadf);
  EXPECT_EQ(options->image_size, 24);
  EXPECT_TRUE(options->overlapping);
  EXPECT_EQ(options->sample_range, (ValueRange{0.0, 0.5}));
  EXPECT_EQ(options->scale, v1::GafRecipe::FIXED);
  EXPECT_EQ(options->fixed_range, (ValueRange{-40.0, 60.0}));
  EXPECT_EQ(options->image_bytes(), 24u * 24u * 2u);
}

TEST(GafOptions, NoImages_AnyLengthWillDo) {
  const auto options = GafOptions::FromRecipe(Recipe("fields: SERIES fields: STATS"), 1);
  ASSERT_OK(options);
  EXPECT_FALSE(options->gasf || options->gadf);
}

struct BadRecipe {
  const char* recipe;
  int64_t points;
  const char* message;
};

TEST(GafOptions, BadRecipe_InvalidArgumentThatNamesTheField) {
  const BadRecipe cases[] = {
      {"image_size: 1", 96, "recipe.gaf.image_size: 1 is outside [2, 4096]"},
      {"", 1, "recipe.gaf.image_size: 1 is outside [2, 4096]"},
      {"", 5000, "recipe.gaf.image_size: 5000 is outside [2, 4096]"},
      {"image_size: 97", 96, "recipe.gaf.image_size: 97 is above the 96 points"},
      {"image_size: 4097", 5000, "recipe.gaf.image_size: 4097 is outside"},
      {"sample_range { low: -1.1 high: 1 }", 96, "recipe.gaf.sample_range: [-1.1, 1]"},
      {"sample_range { low: 0 high: 1.5 }", 96, "recipe.gaf.sample_range: [0, 1.5]"},
      {"sample_range { low: 0.5 high: 0.5 }", 96, "recipe.gaf.sample_range: [0.5, 0.5]"},
      {"sample_range { low: nan high: 1 }", 96, "recipe.gaf.sample_range: [nan, 1]"},
      {"scale: FIXED", 96, "recipe.gaf.fixed_range: missing"},
      {"fixed_range { low: 0 high: 1 }", 96, "recipe.gaf.fixed_range: is for scale FIXED only"},
      {"scale: FIXED fixed_range { low: 1 high: 1 }", 96, "recipe.gaf.fixed_range: [1, 1]"},
      {"scale: FIXED fixed_range { low: 0 high: inf }", 96, "recipe.gaf.fixed_range: [0, inf]"},
      {"scale: FIXED fixed_range { low: -1.7e308 high: 1.7e308 }", 96, "recipe.gaf.fixed_range"},
      {"fields: GASF fields: GASF", 96, "recipe.gaf.fields: GASF is asked for twice"},
      {"fields: FIELD_UNSPECIFIED", 96, "recipe.gaf.fields: value 0"},
      {"dtype: DTYPE_F64", 96, "recipe.gaf.dtype: DTYPE_F64 is not for images"},
      {"dtype: DTYPE_I32", 96, "recipe.gaf.dtype: DTYPE_I32 is not for images"},
  };
  for (const BadRecipe& bad : cases) {
    EXPECT_THAT(GafOptions::FromRecipe(Recipe(bad.recipe), bad.points),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(bad.message)))
        << bad.recipe;
  }
}

TEST(GafOptions, EnumValueOfALaterVersion_InvalidArgumentThatNamesTheField) {
  v1::GafRecipe recipe;
  recipe.set_scale(static_cast<v1::GafRecipe::Scale>(77));
  EXPECT_THAT(GafOptions::FromRecipe(recipe, 96),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("recipe.gaf.scale"), HasSubstr("77"))));
  recipe.Clear();
  recipe.set_dtype(static_cast<v1::DType>(77));
  EXPECT_THAT(GafOptions::FromRecipe(recipe, 96),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("recipe.gaf.dtype")));
  recipe.Clear();
  recipe.set_stats(static_cast<v1::GafRecipe::Stats>(77));
  EXPECT_THAT(GafOptions::FromRecipe(recipe, 96),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("recipe.gaf.stats")));
  recipe.Clear();
  recipe.set_series_scale(static_cast<v1::GafRecipe::SeriesScale>(77));
  EXPECT_THAT(GafOptions::FromRecipe(recipe, 96),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("recipe.gaf.series_scale")));
  recipe.Clear();
  recipe.add_fields(static_cast<v1::GafRecipe::Field>(77));
  EXPECT_THAT(GafOptions::FromRecipe(recipe, 96),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("recipe.gaf.fields")));
}

}  // namespace
}  // namespace stoker::transforms
