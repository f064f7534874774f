// SPDX-License-Identifier: Apache-2.0
// Parts, failures and room.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/schedule/world.h"

namespace stoker::schedule::testing {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// "2+3": two samples from the third on.
std::vector<std::string> TakeAll(World* world) {
  std::vector<std::string> ranges;
  while (const std::optional<Part> part = world->Take()) ranges.push_back(absl::StrCat(part->first, "+", part->count));
  return ranges;
}

// ---- parts ----

TEST(Making, SmallBatch_IsOnePart) {
  World world({.parallel_parts = 4, .least_part_bytes = 4 * kPage});
  world.Advance(world.Open(world.Add({.key = "a", .pages = 7, .samples = 10})), {}, 1);
  EXPECT_THAT(TakeAll(&world), ElementsAre("0+10"));
}

TEST(Making, LargeBatch_IsCutForAllWorkersWithoutGapOrOverlap) {
  World world({.parallel_parts = 4});
  world.Advance(world.Open(world.Add({.key = "a", .pages = 8, .samples = 10})), {}, 1);
  EXPECT_THAT(TakeAll(&world), ElementsAre("0+2", "2+3", "5+2", "7+3"));
}

TEST(Making, BytesAllowFewerParts_AreCutSo) {
  World world({.parallel_parts = 8, .least_part_bytes = 4 * kPage});
  world.Advance(world.Open(world.Add({.key = "a", .pages = 8, .samples = 10})), {}, 1);
  EXPECT_THAT(TakeAll(&world), ElementsAre("0+5", "5+5"));
}

TEST(Making, EveryWorkerHasAPart_FurtherBatchesAreCutIntoLargerOnes) {
  World world({.parallel_parts = 2, .least_part_bytes = kPage, .busy_part_bytes = 4 * kPage});
  const StreamSpec small = world.Add({.key = "a", .pages = 7, .samples = 10});
  const StreamSpec large = world.Add({.key = "b", .pages = 8, .samples = 10});
  world.Advance(world.Open(small), {}, 2);
  EXPECT_THAT(TakeAll(&world), ElementsAre("0+5", "5+5", "0+10"));
  world.Advance(world.Open(large), {}, 1);
  EXPECT_THAT(TakeAll(&world), ElementsAre("0+5", "5+5"));
  world.MakeAll();
  world.Advance(world.Open(small), {}, 3);  // two of them are there
  EXPECT_THAT(TakeAll(&world), ElementsAre("0+5", "5+5"));
}

TEST(Making, FewerSamplesThanWorkers_OnePartASample) {
  World world({.parallel_parts = 8});
  world.Advance(world.Open(world.Add({.key = "a", .pages = 8, .samples = 2})), {}, 1);
  EXPECT_THAT(TakeAll(&world), ElementsAre("0+1", "1+1"));
}

TEST(Making, EmptyBatch_IsOneEmptyPartAndDelivered) {
  World world({.parallel_parts = 8});
  const SessionId a = world.Open(world.Add({.key = "a", .samples = 0}));
  world.Advance(a, {}, 1);
  EXPECT_THAT(TakeAll(&world), ElementsAre("0+0"));
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0"));
}

TEST(Making, ParallelPartsChange_BatchesAfterwardsAreCutSo) {
  World world({.parallel_parts = 1});
  const SessionId a = world.Open(world.Add({.key = "a", .pages = 4, .samples = 4}));
  world.Advance(a, {}, 1);
  world.scheduler().SetParallelParts(2);
  world.Advance(a, {}, 1);
  EXPECT_THAT(TakeAll(&world), ElementsAre("0+4", "0+2", "2+2"));
}

TEST(Making, SomePartsDone_TheBatchIsNotSealedYet) {
  World world({.parallel_parts = 2});
  const SessionId a = world.Open(world.Add({.key = "a", .pages = 4, .samples = 4}));
  world.Advance(a, {}, 1);
  const PartId first = world.Take()->id, second = world.Take()->id;
  world.Finish(second);
  EXPECT_THAT(world.Said(a), IsEmpty());
  world.Finish(first);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0"));
}

// ---- workers die ----

TEST(Making, WorkerDies_ItsPartIsMadeAgainSampleBySampleAndFirst) {
  World world({.parallel_parts = 2});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9, .pages = 4, .samples = 6}));
  world.Advance(a, {}, 2);
  world.Take();
  const PartId second = world.Take()->id;
  world.Lose(second);
  EXPECT_THAT(TakeAll(&world), ElementsAre("3+1", "4+1", "5+1", "0+3", "3+3"));
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1"));
}

TEST(Making, EmptyPartIsLostThreeTimes_BatchFails) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .samples = 0}));
  world.Advance(a, {}, 1);
  for (int i = 0; i < 3; ++i) world.Lose(world.Take()->id);
  EXPECT_THAT(world.Ended(a),
              StatusIs(absl::StatusCode::kInternal, AllOf(HasSubstr("the empty batch 0 of epoch 0"),
                                                          HasSubstr("data set a"), HasSubstr("signal 9"))));
}

TEST(Making, SampleKillsThreeWorkers_BatchFailsAndNamesTheSample) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "pump", .samples = 3}));
  world.Advance(a, {}, 1);
  world.Lose(world.Take()->id);
  world.Finish(world.Take()->id);
  const PartId killer = world.Take()->id;
  world.Finish(world.Take()->id);
  world.Lose(killer);
  world.Lose(world.Take()->id, "killed by signal 11");
  EXPECT_THAT(world.Ended(a), StatusIs(absl::StatusCode::kInternal,
                                       "making sample 0:0/1 of data set pump: 3 workers died of it (killed by "
                                       "signal 11)"));
  EXPECT_EQ(world.pool().live(), 0u);
  EXPECT_THAT(world.closed_streams(), ElementsAre("pump"));
}

TEST(Making, SingleSampleIsLostTwice_IsMadeAgain) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .samples = 1}));
  world.Advance(a, {}, 1);
  for (int i = 0; i < 2; ++i) world.Lose(world.Take()->id);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0"));
}

TEST(Making, TwoWorkersDieOfDifferentSamples_BatchIsMade) {
  World world({.parallel_parts = 2});
  const SessionId a = world.Open(world.Add({.key = "a", .pages = 4, .samples = 2}));
  world.Advance(a, {}, 1);
  const PartId first = world.Take()->id, second = world.Take()->id;
  world.Lose(first);
  world.Lose(second);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0"));
}

TEST(Making, PartNotBegunIsGivenBack_ComesNextAgainAndCountsAsNoLoss) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9, .samples = 1}));
  world.Advance(a, {}, 2);
  const PartId part = world.Take()->id;
  world.GiveBack(part);
  EXPECT_EQ(world.Take()->id, part);
  world.Lose(part);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1"));
}

TEST(Making, UnknownPartIsAnswered_IsIgnored) {
  World world({});
  world.scheduler().PartDone(4711, absl::OkStatus(), absl::UnixEpoch());
  world.scheduler().PartLost(4711, "killed", absl::UnixEpoch());
  world.scheduler().PartReturned(4711);
  EXPECT_EQ(world.pool().live(), 0u);
}

// ---- failures ----

TEST(Making, PartFails_WantingSessionsEndWithItAndNoOthers) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9}), other_stream = world.Add({.key = "b"});
  const SessionId a = world.Open(stream), b = world.Open(stream), other = world.Open(other_stream);
  const SessionId elsewhere = world.Open(stream, {.position = {0, 5}});
  for (const SessionId id : {a, b, other, elsewhere}) world.Advance(id, {}, 1);
  world.Finish(world.Take()->id, absl::DataLossError("pump.ts:37: not a number"));
  world.MakeAll();
  EXPECT_THAT(world.Ended(a), StatusIs(absl::StatusCode::kDataLoss, "pump.ts:37: not a number"));
  EXPECT_THAT(world.Ended(b), StatusIs(absl::StatusCode::kDataLoss, "pump.ts:37: not a number"));
  EXPECT_THAT(world.Said(other), ElementsAre("0:0"));
  EXPECT_THAT(world.Said(elsewhere), ElementsAre("0:5"));
}

TEST(Making, BatchAheadFails_SessionGetsWhatComesBeforeItFirst) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.Advance(a, {}, 3);
  const PartId first = world.Take()->id, second = world.Take()->id;
  world.Finish(second, absl::DataLossError("bad"));
  EXPECT_THAT(world.Ended(a), StatusIs(absl::StatusCode::kUnknown));
  world.Finish(first);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0"));
  EXPECT_THAT(world.Ended(a), StatusIs(absl::StatusCode::kDataLoss, "bad"));
}

TEST(Making, FailedBatch_IsTriedAnewForASessionThatComesLater) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"});
  const SessionId a = world.Open(stream);
  world.Advance(a, {}, 1);
  world.Finish(world.Take()->id, absl::DataLossError("bad"));
  EXPECT_THAT(world.Ended(a), StatusIs(absl::StatusCode::kDataLoss));
  const SessionId b = world.Open(stream);
  world.Advance(b, {}, 1);
  world.MakeAll();
  EXPECT_THAT(world.Said(b), ElementsAre("0:0"));
}

TEST(Making, OnePartFailsWhileOthersRun_FailsWhenTheLastAnswers) {
  World world({.parallel_parts = 3});
  const SessionId a = world.Open(world.Add({.key = "a", .pages = 4, .samples = 6}));
  world.Advance(a, {}, 1);
  const PartId first = world.Take()->id, second = world.Take()->id, third = world.Take()->id;
  world.Finish(first, absl::DataLossError("the first error counts"));
  world.Finish(second, absl::InternalError("another"));
  EXPECT_EQ(world.pool().live(), 1u) << "a worker still writes there";
  world.Lose(third);
  EXPECT_THAT(world.Ended(a), StatusIs(absl::StatusCode::kDataLoss, "the first error counts"));
  EXPECT_EQ(world.pool().live(), 0u);
}

TEST(Making, FailedWithPartsNotBegun_TheyAreNotHandedOut) {
  World world({.parallel_parts = 3});
  const SessionId a = world.Open(world.Add({.key = "a", .pages = 4, .samples = 6}));
  world.Advance(a, {}, 1);
  world.Finish(world.Take()->id, absl::DataLossError("bad"));
  EXPECT_EQ(world.Take(), std::nullopt);
  EXPECT_THAT(world.Ended(a), StatusIs(absl::StatusCode::kDataLoss, "bad"));
}

TEST(Making, BatchWithoutLayout_EndsTheSessionWhenItComesToIt) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9, .broken = Position{0, 1}}));
  world.Advance(a, {}, 1);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0"));
  world.Advance(a, {}, 1);
  EXPECT_THAT(world.Ended(a), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("batch 0:1 is unreadable")));
}

TEST(Making, FailureWithoutWanters_LeavesNothing) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a"}));
  world.Advance(a, {}, 1);
  const PartId part = world.Take()->id;
  world.Close(a);
  world.Finish(part, absl::DataLossError("bad"));
  EXPECT_EQ(world.pool().live(), 0u);
  EXPECT_THAT(world.closed_streams(), ElementsAre("a"));
}

// ---- room ----

TEST(Making, RoomForOne_TheBatchWithLeastBeforeItComesFirst) {
  World world({.pages = {2}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId holder = world.Open(world.Add({.key = "h", .steps = 9}));
  world.Advance(holder, {}, 2);
  world.MakeAll();
  const SessionId ahead = world.Open(stream), behind = world.Open(world.Add({.key = "b", .steps = 9}));
  world.Advance(ahead, {}, 3);
  world.Advance(behind, {}, 2);
  world.ReleaseAll(holder, 0);
  EXPECT_EQ(world.Take()->at, (Position{0, 0}));
  world.MakeAll();
  EXPECT_THAT(world.Said(ahead), ElementsAre("0:0"));
  EXPECT_THAT(world.Said(behind), ElementsAre("0:0"));
}

TEST(Making, RoomForOne_TheSessionWithLessInHandComesFirst) {
  World world({.pages = {3}});
  const SessionId rich = world.Open(world.Add({.key = "rich", .steps = 9}));
  const SessionId holder = world.Open(world.Add({.key = "h", .steps = 9}));
  world.Advance(rich, {}, 2);
  world.Advance(holder, {}, 1);
  world.MakeAll();
  world.Advance(rich, {}, 1);
  const SessionId poor = world.Open(world.Add({.key = "poor", .steps = 9}));
  world.Advance(poor, {}, 1);
  world.ReleaseAll(holder, 0);
  world.MakeAll();
  EXPECT_THAT(world.Said(poor), ElementsAre("0:0"));
  EXPECT_THAT(world.Said(rich), ElementsAre("0:0", "0:1"));
}

TEST(Making, SessionThatHoldsABatchWhileItWaits_IsNotStarvedByOneThatHoldsNone) {
  World world({.pages = {2}});
  const SessionId holds = world.Open(world.Add({.key = "a", .steps = 99}));
  const SessionId holds_none = world.Open(world.Add({.key = "b", .steps = 99}));
  for (int i = 0; i < 30; ++i) {
    const std::vector<LeaseId> leases = world.Leases(holds);
    if (leases.size() < 2) {
      world.Advance(holds, {}, world.client(holds).credits == 0 ? 1 : 0);
    } else {
      world.Advance(holds, {leases[0]}, 1);
    }
    world.ReleaseAll(holds_none, world.client(holds_none).credits == 0 ? 1 : 0);
    world.MakeAll();
  }
  EXPECT_GE(world.client(holds).next.step, 8u);
  EXPECT_GE(world.client(holds_none).next.step, 8u);
}

TEST(Making, SessionJoinsWhileMuchIsQueued_ItsFirstBatchIsMadeNext) {
  World world({});
  const SessionId eager = world.Open(world.Add({.key = "eager", .steps = 99}));
  world.Advance(eager, {}, 20);
  const SessionId late = world.Open(world.Add({.key = "late", .steps = 99}));
  world.Advance(late, {}, 2);
  world.MakeOne();
  world.MakeOne();
  EXPECT_THAT(world.Said(eager), ElementsAre("0:0"));
  EXPECT_THAT(world.Said(late), ElementsAre("0:0"));
}

TEST(Making, LargeUrgentBatchFindsNoRoom_LookAheadOfOthersDoesNotTakeItAway) {
  World world({.pages = {8}});
  const SessionId small = world.Open(world.Add({.key = "small", .steps = 1000}));
  world.Advance(small, {}, 8);
  const SessionId large = world.Open(world.Add({.key = "large", .steps = 10, .pages = 4}));
  world.Advance(large, {}, 1);
  for (int i = 0; i < 20; ++i) {
    world.MakeOne();
    world.ReleaseAll(small, static_cast<uint32_t>(world.Leases(small).size()));  // makes room, and asks for as much
  }
  EXPECT_THAT(world.Said(large), ElementsAre("0:0"));
  EXPECT_GE(world.client(small).next.step, 10u) << "it goes on meanwhile";
}

TEST(Making, PoolGrows_WaitingBatchesArePlaced) {
  World world({.pages = {2}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.Advance(a, {}, 3);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1"));
  world.GrowPool(1);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "0:2"));
}

// ---- readers that are apart ----

TEST(Making, OneALittleBehind_IsServedFirst) {
  World world({.pages = {4}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 1000});
  const SessionId ahead = Consume(&world, stream, kCatchUpSteps);
  const SessionId behind = world.Open(stream);
  world.Advance(ahead, {}, 1);
  world.Advance(behind, {}, 1);
  EXPECT_EQ(world.Take()->at, (Position{0, 0}));
}

TEST(Making, ReadersThatBeganApart_ShareAsSoonAsTheOneBehindHasComeUp) {
  World world({.pages = {4}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 1000});
  const SessionId ahead = Consume(&world, stream, 20);
  const SessionId behind = world.Open(stream);
  for (int i = 0; i < 60; ++i) {
    for (const SessionId session : {ahead, behind}) {
      if (world.client(session).credits == 0) world.ReleaseAll(session, 1);
    }
    world.MakeOne();
  }
  EXPECT_LE(world.client(ahead).next.step - world.client(behind).next.step, 4u);  // what the pool holds
  for (uint64_t step = 21; step < world.client(behind).next.step; ++step) {
    EXPECT_EQ(world.TimesMade(stream, {0, step}), 1) << step;
  }
}

TEST(Making, OneFarBehind_DoesNotGoFirst) {
  World world({.pages = {4}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 1000});
  const SessionId ahead = Consume(&world, stream, kCatchUpSteps + 1);
  const SessionId behind = world.Open(stream);
  world.Advance(ahead, {}, 1);
  world.Advance(behind, {}, 1);
  EXPECT_EQ(world.Take()->at, (Position{0, kCatchUpSteps + 1}));
}

}  // namespace
}  // namespace stoker::schedule::testing
