// SPDX-License-Identifier: Apache-2.0
#include "server/batch/recipe.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"

namespace stoker::batch {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::HasSubstr;

template <typename Message>
Message Text(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

v1::StoreManifest Series() {
  return Text<v1::StoreManifest>(
      "kind: TIME_SERIES samples: 3 time_series { channels: 'a' channels: 'b' length_min: 20 length_max: 20 "
      "channel_min: 0 channel_min: 0 channel_max: 1 channel_max: 1 }");
}

TEST(CompleteRecipe, NothingSaid_IsBothFieldsOfTheWholeWindow) {
  ASSERT_OK_AND_ASSIGN(const v1::Recipe recipe, CompleteRecipe(v1::Recipe(), Series()));
  EXPECT_EQ(recipe.gaf().fields_size(), 2);
  EXPECT_EQ(recipe.gaf().image_size(), 20u);
  EXPECT_EQ(recipe.gaf().dtype(), v1::DTYPE_F32);
  EXPECT_EQ(recipe.gaf().scale(), v1::GafRecipe::WINDOW);
}

TEST(CompleteRecipe, RecipesThatMeanTheSame_HaveEqualDigests) {
  ASSERT_OK_AND_ASSIGN(const v1::Recipe a, CompleteRecipe(v1::Recipe(), Series()));
  ASSERT_OK_AND_ASSIGN(const v1::Recipe b,
                       CompleteRecipe(Text<v1::Recipe>("gaf { fields: GADF fields: GASF image_size: 20 }"), Series()));
  ASSERT_OK_AND_ASSIGN(const v1::Recipe c, CompleteRecipe(Text<v1::Recipe>("gaf { image_size: 19 }"), Series()));
  EXPECT_EQ(Digest(a), Digest(b));
  EXPECT_NE(Digest(a), Digest(c));
  ASSERT_OK_AND_ASSIGN(const v1::Recipe again, CompleteRecipe(a, Series()));
  EXPECT_EQ(Digest(a), Digest(again)) << "workers complete it once more";
}

TEST(CompleteRecipe, FieldOutOfRange_IsInvalidArgumentThatNamesIt) {
  const auto invalid = [](const char* field) { return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(field)); };
  EXPECT_THAT(CompleteRecipe(Text<v1::Recipe>("gaf { image_size: 21 }"), Series()), invalid("recipe.gaf.image_size"));
  EXPECT_THAT(CompleteRecipe(Text<v1::Recipe>("gaf { image_size: 1 }"), Series()), invalid("recipe.gaf.image_size"));
  EXPECT_THAT(CompleteRecipe(Text<v1::Recipe>("gaf { fields: GASF fields: GASF }"), Series()),
              invalid("recipe.gaf.fields"));
  EXPECT_THAT(CompleteRecipe(Text<v1::Recipe>("gaf { stats: BASIC }"), Series()), invalid("recipe.gaf.stats"));
  EXPECT_THAT(CompleteRecipe(Text<v1::Recipe>("gaf { sample_range { low: -2 high: 1 } }"), Series()),
              invalid("recipe.gaf.sample_range"));
  EXPECT_THAT(CompleteRecipe(Text<v1::Recipe>("graph {}"), Series()), invalid("recipe"));
}

}  // namespace
}  // namespace stoker::batch
