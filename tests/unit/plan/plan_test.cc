// SPDX-License-Identifier: Apache-2.0
#include "server/plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"

namespace stoker::plan {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::Plan Plan(uint32_t batch_size, uint32_t rank, uint32_t world, v1::TailPolicy tail, bool shuffle = true) {
  v1::Plan plan;
  plan.set_batch_size(batch_size);
  plan.set_rank(rank);
  plan.set_world(world);
  plan.set_tail(tail);
  plan.set_shuffle(shuffle);
  plan.set_seed(11);
  return plan;
}

absl::StatusOr<CountPlan> Create(const v1::Plan& proto, uint64_t samples) {
  absl::StatusOr<v1::Plan> complete = CompletePlan(proto);
  if (!complete.ok()) return complete.status();
  return CountPlan(*complete, samples);
}

std::vector<uint64_t> Batch(const CountPlan& plan, uint64_t epoch, uint64_t step) {
  return plan.Samples(epoch, step, 0, plan.Range(step).count);
}

// All plans of one world, rank by rank.
std::vector<CountPlan> Ranks(uint64_t samples, uint32_t batch, uint32_t world, v1::TailPolicy tail,
                             bool shuffle = true) {
  std::vector<CountPlan> ranks;
  for (uint32_t rank = 0; rank < world; ++rank) {
    const absl::StatusOr<CountPlan> plan = Create(Plan(batch, rank, world, tail, shuffle), samples);
    EXPECT_OK(plan);
    if (plan.ok()) ranks.push_back(*plan);
  }
  return ranks;
}

// What a world delivers in an epoch, in the order of steps and in them of ranks.
std::vector<uint64_t> Delivered(const std::vector<CountPlan>& ranks, uint64_t epoch) {
  std::vector<uint64_t> all;
  for (uint64_t step = 0; step < ranks[0].Steps(0); ++step) {
    for (const CountPlan& rank : ranks) {
      const std::vector<uint64_t> batch = Batch(rank, epoch, step);
      all.insert(all.end(), batch.begin(), batch.end());
    }
  }
  return all;
}

// Calls `check` for every small combination; it says which in the messages of what fails.
void ForAll(const std::function<void(uint64_t samples, uint32_t batch, uint32_t world)>& check) {
  for (uint64_t samples = 1; samples <= 40; ++samples) {
    for (uint32_t batch = 1; batch <= 7; ++batch) {
      for (uint32_t world = 1; world <= 5; ++world) {
        SCOPED_TRACE(::testing::Message() << samples << " samples, batch " << batch << ", world " << world);
        check(samples, batch, world);
      }
    }
  }
}

TEST(CountPlan, AnyTail_GivesEveryRankTheSameNumberOfSteps) {
  for (const v1::TailPolicy tail : {v1::KEEP, v1::DROP, v1::PAD}) {
    ForAll([&](uint64_t samples, uint32_t batch, uint32_t world) {
      const uint64_t global = uint64_t{batch} * world;
      const uint64_t steps = tail == v1::DROP ? samples / global : (samples + global - 1) / global;
      for (const CountPlan& rank : Ranks(samples, batch, world, tail)) ASSERT_EQ(rank.Steps(0), steps);
    });
  }
}

TEST(CountPlan, Keep_DeliversEverySampleExactlyOnce) {
  ForAll([](uint64_t samples, uint32_t batch, uint32_t world) {
    const std::vector<CountPlan> ranks = Ranks(samples, batch, world, v1::KEEP);
    std::vector<uint64_t> all = Delivered(ranks, 3);
    std::sort(all.begin(), all.end());
    ASSERT_EQ(all.size(), samples);
    for (uint64_t i = 0; i < samples; ++i) ASSERT_EQ(all[i], i);
  });
}

TEST(CountPlan, Keep_OnlyItsLastStepIsSmallerAndIsSharedEvenly) {
  ForAll([](uint64_t samples, uint32_t batch, uint32_t world) {
    const std::vector<CountPlan> ranks = Ranks(samples, batch, world, v1::KEEP);
    const uint64_t last = ranks[0].Steps(0) - 1;
    const uint64_t left = samples - last * batch * world;
    for (uint32_t rank = 0; rank < world; ++rank) {
      for (uint64_t step = 0; step < last; ++step) ASSERT_EQ(ranks[rank].Range(step).count, batch);
      ASSERT_EQ(ranks[rank].Range(last).count, left / world + (rank < left % world ? 1 : 0));
    }
  });
}

TEST(CountPlan, Drop_DeliversFullBatchesOfSamplesAtMostOnce) {
  ForAll([](uint64_t samples, uint32_t batch, uint32_t world) {
    const std::vector<CountPlan> ranks = Ranks(samples, batch, world, v1::DROP);
    for (const CountPlan& rank : ranks) {
      for (uint64_t step = 0; step < rank.Steps(0); ++step) ASSERT_EQ(rank.Range(step).count, batch);
    }
    const std::vector<uint64_t> all = Delivered(ranks, 3);
    const std::set<uint64_t> once(all.begin(), all.end());
    ASSERT_EQ(once.size(), all.size());
    ASSERT_TRUE(once.empty() || *once.rbegin() < samples);
    ASSERT_LT(samples - all.size(), uint64_t{batch} * world);
  });
}

TEST(CountPlan, Pad_DeliversFullBatchesOfEverySampleAtLeastOnce) {
  ForAll([](uint64_t samples, uint32_t batch, uint32_t world) {
    const std::vector<CountPlan> ranks = Ranks(samples, batch, world, v1::PAD);
    for (const CountPlan& rank : ranks) {
      for (uint64_t step = 0; step < rank.Steps(0); ++step) ASSERT_EQ(rank.Range(step).count, batch);
    }
    const std::vector<uint64_t> all = Delivered(ranks, 3);
    ASSERT_EQ(std::set<uint64_t>(all.begin(), all.end()).size(), samples);
    for (uint64_t i = samples; i < all.size(); ++i) ASSERT_EQ(all[i], all[i - samples]) << "filled up from the start";
  });
}

// With the same batch_size * world, any world sees what a single process sees, step by step.
TEST(CountPlan, RanksTogether_AreTheSingleProcessWithTheGlobalBatch) {
  for (const v1::TailPolicy tail : {v1::KEEP, v1::DROP, v1::PAD}) {
    ForAll([&](uint64_t samples, uint32_t batch, uint32_t world) {
      const CountPlan single = Ranks(samples, batch * world, 1, tail)[0];
      const std::vector<CountPlan> ranks = Ranks(samples, batch, world, tail);
      ASSERT_EQ(single.Steps(0), ranks[0].Steps(0));
      for (uint64_t step = 0; step < single.Steps(0); ++step) {
        std::vector<uint64_t> together;
        for (const CountPlan& rank : ranks) {
          const std::vector<uint64_t> part = Batch(rank, 5, step);
          together.insert(together.end(), part.begin(), part.end());
        }
        ASSERT_EQ(together, Batch(single, 5, step)) << "step " << step;
      }
    });
  }
}

TEST(CountPlan, WithoutShuffle_IsTheOrderOfTheStoreInEveryEpoch) {
  ASSERT_OK_AND_ASSIGN(const CountPlan plan, Create(Plan(4, 0, 1, v1::KEEP, false), 10));
  EXPECT_EQ(plan.Steps(0), 3u);
  for (const uint64_t epoch : {0, 1}) {
    EXPECT_THAT(Batch(plan, epoch, 0), ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(Batch(plan, epoch, 2), ElementsAre(8, 9));
  }
}

TEST(CountPlan, WithShuffle_HasAnotherOrderInEveryEpochAndForEverySeed) {
  v1::Plan proto = Plan(30, 0, 1, v1::KEEP);
  ASSERT_OK_AND_ASSIGN(const CountPlan plan, Create(proto, 30));
  proto.set_seed(12);
  ASSERT_OK_AND_ASSIGN(const CountPlan other, Create(proto, 30));
  EXPECT_EQ(Batch(plan, 0, 0), Batch(plan, 0, 0));
  EXPECT_NE(Batch(plan, 0, 0), Batch(plan, 1, 0));
  EXPECT_NE(Batch(plan, 0, 0), Batch(other, 0, 0));
}

TEST(CountPlan, Parts_AreTheBatchInPieces) {
  ASSERT_OK_AND_ASSIGN(const CountPlan plan, Create(Plan(7, 1, 2, v1::PAD), 20));
  for (uint64_t step = 0; step < plan.Steps(0); ++step) {
    std::vector<uint64_t> pieces = plan.Samples(2, step, 0, 3);
    for (const uint64_t sample : plan.Samples(2, step, 3, 4)) pieces.push_back(sample);
    EXPECT_EQ(pieces, Batch(plan, 2, step));
  }
}

TEST(CountPlan, DropOfFewerSamplesThanABatch_HasNoSteps) {
  ASSERT_OK_AND_ASSIGN(const CountPlan plan, Create(Plan(64, 0, 1, v1::DROP), 63));
  EXPECT_EQ(plan.Steps(0), 0u);
}

TEST(CountPlan, KeepOfFewerSamplesThanRanks_GivesTheLastRanksEmptyBatches) {
  const std::vector<CountPlan> ranks = Ranks(2, 4, 3, v1::KEEP);
  EXPECT_EQ(ranks[1].Range(0).count, 1u);
  EXPECT_EQ(ranks[2].Range(0).count, 0u);
  EXPECT_THAT(Batch(ranks[2], 0, 0), ElementsAre());
}

TEST(CountPlan, NothingSet_HasTheDefaults) {
  ASSERT_OK_AND_ASSIGN(const CountPlan plan, Create(v1::Plan(), 100));
  EXPECT_EQ(plan.proto().batch_size(), 64u);
  EXPECT_EQ(plan.Steps(0), 2u);
  EXPECT_EQ(plan.proto().world(), 1u);
  EXPECT_EQ(plan.proto().tail(), v1::KEEP);
}

TEST(CountPlan, PlansThatMeanTheSame_HaveEqualBytes) {
  v1::Plan spelled = Plan(64, 0, 1, v1::KEEP, false);
  spelled.set_seed(99);  // ignored without shuffle
  ASSERT_OK_AND_ASSIGN(const CountPlan a, Create(v1::Plan(), 100));
  ASSERT_OK_AND_ASSIGN(const CountPlan b, Create(spelled, 100));
  EXPECT_EQ(a.proto().SerializeAsString(), b.proto().SerializeAsString());
}

TEST(CountPlan, LargestFields_DoNotOverflow) {
  constexpr uint64_t kSamples = uint64_t{1} << 40;
  ASSERT_OK_AND_ASSIGN(const CountPlan plan, Create(Plan(1 << 20, 65535, 65536, v1::PAD), kSamples + 1));
  EXPECT_EQ(plan.Steps(0), 17u);
  for (const uint64_t sample : plan.Samples(UINT64_MAX, 16, 0, 100)) EXPECT_LE(sample, kSamples);
  EXPECT_EQ(plan.Range(16).count, 1u << 20);
}

TEST(CountPlan, FieldOutOfRange_IsInvalidArgumentThatNamesItWithTheRange) {
  const auto invalid = [](const char* field, const char* range) {
    return StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(field), HasSubstr(range)));
  };
  EXPECT_THAT(Create(Plan((1 << 20) + 1, 0, 1, v1::KEEP), 9), invalid("plan.batch_size: 1048577", "1048576]"));
  EXPECT_THAT(Create(Plan(UINT32_MAX, 0, 1, v1::KEEP), 9), invalid("plan.batch_size", "[1, 1048576]"));
  EXPECT_THAT(Create(Plan(1, 0, 65537, v1::KEEP), 9), invalid("plan.world: 65537", "[1, 65536]"));
  EXPECT_THAT(Create(Plan(1, UINT32_MAX, UINT32_MAX, v1::KEEP), 9), invalid("plan.world", "65536]"));
  EXPECT_THAT(Create(Plan(1, 2, 2, v1::KEEP), 9), invalid("plan.rank: 2", "[0, 1]"));
  EXPECT_THAT(Create(Plan(1, 1, 0, v1::KEEP), 9), invalid("plan.rank: 1", "[0, 0]"));
  EXPECT_THAT(Create(Plan(1, 0, 1, static_cast<v1::TailPolicy>(9)), 9), invalid("plan.tail", "value 9"));
  EXPECT_THAT(BatchPlan::Create(*CompletePlan(v1::Plan()), {}), invalid("plan", "no samples"));
}

TEST(CountPlan, SmallestAndLargestOfEachField_AreTaken) {
  EXPECT_OK(Create(Plan(1 << 20, 0, 1, v1::KEEP), 1));
  EXPECT_OK(Create(Plan(1, 65535, 65536, v1::DROP), 1));
  EXPECT_OK(Create(Plan(0, 0, 0, v1::TAIL_UNSPECIFIED), 1));
}

}  // namespace
}  // namespace stoker::plan
