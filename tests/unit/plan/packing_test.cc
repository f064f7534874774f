// SPDX-License-Identifier: Apache-2.0
#include "server/plan/packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/support/status_matchers.h"
#include "tests/unit/plan/costs.h"

namespace stoker::plan {
namespace {

using stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kMany = 300000;
#else
constexpr uint64_t kMany = 10000000;
#endif

using Batches = std::vector<std::vector<uint32_t>>;  // step by step, in it rank by rank

PackedEpoch Packed(const v1::Plan& plan, const CostTable& table, uint64_t epoch = 0) {
  const absl::StatusOr<Packer> packer = Packer::Create(plan, table);
  EXPECT_OK(packer);
  return packer.ok() ? *packer->Pack(epoch) : PackedEpoch();
}

Batches All(const PackedEpoch& epoch, uint32_t world) {
  Batches all;
  for (uint64_t step = 0; step < epoch.steps(); ++step) {
    for (uint32_t rank = 0; rank < world; ++rank) {
      const auto batch = epoch.Batch(step, rank);
      all.emplace_back(batch.begin(), batch.end());
    }
  }
  return all;
}

Batches Pack(const v1::Plan& plan, const Graphs& graphs, uint64_t epoch = 0) {
  return All(Packed(plan, graphs.table(), epoch), plan.world());
}

std::vector<uint32_t> Flat(const Batches& batches) {
  std::vector<uint32_t> all;
  for (const auto& batch : batches) all.insert(all.end(), batch.begin(), batch.end());
  return all;
}

bool EachOnce(const Batches& batches, uint64_t samples) {
  std::vector<uint32_t> all = Flat(batches);
  std::sort(all.begin(), all.end());
  for (uint64_t i = 0; i < all.size(); ++i) {
    if (all[i] != i) return false;
  }
  return all.size() == samples;
}

Costs Sum(const std::vector<uint32_t>& batch, const Graphs& graphs) {
  Costs sum{batch.size()};
  for (const uint32_t sample : batch) {
    for (int f = 0; f < 3; ++f) sum[kNodes + f] += graphs.at(sample, f);
  }
  return sum;
}

Costs Limits(const v1::Plan& plan) {
  const v1::Budget& b = plan.budget();
  return {b.graphs(), b.nodes(), b.edges(), b.triplets(), 0};
}

// Part of a limit that a batch uses; 0 where there is none.
double FillOf(uint64_t used, uint64_t limit) {
  return limit == 0 ? 0 : static_cast<double>(used) / static_cast<double>(limit);
}

bool Within(const std::vector<uint32_t>& batch, const v1::Plan& plan, const Graphs& graphs) {
  const Costs sum = Sum(batch, graphs), limits = Limits(plan);
  for (int f = 0; f < kBudgetFields; ++f) {
    if (limits[f] != 0 && sum[f] > limits[f]) return false;
  }
  return true;
}

// Means over the batches.
struct Fill {
  double own = 0;     // of the budget that is used most in the batch itself
  double common = 0;  // of the one budget that is used most in all
};

Fill MeanFill(const Batches& batches, const v1::Plan& plan, const Graphs& graphs) {
  const Costs limits = Limits(plan);
  std::vector<double> fill(kBudgetFields, 0);
  Fill mean;
  for (const auto& batch : batches) {
    const Costs sum = Sum(batch, graphs);
    double own = 0;
    for (int f = 0; f < kBudgetFields; ++f) {
      own = std::max(own, FillOf(sum[f], limits[f]));
      fill[f] += FillOf(sum[f], limits[f]) / static_cast<double>(batches.size());
    }
    mean.own += own / static_cast<double>(batches.size());
  }
  mean.common = *std::max_element(fill.begin(), fill.end());
  return mean;
}

// Budgets of each kind that bind at about 64 samples a batch.
std::vector<v1::Plan> PlansOf64(const Graphs& graphs, uint32_t world) {
  Costs total{};
  for (uint64_t i = 0; i < graphs.size(); ++i) {
    for (int f = 0; f < 3; ++f) total[f] += graphs.at(i, f);
  }
  const uint64_t n = total[0] * 64 / graphs.size(), e = total[1] * 64 / graphs.size();
  const uint64_t t = total[2] * 64 / graphs.size();
  return {BudgetedPlan(64, 0, 0, 0, world), BudgetedPlan(0, n, 0, 0, world),     BudgetedPlan(0, 0, e, 0, world),
          BudgetedPlan(0, 0, 0, t, world),  BudgetedPlan(0, n, e, t, world),     BudgetedPlan(64, 0, e, 0, world),
          BudgetedPlan(80, 0, e, 0, world), BudgetedPlan(64, 0, 0, 2 * t, world)};
}

// Calls `check` for many small epochs.
void ForAll(v1::TailPolicy tail, const std::function<void(const v1::Plan&, const Graphs&, const Batches&)>& check) {
  for (const uint64_t samples : {1, 2, 3, 7, 64, 65, 200, 1500}) {
    const Graphs graphs(HeavyTailed(samples, 1.7, 1, 60, 5));
    for (const uint32_t world : {1, 2, 3, 8, 100}) {
      for (const v1::Plan& plan : {BudgetedPlan(10, 0, 0, 0, world, tail), BudgetedPlan(0, 60, 0, 0, world, tail),
                                   BudgetedPlan(20, 90, 1440, 34000, world, tail)}) {
        SCOPED_TRACE(::testing::Message() << samples << " samples, " << plan.ShortDebugString());
        check(plan, graphs, Pack(plan, graphs));
      }
    }
  }
}

TEST(Packing, Keep_DeliversEverySampleExactlyOnceInBatchesWithinTheBudgets) {
  ForAll(v1::KEEP, [](const v1::Plan& plan, const Graphs& graphs, const Batches& batches) {
    EXPECT_TRUE(EachOnce(batches, graphs.size()));
    EXPECT_EQ(batches.size() % plan.world(), 0u);
    for (const auto& batch : batches) EXPECT_TRUE(Within(batch, plan, graphs));
  });
}

TEST(Packing, Keep_HasAnEmptyBatchOnlyWhereThereAreFewerSamplesThanRanks) {
  ForAll(v1::KEEP, [](const v1::Plan& plan, const Graphs& graphs, const Batches& batches) {
    const auto empty = std::count(batches.begin(), batches.end(), std::vector<uint32_t>());
    EXPECT_EQ(empty, std::max<int64_t>(0, int64_t{plan.world()} - static_cast<int64_t>(graphs.size())));
  });
}

TEST(Packing, Drop_DeliversSamplesAtMostOnceAndLeavesOutLessThanAStepAndABatch) {
  ForAll(v1::DROP, [](const v1::Plan& plan, const Graphs& graphs, const Batches& batches) {
    const std::vector<uint32_t> all = Flat(batches);
    EXPECT_EQ(std::set<uint32_t>(all.begin(), all.end()).size(), all.size());
    EXPECT_EQ(batches.size() % plan.world(), 0u);
    v1::Plan single = plan;
    single.set_world(1);
    const uint64_t full = Pack(single, graphs).size();
    EXPECT_EQ(batches.size(), full - full % plan.world());
    single.set_tail(v1::KEEP);
    EXPECT_LE(Pack(single, graphs).size() - full, 1u) << "the batch for which the samples ran out";
    for (const auto& batch : batches) EXPECT_TRUE(Within(batch, plan, graphs));
  });
}

TEST(Packing, Pad_DeliversEverySampleInFullBatchesWithinTheBudgets) {
  ForAll(v1::PAD, [](const v1::Plan& plan, const Graphs& graphs, const Batches& batches) {
    const std::vector<uint32_t> all = Flat(batches);
    EXPECT_EQ(std::set<uint32_t>(all.begin(), all.end()).size(), graphs.size());
    EXPECT_EQ(batches.size() % plan.world(), 0u);
    v1::Plan single = plan;
    single.set_world(1);
    EXPECT_LT(batches.size() - Pack(single, graphs).size(), plan.world());
    for (const auto& batch : batches) {
      EXPECT_TRUE(Within(batch, plan, graphs));
      if (plan.budget().nodes() == 0) {
        EXPECT_EQ(batch.size(), plan.budget().graphs());
      }
    }
  });
}

TEST(Packing, DropOfEqualSamples_KeepsALastBatchThatIsFull) {
  const Graphs graphs(std::vector<Graph>(128, {10, 120, 1320}));
  EXPECT_EQ(Pack(BudgetedPlan(64, 0, 0, 0, 1, v1::DROP), graphs).size(), 2u);
  EXPECT_EQ(Pack(BudgetedPlan(0, 0, 64 * 120, 0, 1, v1::DROP), graphs).size(), 2u);
  EXPECT_EQ(Pack(BudgetedPlan(65, 0, 0, 0, 1, v1::DROP), graphs).size(), 1u);
  EXPECT_EQ(Pack(BudgetedPlan(129, 0, 0, 0, 1, v1::DROP), graphs).size(), 0u);
}

TEST(Packing, WithoutShuffle_EqualSamplesComeInTheOrderOfTheStore) {
  v1::Plan plan = BudgetedPlan(0, 30, 0, 0);
  plan.set_shuffle(false);
  const Graphs graphs(std::vector<Graph>(8, {10, 120, 1320}));
  for (const uint64_t epoch : {0, 1}) {
    EXPECT_THAT(Pack(plan, graphs, epoch), ElementsAre(ElementsAre(0, 1, 2), ElementsAre(3, 4, 5), ElementsAre(6, 7)));
  }
}

TEST(Packing, TwoBudgets_AreFilledAtOnce) {
  // Each batch takes two of the one kind and two of the other: in order, three of a kind would be together.
  v1::Plan plan = BudgetedPlan(0, 22, 22, 0);
  plan.set_shuffle(false);
  std::vector<Graph> graphs(40, {10, 1, 0});
  std::fill(graphs.begin() + 20, graphs.end(), Graph{1, 10, 0});
  EXPECT_EQ(Pack(plan, Graphs(graphs)).size(), 10u);
}

TEST(Packing, BytesBudget_CountsWhatTheTableSays) {
  const std::vector<int32_t> nodes = {5, 5, 5, 5}, text = {0, 100, 0, 100};
  CostTable table{.samples = 4, .nodes = {nodes}, .text_bytes = {text}};
  table.fixed_bytes = 1000;
  table.sample_bytes = 8;
  table.node_bytes = 4;
  v1::Plan plan = BudgetedPlan(0, 0, 0, 0);
  plan.set_shuffle(false);
  plan.mutable_budget()->set_bytes(1000 + 2 * 28 + 100);
  EXPECT_THAT(All(Packed(plan, table), 1), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3)));
  plan.mutable_budget()->set_bytes(1000 + 3 * 28 + 100 - 1);
  EXPECT_EQ(Packed(plan, table).steps(), 2u);
  plan.mutable_budget()->set_bytes(1000);
  EXPECT_THAT(Packer::Create(plan, table), StatusIs(absl::StatusCode::kInvalidArgument,
                                                    AllOf(HasSubstr("plan.budget.bytes: 1000"), HasSubstr("before"))));
}

TEST(Packing, BudgetsBeyond32Bits_AreKept) {
  const std::vector<int32_t> nodes(100, INT32_MAX);
  CostTable table{.samples = 100, .nodes = {nodes}};
  table.node_bytes = 1 << 20;
  v1::Plan plan = BudgetedPlan(0, uint64_t{7} * INT32_MAX, 0, 0);
  EXPECT_EQ(Packed(plan, table).Batch(0, 0).size(), 6u) << "units of 16 nodes, rounded up";
  plan.mutable_budget()->set_nodes(0);
  plan.mutable_budget()->set_bytes(uint64_t{1} << 52);
  EXPECT_EQ(Packed(plan, table).Batch(0, 0).size(), 2u);
  plan.mutable_budget()->set_bytes(uint64_t{INT32_MAX} << 20);
  EXPECT_EQ(Packed(plan, table).Batch(0, 0).size(), 1u) << "fits exactly";
}

TEST(Packing, SamplesThatCostNothing_FillBatchesOfTheMostGraphs) {
  const Graphs graphs(std::vector<Graph>((1 << 20) + 1, {1, 0, 0}));
  const Batches batches = Pack(BudgetedPlan(0, 0, 5, 0), graphs);
  EXPECT_EQ(batches.size(), 2u);
  EXPECT_EQ(batches[0].size(), size_t{1} << 20);
}

TEST(Packing, BudgetOnWhatSamplesDoNotHave_IsInvalidArgument) {
  const std::vector<int32_t> nodes(3, 2);
  EXPECT_THAT(Packer::Create(BudgetedPlan(0, 5, 0, 5), {.samples = 3, .nodes = {nodes}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("plan.budget.triplets")));
}

class PackingOversize : public ::testing::Test {
 protected:
  PackingOversize() : plan_(BudgetedPlan(0, 40, 130, 0)) { plan_.set_shuffle(false); }
  v1::Plan plan_;
  const Graphs graphs_{{{10, 20, 0}, {10, 131, 0}, {10, 20, 0}, {41, 20, 0}, {10, 20, 0}}};
};

TEST_F(PackingOversize, Fail_NamesTheFirstSampleAndItsBudget) {
  EXPECT_THAT(Packer::Create(plan_, graphs_.table()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("plan.budget.edges"), HasSubstr("sample 1 has 131 edges"), HasSubstr("130"),
                             HasSubstr("2 of 5"))));
  ASSERT_OK_AND_ASSIGN(const Budgets budgets, Budgets::Create(plan_.budget(), graphs_.table()));
  ASSERT_TRUE(budgets.first_oversize().has_value());
  EXPECT_EQ(budgets.first_oversize()->sample, 1u);
  EXPECT_EQ(budgets.first_oversize()->field, kEdges);
  EXPECT_EQ(budgets.oversize(), 2u);
}

TEST_F(PackingOversize, Alone_GivesEachABatchOfItsOwn) {
  plan_.set_oversize(v1::OVERSIZE_ALONE);
  EXPECT_THAT(Pack(plan_, graphs_), UnorderedElementsAre(ElementsAre(0, 2, 4), ElementsAre(1), ElementsAre(3)));
}

TEST_F(PackingOversize, Skip_LeavesThemOut) {
  plan_.set_oversize(v1::OVERSIZE_SKIP);
  EXPECT_THAT(Pack(plan_, graphs_), ElementsAre(ElementsAre(0, 2, 4)));
}

TEST_F(PackingOversize, EverySample_IsAloneOrThereAreNoSteps) {
  const Graphs large(std::vector<Graph>(2000, {41, 0, 0}));
  for (const v1::TailPolicy tail : {v1::KEEP, v1::DROP, v1::PAD}) {
    plan_.set_tail(tail);
    plan_.set_oversize(v1::OVERSIZE_ALONE);
    EXPECT_EQ(Pack(plan_, large).size(), 2000u);
    plan_.set_oversize(v1::OVERSIZE_SKIP);
    EXPECT_EQ(Pack(plan_, large).size(), 0u);
  }
}

TEST_F(PackingOversize, AloneAmongRanks_KeepsEachOnce) {
  std::vector<Graph> graphs = Crystals(5000, 3);
  for (uint64_t i = 0; i < graphs.size(); i += 97) graphs[i].nodes = 2000 + static_cast<int32_t>(i);
  v1::Plan plan = BudgetedPlan(0, 500, 0, 0, 8);
  plan.set_oversize(v1::OVERSIZE_ALONE);
  EXPECT_TRUE(EachOnce(Pack(plan, Graphs(graphs)), graphs.size()));
}

TEST_F(PackingOversize, PadWithOneThatFitsAmongMany_Ends) {
  std::vector<Graph> graphs(5000, {41, 0, 0});
  graphs[77].nodes = 1;
  plan_.set_tail(v1::PAD);
  plan_.set_oversize(v1::OVERSIZE_SKIP);
  const Batches batches = Pack(plan_, Graphs(graphs));
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_THAT(batches[0], ElementsAre(77)) << "its edges take none of the budget, and nodes 1 of 40";
}

TEST(Packing, SamePlan_GivesTheSameBatchesWhateverItsRank) {
  const Graphs graphs(Crystals(5000, 3));
  v1::Plan plan = BudgetedPlan(0, 500, 6000, 0, 4);
  const Batches batches = Pack(plan, graphs, 6);
  plan.set_rank(3);
  EXPECT_EQ(Pack(plan, graphs, 6), batches);
}

TEST(Packing, OtherEpochOrSeed_GivesOtherBatches) {
  const Graphs graphs(Crystals(5000, 3));
  v1::Plan plan = BudgetedPlan(0, 500, 6000, 0, 4);
  std::set<Batches> all = {Pack(plan, graphs, 0), Pack(plan, graphs, 1), Pack(plan, graphs, 2)};
  plan.set_seed(12);
  all.insert(Pack(plan, graphs, 0));
  EXPECT_EQ(all.size(), 4u);
}

// These are the batches that users' epochs have, on every kind of processor and by every rank's host: who changes them
// changes every run that is resumed.
TEST(Packing, KnownPlan_KeepsItsBatchesForGood) {
  std::mt19937 random(3);
  std::vector<Graph> graphs(20000);  // whole numbers only, so that they are the same everywhere
  for (Graph& graph : graphs) {
    graph.nodes = 1 + static_cast<int32_t>(random() % 60);
    graph.edges = graph.nodes * (8 + static_cast<int32_t>(random() % 17));
    graph.triplets = graph.edges * 12;
  }
  uint64_t digest = 0;
  for (const auto& batch : Pack(BudgetedPlan(70, 2000, 32000, 390000, 8), Graphs(graphs), 5)) {
    for (const uint32_t sample : batch) digest = (digest ^ sample) * 0x9e3779b97f4a7c15;
    digest = (digest ^ UINT32_MAX) * 0x9e3779b97f4a7c15;
  }
  EXPECT_EQ(digest, 5158511324440948560u);
}

TEST(Packing, Stopped_GivesNothing) {
  const Graphs graphs(Crystals(5000, 3));
  ASSERT_OK_AND_ASSIGN(const Packer packer, Packer::Create(BudgetedPlan(64, 0, 0, 0), graphs.table()));
  const std::atomic<bool> stop{true};
  EXPECT_FALSE(packer.Pack(0, &stop).has_value());
}

TEST(Packing, BatchesOf64_AreFullOfWhatBindsThem) {
  for (const auto& [name, all] : {std::pair{"crystals", Crystals(100000, 1)},
                                  {"heavy tail", HeavyTailed(100000, 1.2, 2, 200, 1)},
                                  {"equal", std::vector<Graph>(100000, {10, 120, 1320})}}) {
    const Graphs graphs(all);
    for (const v1::Plan& plan : PlansOf64(graphs, 1)) {
      v1::Plan skip = plan;
      skip.set_oversize(v1::OVERSIZE_SKIP);
      const Fill fill = MeanFill(Pack(skip, graphs), plan, graphs);
      EXPECT_GE(fill.own, 0.99) << name << " " << plan.ShortDebugString();
      // Where several budgets bind equally, a batch that is short of one for another leaves room in it.
      EXPECT_GE(fill.common, 0.96) << name << " " << plan.ShortDebugString();
    }
  }
}

std::vector<Graph> RealGraphs() {
  const char* named = std::getenv("STOKER_SHARED");
  std::ifstream in(std::filesystem::path(named != nullptr ? named : STOKER_SHARED_DIR) / "golden/alignn_knn.json");
  std::vector<Graph> graphs;
  if (!in) return graphs;
  const nlohmann::json golden = nlohmann::json::parse(in);
  for (const auto& s : golden["structures"]) {
    graphs.push_back({s["num_atoms"], s["num_edges"], s["lg_edges_dgl"]});
  }
  return graphs;
}

TEST(Packing, BatchesOf64RealGraphs_AreFilledTo99PerCent) {
  const std::vector<Graph> real = RealGraphs();
  if (real.empty()) GTEST_SKIP() << "no golden/alignn_knn.json beside the checkout";
  const Graphs graphs(Resample(real, 100000, 1));
  for (const uint32_t world : {1, 8}) {
    for (const v1::Plan& plan : PlansOf64(graphs, world)) {
      EXPECT_GE(MeanFill(Pack(plan, graphs), plan, graphs).common, 0.99) << plan.ShortDebugString();
    }
  }
}

TEST(Packing, RanksOfAStep_HaveNearlyTheSameWork) {
  const Graphs graphs(Crystals(100000, 1));
  for (const v1::Plan& plan : PlansOf64(graphs, 8)) {
    v1::Plan skip = plan;
    skip.set_oversize(v1::OVERSIZE_SKIP);
    ASSERT_OK_AND_ASSIGN(const Packer packer, Packer::Create(skip, graphs.table()));
    const PackedEpoch epoch = *packer.Pack(0);
    uint64_t uneven = 0;
    std::vector<double> work_of_rank(8, 0);
    for (uint64_t step = 0; step < epoch.steps(); ++step) {
      double most = 0, sum = 0;
      for (uint32_t rank = 0; rank < 8; ++rank) {
        const double work = packer.budgets().Work(epoch.Batch(step, rank));
        work_of_rank[rank] += work;
        most = std::max(most, work);
        sum += work;
      }
      if (most > 1.05 * sum / 8) ++uneven;
    }
    EXPECT_LE(uneven, 2u) << "of " << epoch.steps() << " " << plan.ShortDebugString();
    const auto [least, most] = std::minmax_element(work_of_rank.begin(), work_of_rank.end());
    EXPECT_LT(*most, 1.01 * *least) << "over the epoch";
  }
}

TEST(Packing, ManyMillionSamples_TakeLessThan16BytesEachAndAreThereOnce) {
  const Graphs graphs(Crystals(kMany, 1));
  const PackedEpoch epoch = Packed(PlansOf64(graphs, 8)[5], graphs.table());
  EXPECT_LT(3 * epoch.bytes(), 16 * kMany) << "also for the three epochs that are kept";
  std::vector<bool> seen(kMany, false);
  uint64_t count = 0;
  for (uint64_t step = 0; step < epoch.steps(); ++step) {
    for (uint32_t rank = 0; rank < 8; ++rank) {
      for (const uint32_t sample : epoch.Batch(step, rank)) {
        ASSERT_FALSE(seen[sample]);
        seen[sample] = true;
        ++count;
      }
    }
  }
  EXPECT_EQ(count, kMany);
}

}  // namespace
}  // namespace stoker::plan
