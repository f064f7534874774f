// SPDX-License-Identifier: Apache-2.0
#include "server/plan/budget_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <barrier>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/unit/plan/costs.h"

namespace stoker::plan {
namespace {

using stoker::testing::StatusIs;
using ::testing::HasSubstr;

v1::Plan SmallPlan(uint32_t rank, uint32_t world) {
  v1::Plan plan = BudgetedPlan(0, 300, 0, 0, world);
  plan.set_rank(rank);
  return plan;
}

std::vector<uint64_t> Batch(const BatchPlan& plan, uint64_t epoch, uint64_t step) {
  return plan.Samples(epoch, step, 0, plan.SampleCount(epoch, step));
}

std::vector<uint64_t> Epoch(const BatchPlan& plan, uint64_t epoch) {
  std::vector<uint64_t> all;
  for (uint64_t step = 0; step < plan.Steps(epoch); ++step) {
    for (const uint64_t sample : Batch(plan, epoch, step)) all.push_back(sample);
  }
  return all;
}

TEST(BudgetPlan, RanksOfOneWorld_DeliverEverySampleOnceInAsManySteps) {
  const Graphs graphs(Crystals(3000, 2));
  for (const uint64_t epoch : {0, 1, 7}) {
    std::vector<uint64_t> all;
    uint64_t steps = 0;
    for (uint32_t rank = 0; rank < 3; ++rank) {  // each packs for itself, as on hosts of their own
      ASSERT_OK_AND_ASSIGN(const auto plan, BatchPlan::Create(SmallPlan(rank, 3), graphs.table()));
      if (rank == 0) steps = plan->Steps(epoch);
      EXPECT_EQ(plan->Steps(epoch), steps);
      for (const uint64_t sample : Epoch(*plan, epoch)) all.push_back(sample);
    }
    std::sort(all.begin(), all.end());
    ASSERT_EQ(all.size(), 3000u);
    for (uint64_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], i);
  }
}

TEST(BudgetPlan, ForRank_IsThePlanOfThatRank) {
  const Graphs graphs(Crystals(3000, 2));
  ASSERT_OK_AND_ASSIGN(const auto first, BudgetPlan::Create(SmallPlan(0, 3), graphs.table()));
  ASSERT_OK_AND_ASSIGN(const auto last, BudgetPlan::Create(SmallPlan(2, 3), graphs.table()));
  const auto shared = first->ForRank(2);
  EXPECT_EQ(shared->proto().rank(), 2u);
  EXPECT_EQ(Epoch(*shared, 4), Epoch(*last, 4));
}

TEST(BudgetPlan, Epochs_DifferAndHaveTheirOwnSteps) {
  const Graphs graphs(HeavyTailed(3000, 1.2, 2, 290, 2));
  ASSERT_OK_AND_ASSIGN(const auto plan, BatchPlan::Create(SmallPlan(0, 1), graphs.table()));
  EXPECT_NE(Epoch(*plan, 0), Epoch(*plan, 1));
  std::vector<uint64_t> steps;
  for (uint64_t epoch = 0; epoch < 20; ++epoch) steps.push_back(plan->Steps(epoch));
  EXPECT_GT(*std::max_element(steps.begin(), steps.end()), *std::min_element(steps.begin(), steps.end()));
}

TEST(BudgetPlan, Parts_AreTheBatchInPieces) {
  const Graphs graphs(Crystals(3000, 2));
  ASSERT_OK_AND_ASSIGN(const auto plan, BatchPlan::Create(SmallPlan(0, 1), graphs.table()));
  std::vector<uint64_t> pieces = plan->Samples(0, 3, 0, 5);
  for (const uint64_t sample : plan->Samples(0, 3, 5, plan->SampleCount(0, 3) - 5)) pieces.push_back(sample);
  EXPECT_EQ(pieces, Batch(*plan, 0, 3));
}

TEST(BudgetPlan, EpochLongAgo_IsPackedAgainTheSame) {
  const Graphs graphs(Crystals(3000, 2));
  ASSERT_OK_AND_ASSIGN(const auto plan, BatchPlan::Create(SmallPlan(0, 1), graphs.table()));
  const std::vector<uint64_t> first = Epoch(*plan, 0);
  for (uint64_t epoch = 1; epoch < 9; ++epoch) plan->Steps(epoch);
  EXPECT_EQ(Epoch(*plan, 0), first);
  EXPECT_GT(plan->Steps(UINT64_MAX), 0u);
}

TEST(BudgetPlan, OversizeSamples_AreCounted) {
  std::vector<Graph> graphs = Crystals(100, 2);
  graphs[3].nodes = graphs[50].nodes = 301;
  v1::Plan plan = SmallPlan(0, 1);
  EXPECT_THAT(BatchPlan::Create(plan, Graphs(graphs).table()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sample 3 has 301 nodes")));
  plan.set_oversize(v1::OVERSIZE_SKIP);
  const Graphs costs(graphs);
  ASSERT_OK_AND_ASSIGN(const auto skip, BatchPlan::Create(plan, costs.table()));
  EXPECT_EQ(skip->oversize_samples(), 2u);
  EXPECT_EQ(Epoch(*skip, 0).size(), 98u);
}

TEST(BudgetPlan, SamplesWithoutCosts_AreInvalidArgument) {
  EXPECT_THAT(
      BatchPlan::Create(SmallPlan(0, 1), {.samples = 9}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("plan.budget: only for data sets of kind CRYSTALS")));
}

TEST(BudgetPlan, EndedWhilePackingAhead_DoesNotWaitForIt) {
  const Graphs graphs(Crystals(200000, 2));
  for (int round = 0; round < 5; ++round) {
    ASSERT_OK_AND_ASSIGN(const auto plan, BatchPlan::Create(SmallPlan(0, 1), graphs.table()));
    if (round == 0) continue;       // nothing was asked for
    EXPECT_GT(plan->Steps(0), 0u);  // the next is being packed when the plan ends
  }
}

TEST(PackedEpochs, ManyThreads_GetOneAndTheSame) {
  const Graphs graphs(Crystals(3000, 2));
  ASSERT_OK_AND_ASSIGN(const Packer packer, Packer::Create(SmallPlan(0, 1), graphs.table()));
  PackedEpochs epochs(packer);
  for (uint64_t round = 0; round < 30; ++round) {
    constexpr int kThreads = 6;
    std::barrier start(kThreads);
    std::vector<std::shared_ptr<const PackedEpoch>> got(kThreads);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        start.arrive_and_wait();
        got[t] = epochs.Get(round + t / 3);  // two epochs at a time, and the thread packs a third
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (int t = 0; t < kThreads; ++t) {
      ASSERT_NE(got[t], nullptr);
      EXPECT_EQ(got[t]->steps(), packer.Pack(round + t / 3)->steps());
    }
  }
}

TEST(PackedEpochs, EpochsUsedLast_AreKeptAndThoseHeldStay) {
  const Graphs graphs(Crystals(3000, 2));
  ASSERT_OK_AND_ASSIGN(const Packer packer, Packer::Create(SmallPlan(0, 1), graphs.table()));
  PackedEpochs epochs(packer);
  const std::weak_ptr<const PackedEpoch> first = epochs.Get(0);
  const auto second = epochs.Get(1);
  EXPECT_FALSE(first.expired()) << "three are kept, one of them packed ahead";
  EXPECT_EQ(epochs.Get(1), second);
  for (uint64_t epoch = 2; epoch < 6; ++epoch) epochs.Get(epoch);
  EXPECT_TRUE(first.expired());
  EXPECT_GT(second->steps(), 0u);
}

}  // namespace
}  // namespace stoker::plan
