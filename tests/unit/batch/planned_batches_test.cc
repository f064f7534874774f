// SPDX-License-Identifier: Apache-2.0
#include "server/batch/planned_batches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/ingest_harness.h"

namespace stoker::batch {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kSamples = 10;

// A store of ten series of six points in two channels, classes a and b in turn.
class PlannedBatchesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text = "@problemName p\n@timeStamps false\n@univariate false\n@classLabel true a b\n@data\n";
    for (int i = 0; i < kSamples; ++i) {
      absl::StrAppend(&text, i, ",3,1,4,1,5:2,7,1,", i * i, ",2,8:", i % 2 == 0 ? "a" : "b", "\n");
    }
    const auto result = harness_.Ingest({harness_.Write("p.ts", text)});
    ASSERT_OK(result);
    store_dir_ = harness_.StoreDir(*result);
  }

  absl::StatusOr<std::unique_ptr<BatchMaker>> Maker() const {
    v1::Recipe recipe;
    recipe.mutable_gaf()->add_fields(v1::GafRecipe::GASF);
    recipe.mutable_gaf()->add_fields(v1::GafRecipe::SERIES);
    return BatchMaker::Create(store_dir_, recipe);
  }

  absl::StatusOr<std::shared_ptr<const PlannedBatches>> Batches(v1::Plan plan) const {
    absl::StatusOr<std::unique_ptr<BatchMaker>> maker = Maker();
    if (!maker.ok()) return maker.status();
    absl::StatusOr<v1::Plan> complete = plan::CompletePlan(plan);
    if (!complete.ok()) return complete.status();
    return PlannedBatches::Create(*std::move(maker), *complete, 0);
  }

  // The bytes of a batch, made in parts that end at `cuts`, as a worker makes them.
  std::vector<uint8_t> Make(const PlannedBatches& batches, const schedule::Position& at,
                            const std::vector<uint32_t>& cuts) const {
    const tensor::Layout layout = batches.LayoutAt(at).value();
    std::vector<uint8_t> extent(layout.extent_bytes());
    const std::unique_ptr<BatchMaker> worker = Maker().value();
    uint32_t first = 0;
    for (const uint32_t end : cuts) {
      v1::ToWorker::MakePart message;
      batches.DescribePart({.id = 1, .stream = 1, .at = at, .first = first, .count = end - first, .extent = {}},
                           &message);
      EXPECT_EQ(message.before().samples(), first);
      const std::vector<uint64_t> samples(message.sample().begin(), message.sample().end());
      EXPECT_OK(worker->WritePart(samples, {.samples = message.before().samples()},
                                  {.samples = message.total().samples()}, absl::MakeSpan(extent)));
      first = end;
    }
    return extent;
  }

  ingest::IngestHarness harness_;
  std::string store_dir_;
};

v1::Plan ShuffledPlan(uint32_t batch_size) {
  v1::Plan plan;
  plan.set_batch_size(batch_size);
  plan.set_shuffle(true);
  plan.set_seed(5);
  return plan;
}

TEST_F(PlannedBatchesTest, AnyCutIntoParts_GivesTheSameBytes) {
  ASSERT_OK_AND_ASSIGN(const auto batches, Batches(ShuffledPlan(7)));
  const std::vector<uint8_t> whole = Make(*batches, {2, 0}, {7});
  EXPECT_EQ(Make(*batches, {2, 0}, {1, 2, 3, 4, 5, 6, 7}), whole);
  EXPECT_EQ(Make(*batches, {2, 0}, {3, 3, 7}), whole) << "a part of no samples changes nothing";
  EXPECT_NE(Make(*batches, {3, 0}, {7}), whole) << "another epoch has another order";
}

TEST_F(PlannedBatchesTest, LastBatch_IsAsLargeAsItsSamplesAre) {
  ASSERT_OK_AND_ASSIGN(const auto batches, Batches(ShuffledPlan(7)));
  EXPECT_EQ(batches->Steps(0), 2u);
  EXPECT_EQ(batches->SamplesAt({0, 1}), 3u);
  ASSERT_OK_AND_ASSIGN(const tensor::Layout layout, batches->LayoutAt({0, 1}));
  EXPECT_THAT(layout.tensors()[0].shape, ElementsAre(3, 2, 6, 6));
  EXPECT_LE(layout.extent_bytes(), batches->full_batch_bytes());
  EXPECT_EQ(batches->largest(), (plan::Costs{7, 0, 0, 0, batches->full_batch_bytes()}));
}

TEST_F(PlannedBatchesTest, Schema_IsOfAFullBatch) {
  ASSERT_OK_AND_ASSIGN(const auto batches, Batches(ShuffledPlan(7)));
  ASSERT_OK_AND_ASSIGN(const std::vector<tensor::TensorSpec> schema, batches->Schema());
  ASSERT_EQ(schema.size(), 4u);
  EXPECT_THAT(schema[0].shape, ElementsAre(7, 2, 6, 6));
  EXPECT_THAT(schema[1].shape, ElementsAre(7, 6, 2));
  EXPECT_EQ(schema[3].name, "index");
}

TEST_F(PlannedBatchesTest, Sample_IsDescribedByItsFileAndLine) {
  v1::Plan in_order;
  in_order.set_batch_size(4);
  ASSERT_OK_AND_ASSIGN(const auto batches, Batches(in_order));
  EXPECT_THAT(batches->DescribeSample({0, 1}, 2), AllOf(HasSubstr("sample 6"), HasSubstr("p.ts:12")));
}

TEST_F(PlannedBatchesTest, ByteCosts_BoundEveryExtent) {
  ASSERT_OK_AND_ASSIGN(const auto maker, Maker());
  plan::CostTable costs = maker->costs();
  ASSERT_OK(maker->AddByteCosts(&costs));
  EXPECT_EQ(costs.samples, uint64_t{kSamples});
  for (const uint64_t samples : {0, 1, 2, 7, 64, 1000}) {
    ASSERT_OK_AND_ASSIGN(auto tensors, maker->TensorsFor({.samples = samples}));
    ASSERT_OK_AND_ASSIGN(const tensor::Layout layout, tensor::Layout::Create(std::move(tensors)));
    EXPECT_LE(layout.extent_bytes(), costs.fixed_bytes + samples * costs.sample_bytes) << samples;
    EXPECT_GT(layout.extent_bytes() + costs.fixed_bytes, samples * costs.sample_bytes) << samples;
  }
}

TEST_F(PlannedBatchesTest, PartThatIsNotOfTheBatch_IsInternal) {
  ASSERT_OK_AND_ASSIGN(const auto maker, Maker());
  ASSERT_OK_AND_ASSIGN(auto tensors, maker->TensorsFor({.samples = 4}));
  ASSERT_OK_AND_ASSIGN(const tensor::Layout layout, tensor::Layout::Create(std::move(tensors)));
  std::vector<uint8_t> extent(layout.extent_bytes());
  const std::vector<uint64_t> samples = {0, 1, 2};
  EXPECT_THAT(maker->WritePart(samples, {.samples = 2}, {.samples = 4}, absl::MakeSpan(extent)),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("part [2, +3) of 4")));
  EXPECT_THAT(maker->WritePart(samples, {}, {.samples = 4}, absl::MakeSpan(extent).subspan(4096)),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("want")));
}

TEST_F(PlannedBatchesTest, PlanWithoutAStep_IsInvalidArgument) {
  v1::Plan plan = ShuffledPlan(11);
  plan.set_tail(v1::DROP);
  EXPECT_THAT(Batches(plan), StatusIs(absl::StatusCode::kInvalidArgument,
                                      AllOf(HasSubstr("plan.tail: DROP leaves nothing"), HasSubstr("10 samples"))));
}

TEST_F(PlannedBatchesTest, BudgetOverTimeSeries_IsInvalidArgument) {
  v1::Plan plan;
  plan.mutable_budget()->set_nodes(5);
  EXPECT_THAT(Batches(plan), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("plan.budget")));
}

}  // namespace
}  // namespace stoker::batch
