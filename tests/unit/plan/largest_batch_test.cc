// SPDX-License-Identifier: Apache-2.0
#include "server/plan/largest_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include "server/plan/plan.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/plan/costs.h"

namespace stoker::plan {
namespace {

using stoker::testing::StatusIs;
using ::testing::HasSubstr;

CostTable WithBytes(CostTable table) {
  table.fixed_bytes = 5000;
  table.sample_bytes = 40;
  table.node_bytes = 16;
  table.edge_bytes = 28;
  table.triplet_bytes = 20;
  return table;
}

v1::Plan CountedPlan(uint32_t batch_size, v1::TailPolicy tail = v1::KEEP) {
  v1::Plan plan;
  plan.set_batch_size(batch_size);
  plan.set_shuffle(true);
  plan.set_seed(7);
  plan.set_tail(tail);
  return plan;
}

Costs MostOf(const v1::Plan& plan, const CostTable& table) {
  const absl::StatusOr<v1::Plan> complete = CompletePlan(plan);
  EXPECT_OK(complete);
  const absl::StatusOr<Costs> largest = LargestBatch(*complete, table);
  EXPECT_OK(largest);
  return largest.ok() ? *largest : Costs{};
}

// The most of each cost that a batch really has, over some epochs.
Costs MostSeen(const v1::Plan& plan, const CostTable& table, uint64_t epochs) {
  const absl::StatusOr<v1::Plan> complete = CompletePlan(plan);
  EXPECT_OK(complete);
  const absl::StatusOr<std::shared_ptr<const BatchPlan>> batches = BatchPlan::Create(*complete, table);
  EXPECT_OK(batches);
  if (!batches.ok()) return {};
  v1::Budget any;
  any.set_graphs(1);
  const absl::StatusOr<Budgets> costs = Budgets::Create(any, table);
  EXPECT_OK(costs);
  Costs most{};
  for (uint64_t epoch = 0; epoch < epochs; ++epoch) {
    for (uint64_t step = 0; step < (*batches)->Steps(epoch); ++step) {
      Costs sum{};
      for (const uint64_t sample : (*batches)->Samples(epoch, step, 0, (*batches)->SampleCount(epoch, step))) {
        const Costs one = costs->CostsOf(sample);
        for (int f = 0; f < kBudgetFields; ++f) sum[f] += one[f];
      }
      for (int f = 0; f < kBudgetFields; ++f) most[f] = std::max(most[f], sum[f]);
    }
  }
  most[kBytes] += table.fixed_bytes;
  return most;
}

void ExpectBounds(const Costs& most, const Costs& seen) {
  for (int f = 0; f < kBudgetFields; ++f) {
    EXPECT_GE(most[f], seen[f]) << BudgetFieldName(static_cast<BudgetField>(f));
  }
}

TEST(LargestBatchTest, ByNumber_IsThatOfTheCostliestSamples) {
  const Graphs graphs(Crystals(1000, 1));
  const CostTable table = WithBytes(graphs.table());
  const Costs most = MostOf(CountedPlan(32), table);
  EXPECT_EQ(most[kGraphs], 32u);
  const auto top = [&](const std::function<uint64_t(uint64_t)>& cost) {
    std::vector<uint64_t> costs(graphs.size());
    for (uint64_t i = 0; i < costs.size(); ++i) costs[i] = cost(i);
    std::sort(costs.rbegin(), costs.rend());
    return std::accumulate(costs.begin(), costs.begin() + 32, uint64_t{0});
  };
  EXPECT_EQ(most[kNodes], top([&](uint64_t i) { return graphs.at(i, 0); }));
  EXPECT_EQ(most[kEdges], top([&](uint64_t i) { return graphs.at(i, 1); }));
  EXPECT_EQ(most[kTriplets], top([&](uint64_t i) { return graphs.at(i, 2); }));
  EXPECT_EQ(most[kBytes], 5000 + top([&](uint64_t i) {
                            return 40 + 16 * graphs.at(i, 0) + 28 * graphs.at(i, 1) + 20 * graphs.at(i, 2);
                          }));
}

TEST(LargestBatchTest, ByNumber_OfFewSamples_IsAllOfThem_OrRepeatsTheCostliest) {
  const Graphs graphs(std::vector<Graph>{{1, 2, 3}, {10, 20, 30}, {4, 5, 6}});
  const Costs all = MostOf(CountedPlan(8), graphs.table());
  EXPECT_EQ(all, (Costs{3, 15, 27, 39, 0}));
  const Costs padded = MostOf(CountedPlan(8, v1::PAD), graphs.table());
  EXPECT_EQ(padded, (Costs{8, 80, 160, 240, 0}));
  ExpectBounds(padded, MostSeen(CountedPlan(8, v1::PAD), graphs.table(), 5));
}

TEST(LargestBatchTest, ByOneBudget_IsTheFractionalKnapsack) {
  // For a node: 12, 10, 8 and 2 edges. 10 nodes: the first two, 4 of the third's 6.
  const Graphs graphs(std::vector<Graph>{{2, 24, 0}, {4, 40, 0}, {6, 48, 0}, {10, 20, 0}});
  const Costs most = MostOf(BudgetedPlan(0, 10, 0, 0), graphs.table());
  EXPECT_EQ(most[kNodes], 10u);
  EXPECT_EQ(most[kEdges], 24u + 40u + 48u * 4 / 6);
  EXPECT_EQ(most[kGraphs], 2u) << "and two thirds";
}

TEST(LargestBatchTest, SamplesThatTakeNothingOfABudget_AreAllIn) {
  const Graphs graphs(std::vector<Graph>{{1, 0, 0}, {7, 0, 0}, {2, 10, 90}, {3, 10, 80}});
  const Costs most = MostOf(BudgetedPlan(0, 0, 10, 0), graphs.table());
  EXPECT_EQ(most[kNodes], 1u + 7 + 3);
  EXPECT_EQ(most[kTriplets], 90u);
}

TEST(LargestBatchTest, SampleOverBudgetThatIsAlone_Counts_AndOneThatIsLeftOutDoesNot) {
  const Graphs graphs(std::vector<Graph>{{2, 20, 200}, {3, 30, 300}, {50, 900, 9000}, {4, 40, 400}});
  v1::Plan plan = BudgetedPlan(0, 5, 0, 0);
  plan.set_oversize(v1::OVERSIZE_ALONE);
  EXPECT_EQ(MostOf(plan, graphs.table()), (Costs{2, 50, 900, 9000, 0}));
  plan.set_oversize(v1::OVERSIZE_SKIP);
  EXPECT_EQ(MostOf(plan, graphs.table()), (Costs{2, 5, 50, 500, 0}));
}

TEST(LargestBatchTest, BytesOfABudget_AreThoseOfTheExtent) {
  const Graphs graphs(Crystals(1000, 2));
  v1::Plan plan = BudgetedPlan(0, 0, 0, 0);
  plan.mutable_budget()->set_bytes(1 << 20);
  EXPECT_EQ(MostOf(plan, WithBytes(graphs.table()))[kBytes], uint64_t{1} << 20);
}

TEST(LargestBatchTest, NoBatchOfAnyPlanHasMore_AndItIsNear) {
  const Graphs graphs(Crystals(600, 3));
  const CostTable table = WithBytes(graphs.table());
  std::vector<v1::Plan> plans = {CountedPlan(1),   CountedPlan(16),           CountedPlan(16, v1::DROP),
                                 CountedPlan(500), CountedPlan(500, v1::PAD), CountedPlan(700, v1::PAD)};
  for (const v1::TailPolicy tail : {v1::KEEP, v1::DROP, v1::PAD}) {
    for (const uint32_t world : {1, 3}) {
      plans.push_back(BudgetedPlan(0, 300, 0, 0, world, tail));
      plans.push_back(BudgetedPlan(20, 0, 9000, 0, world, tail));
      plans.push_back(BudgetedPlan(0, 400, 6000, 200000, world, tail));
      plans.push_back(BudgetedPlan(0, 1 << 20, 0, 0, world, tail));
      plans.push_back(BudgetedPlan(0, 0, 0, 0, world, tail));
      plans.back().mutable_budget()->set_bytes(3 << 20);
    }
  }
  for (v1::Plan& plan : plans) {
    if (plan.has_budget()) plan.set_oversize(v1::OVERSIZE_ALONE);
    SCOPED_TRACE(plan.ShortDebugString());
    const Costs most = MostOf(plan, table), seen = MostSeen(plan, table, 20);
    ExpectBounds(most, seen);
    // By number, that all costly samples meet is rare; by a budget they leave no room for one another.
    if (plan.has_budget() && plan.tail() != v1::PAD && most[kGraphs] < graphs.size()) {
      EXPECT_LE(most[kBytes], 2 * seen[kBytes]);
    }
  }
}

TEST(LargestBatchTest, BudgetOnWhatSamplesDoNotHave_IsRefused) {
  const CostTable table = {.samples = 10};
  const absl::StatusOr<v1::Plan> plan = CompletePlan(BudgetedPlan(0, 10, 0, 0));
  ASSERT_OK(plan);
  EXPECT_THAT(LargestBatch(*plan, table), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("plan.budget.nodes")));
}

}  // namespace
}  // namespace stoker::plan
