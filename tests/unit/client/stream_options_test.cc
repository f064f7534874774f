// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/stream_options.h"

#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

class StreamOptionsTest : public ::testing::Test {
 protected:
  StreamOptionsTest() {
    AddRecipeOptions(&app_, &recipe_);
    AddPlanOptions(&app_, &plan_);
    AddReadingOptions(&app_, &reading_);
  }

  // Reads the words; an error of the parser as its text.
  std::string Parse(std::vector<std::string> words) {
    std::reverse(words.begin(), words.end());
    try {
      app_.parse(words);
      return "";
    } catch (const CLI::ParseError& error) {
      return error.what();
    }
  }

  static v1::Recipe Text(const std::string& text) {
    v1::Recipe recipe;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &recipe)) << text;
    return recipe;
  }

  CLI::App app_;
  RecipeArguments recipe_;
  PlanArguments plan_;
  ReadingArguments reading_;
};

MATCHER_P(EqualsProto, expected, "") {
  *result_listener << arg.ShortDebugString();
  return google::protobuf::util::MessageDifferencer::Equals(arg, expected);
}

TEST_F(StreamOptionsTest, WithoutOptions_IsLeftToTheDataSet) {
  EXPECT_EQ(Parse({}), "");
  EXPECT_THAT(MakeRecipe(recipe_).value(), EqualsProto(v1::Recipe()));
  const v1::Plan plan = MakePlan(plan_).value();
  EXPECT_EQ(plan.batch_size(), 64u);
  EXPECT_EQ(plan.world(), 1u);
}

TEST_F(StreamOptionsTest, EveryRecipeOption_IsSet) {
  EXPECT_EQ(Parse({"--fields", "gasf,series,stats", "--image-size", "48", "--overlapping", "--sample-range", "-1,0.5",
                   "--scale", "fixed:-10,1e3", "--series-scale", "channel", "--dtype", "bf16", "--stats",
                   "correlation_focused"}),
            "");
  EXPECT_THAT(MakeRecipe(recipe_).value(),
              EqualsProto(Text("gaf { fields: [GASF, SERIES, STATS] image_size: 48 overlapping: true "
                               "sample_range { low: -1 high: 0.5 } scale: FIXED fixed_range { low: -10 high: 1000 } "
                               "series_scale: TO_CHANNEL dtype: DTYPE_BF16 stats: CORRELATION_FOCUSED }")));
}

TEST_F(StreamOptionsTest, EveryPlanOption_IsSet) {
  EXPECT_EQ(Parse({"--batch-size", "16", "--shuffle", "--seed", "18446744073709551615", "--rank", "1", "--world", "4",
                   "--tail", "pad", "--from", "2:17", "--prefetch", "0", "--transport", "inline"}),
            "");
  const v1::Plan plan = MakePlan(plan_).value();
  EXPECT_EQ(plan.ShortDebugString(),
            "batch_size: 16 shuffle: true seed: 18446744073709551615 rank: 1 world: 4 tail: PAD");
  const v1::Position position = ParsePosition(plan_.from).value();
  EXPECT_EQ(position.epoch(), 2u);
  EXPECT_EQ(position.step(), 17u);
  EXPECT_EQ(reading_.prefetch, 0);
  EXPECT_EQ(reading_.transport, Transport::kInline);
}

TEST_F(StreamOptionsTest, ImpossibleValues_NameTheOptionAndWhatIsPossible) {
  const auto bad = [](absl::string_view a, absl::string_view b) {
    return StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(std::string(a)), HasSubstr(std::string(b))));
  };
  RecipeArguments arguments;
  arguments.fields = {"gasf", "gaff"};
  EXPECT_THAT(MakeRecipe(arguments), bad("--fields gaff", "gasf, gadf, series, stats"));
  arguments = {};
  arguments.sample_range = "1";
  EXPECT_THAT(MakeRecipe(arguments), bad("--sample-range 1", "LOW,HIGH"));
  arguments = {};
  arguments.scale = "fixed:1";
  EXPECT_THAT(MakeRecipe(arguments), bad("--scale 1", "LOW,HIGH"));
  arguments.scale = "global";
  EXPECT_THAT(MakeRecipe(arguments), bad("--scale global", "window, channel, fixed:LO,HI, none"));
  arguments = {};
  arguments.dtype = "f64";
  EXPECT_THAT(MakeRecipe(arguments), bad("--dtype f64", "u16"));
  arguments = {};
  arguments.stats = "all";
  EXPECT_THAT(MakeRecipe(arguments), bad("--stats all", "signal_extended"));
  PlanArguments plan;
  plan.tail = "cut";
  EXPECT_THAT(MakePlan(plan), bad("--tail cut", "keep, drop, pad"));
  for (const char* from : {"1", "1:", ":2", "a:b", "-1:0", "1:2:3"}) {
    EXPECT_THAT(ParsePosition(from), bad(from, "EPOCH:STEP"));
  }
}

TEST_F(StreamOptionsTest, RecipeFile_IsReadAsTextproto) {
  const TempDir dir;
  recipe_.file = dir.Write("recipe.textproto", "gaf {\n  dtype: DTYPE_U8\n  image_size: 24\n}\n");
  EXPECT_THAT(MakeRecipe(recipe_).value(), EqualsProto(Text("gaf { dtype: DTYPE_U8 image_size: 24 }")));
  recipe_.file = dir.Write("bad.textproto", "gaf {\n  colour: 3\n}\n");
  EXPECT_THAT(MakeRecipe(recipe_),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("bad.textproto:2:"), HasSubstr("colour"))));
  recipe_.file = dir.File("none");
  EXPECT_THAT(MakeRecipe(recipe_), StatusIs(absl::StatusCode::kNotFound, HasSubstr(recipe_.file)));
}

TEST_F(StreamOptionsTest, RecipeFile_ExcludesTheOtherRecipeOptions) {
  EXPECT_THAT(Parse({"--recipe", "x", "--dtype", "u8"}), HasSubstr("--recipe"));
}

TEST_F(StreamOptionsTest, CrystalOptions_AreAGraphRecipe) {
  EXPECT_EQ(Parse({"--tensors", "edge_index, rbf", "--line-graph", "torch", "--rbf", "40,0.5,6", "--float", "bf16",
                   "--index", "i32"}),
            "");
  EXPECT_THAT(MakeRecipe(recipe_).value(),
              EqualsProto(Text("graph { tensors: 'edge_index' tensors: 'rbf' line_graph: TORCH "
                               "rbf { bins: 40 low: 0.5 high: 6 } float_dtype: DTYPE_BF16 index_dtype: DTYPE_I32 }")));
}

TEST_F(StreamOptionsTest, OptionsOfBothKinds_AreRefused) {
  EXPECT_EQ(Parse({"--tensors", "edge_index", "--dtype", "u8"}), "");
  EXPECT_THAT(MakeRecipe(recipe_), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("some for crystals")));
}

TEST_F(StreamOptionsTest, BadCrystalOption_NamesItWithItsValue) {
  recipe_.rbf = "80,0";
  EXPECT_THAT(MakeRecipe(recipe_), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--rbf 80,0: ")));
  recipe_.rbf.clear();
  recipe_.line_graph = "dgl2";
  EXPECT_THAT(MakeRecipe(recipe_), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--line-graph dgl2: ")));
}

TEST_F(StreamOptionsTest, Budget_StandsInPlaceOfTheBatchSize) {
  EXPECT_EQ(Parse({"--budget", "graphs=64,nodes=2000,edges=30000,triplets=400000,bytes=1GiB", "--oversize", "alone"}),
            "");
  const v1::Plan plan = MakePlan(plan_).value();
  EXPECT_EQ(plan.batch_size(), 0u);
  EXPECT_EQ(plan.budget().graphs(), 64u);
  EXPECT_EQ(plan.budget().nodes(), 2000u);
  EXPECT_EQ(plan.budget().edges(), 30000u);
  EXPECT_EQ(plan.budget().triplets(), 400000u);
  EXPECT_EQ(plan.budget().bytes(), uint64_t{1} << 30);
  EXPECT_EQ(plan.oversize(), v1::OVERSIZE_ALONE);
  EXPECT_THAT(Parse({"--budget", "nodes=5", "--batch-size", "3"}), HasSubstr("--batch-size"));
}

TEST_F(StreamOptionsTest, BadBudget_NamesTheLimit) {
  for (const char* limit : {"nodes", "nodes=", "nodes=-1", "bytes=many", "atoms=5"}) {
    plan_.budget = {limit};
    EXPECT_THAT(MakePlan(plan_), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(limit))) << limit;
  }
}

}  // namespace
}  // namespace stoker::ctl
