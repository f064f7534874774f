// SPDX-License-Identifier: Apache-2.0
#include "client/src/loader_state.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/support/status_matchers.h"

namespace stoker::client {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

LoaderState Example() {
  LoaderState state{"sahu", "0123456789abcdef", "1111222233334444", "5555666677778888", {}, {}, {}};
  state.plan.set_batch_size(32);
  state.plan.set_world(4);
  state.plan.set_rank(3);
  state.plan.set_shuffle(true);
  state.plan.set_seed(UINT64_MAX);
  state.plan.set_tail(v1::DROP);
  state.position.set_epoch(7);
  state.position.set_step(123456789012);
  return state;
}

TEST(LoaderStateTest, FormatThenParse_IsTheSame) {
  const std::string json = FormatState(Example());
  EXPECT_LT(json.size(), 1024u);
  const absl::StatusOr<LoaderState> parsed = ParseState(json);
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(FormatState(*parsed), json);
  EXPECT_EQ(parsed->position.step(), 123456789012u);
  EXPECT_EQ(parsed->plan.seed(), UINT64_MAX);
}

TEST(LoaderStateTest, ParseState_OfOtherText_IsInvalid) {
  const auto invalid = [](absl::string_view reason) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(std::string(reason)));
  };
  const std::string json = FormatState(Example());
  EXPECT_THAT(ParseState(""), invalid("not a JSON object"));
  EXPECT_THAT(ParseState("[1]"), invalid("not a JSON object"));
  EXPECT_THAT(ParseState("{}"), invalid("version"));
  EXPECT_THAT(ParseState(absl::StrReplaceAll(json, {{"\"version\":1", "\"version\":2"}})), invalid("version 2"));
  EXPECT_THAT(ParseState(absl::StrReplaceAll(json, {{"\"epoch\":7", "\"epoch\":-7"}})), invalid("epoch"));
  EXPECT_THAT(ParseState(absl::StrReplaceAll(json, {{"\"epoch\":7", "\"epoch\":\"7\""}})), invalid("epoch"));
  EXPECT_THAT(ParseState(absl::StrReplaceAll(json, {{"\"DROP\"", "\"LEAVE\""}})), invalid("LEAVE"));
  EXPECT_THAT(ParseState(absl::StrReplaceAll(json, {{"\"world\":4", "\"world\":5000000000"}})), invalid("range"));
}

TEST(LoaderStateTest, CheckSameBatches_NamesWhatDiffers) {
  const auto refused = [](absl::string_view reason) {
    return StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(std::string(reason)));
  };
  const LoaderState saved = Example();
  EXPECT_THAT(CheckSameBatches(saved, Example()), IsOk());
  LoaderState now = Example();
  now.store = "another";
  EXPECT_THAT(CheckSameBatches(saved, now), refused("the data set differs"));
  now = Example();
  now.recipe_digest = "another";
  EXPECT_THAT(CheckSameBatches(saved, now), refused("the recipe differs"));
  now = Example();
  now.plan_digest = "another";
  EXPECT_THAT(CheckSameBatches(saved, now), refused("the plan differs"));
  now.plan.set_shuffle(false);
  EXPECT_THAT(CheckSameBatches(saved, now), refused("shuffle differs: the state has on, this loader off"));
  now = Example();
  now.plan_digest = "another";
  now.plan.set_seed(1);
  EXPECT_THAT(CheckSameBatches(saved, now), refused("the seed differs"));
  now = Example();
  now.plan_digest = "another";
  now.plan.set_tail(v1::PAD);
  EXPECT_THAT(CheckSameBatches(saved, now), refused("tail differs: the state has DROP, this loader PAD"));
}

TEST(LoaderStateTest, CheckSameBatches_AllowsAnotherWorld_WithTheSameGlobalBatch) {
  LoaderState now = Example();
  now.plan_digest = "another";
  now.plan.set_world(2);
  now.plan.set_rank(0);
  EXPECT_THAT(CheckSameBatches(Example(), now),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("the state has 32 x 4, this loader 32 x 2")));
  now.plan.set_batch_size(64);
  EXPECT_THAT(CheckSameBatches(Example(), now), IsOk());
}

TEST(LoaderStateTest, CheckSameBatches_WithABudget_NeedsTheSameBudgetAndWorld) {
  const auto with_budget = [](uint64_t nodes) {
    LoaderState state = Example();
    state.plan.mutable_budget()->set_nodes(nodes);
    state.budget = BudgetText(state.plan);
    state.plan_digest = absl::StrCat("of ", nodes);
    return state;
  };
  const absl::StatusOr<LoaderState> saved = ParseState(FormatState(with_budget(100)));
  ASSERT_THAT(saved, IsOk());
  EXPECT_THAT(CheckSameBatches(*saved, with_budget(100)), IsOk());
  EXPECT_THAT(CheckSameBatches(*saved, with_budget(200)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("the budget differs")));
  LoaderState now = with_budget(100);
  now.plan_digest = "another";
  now.plan.set_world(2);
  now.plan.set_batch_size(64);
  EXPECT_THAT(CheckSameBatches(*saved, now),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("the world differs")));
}

TEST(NormalPlanTest, DefaultsAreWrittenOut) {
  v1::Plan plan;
  plan.set_seed(5);
  plan = NormalPlan(plan);
  EXPECT_EQ(plan.batch_size(), 64u);
  EXPECT_EQ(plan.world(), 1u);
  EXPECT_EQ(plan.tail(), v1::KEEP);
  EXPECT_EQ(plan.seed(), 0u);  // says nothing without shuffle
}

}  // namespace
}  // namespace stoker::client
