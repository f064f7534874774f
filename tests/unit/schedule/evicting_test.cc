// SPDX-License-Identifier: Apache-2.0
// Which batches go when others need their room.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/schedule/world.h"

namespace stoker::schedule::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Evicting, BatchesThatNobodyComesTo_GoFirstLeastRecentlyUsedFirst) {
  World world({.pages = {4}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 99});
  const SessionId a = Consume(&world, stream, 4);
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:0", "a 0:1", "a 0:2", "a 0:3"));
  const SessionId again = world.Open(stream);
  world.Advance(again, {}, 1);  // uses 0:0 once more
  world.Close(again);
  world.Advance(a, {}, 1);
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:0", "a 0:2", "a 0:3"));
}

TEST(Evicting, BatchesThatASessionWillComeTo_StayLongerTheFarthestGoesFirst) {
  World world({.pages = {4}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 99});
  Consume(&world, stream, 4);
  world.Open(stream);  // comes to all of them
  const SessionId other = world.Open(world.Add({.key = "b"}));
  world.Advance(other, {}, 1);
  EXPECT_EQ(world.TimesMade(stream, {0, 3}), 1);
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:0", "a 0:1", "a 0:2"));
}

TEST(Evicting, BatchesNobodyComesToBeforeThoseSomebodyWill_EvenIfUsedLater) {
  World world({.pages = {4}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 99}), done = world.Add({.key = "done"});
  world.Close(Consume(&world, stream, 3));
  world.Close(Consume(&world, done, 1));
  world.Open(stream);
  const SessionId other = world.Open(world.Add({.key = "b"}));
  world.Advance(other, {}, 1);
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:0", "a 0:1", "a 0:2"));
  EXPECT_THAT(world.closed_streams(), ElementsAre("done"));
}

TEST(Evicting, SessionThatEndsBefore_DoesNotKeepWhatItNeverComesTo) {
  World world({.pages = {4}});
  const StreamSpec ends = world.Add({.key = "ends", .steps = 1}), goes_on = world.Add({.key = "goes on", .steps = 9});
  world.Close(Consume(&world, goes_on, 2));
  world.Close(Consume(&world, ends, 2));
  world.Open(ends, {.end_epoch = 1});  // comes to 0:0, and never to 1:0
  world.Open(goes_on);
  const SessionId other = world.Open(world.Add({.key = "other"}));
  world.Advance(other, {}, 1);
  EXPECT_THAT(world.Cached(), ElementsAre("ends 0:0", "goes on 0:0", "goes on 0:1"));
}

TEST(Evicting, LeasedBatches_NeverGo) {
  World world({.pages = {2}});
  const SessionId a = world.Open(world.Add({.key = "a"})), b = world.Open(world.Add({.key = "b"}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  world.Advance(b, {}, 2);
  EXPECT_EQ(world.MakeAll(), 0);
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:0", "a 0:1"));
}

TEST(Evicting, WantedBatchLessUrgentThanTheNeedyOne_IsPlannedAnew) {
  World world({.pages = {2}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId a = world.Open(stream);
  world.Advance(a, {}, 2);
  const PartId first = world.Take()->id, second = world.Take()->id;
  world.Finish(second);  // 0:1 is there, and waits for 0:0
  const SessionId b = world.Open(world.Add({.key = "b", .steps = 9}));
  world.Advance(b, {}, 1);
  EXPECT_THAT(world.Cached(), IsEmpty()) << "b has nothing, a would have 0:0 before it";
  EXPECT_EQ(world.Status().arena().extents().planned(), 1u);
  world.Finish(first);
  world.MakeAll();
  EXPECT_THAT(world.Said(b), ElementsAre("0:0"));
  EXPECT_THAT(world.Said(a), ElementsAre("0:0"));
  world.ReleaseAll(a, 0);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1"));
  EXPECT_EQ(world.TimesMade(stream, {0, 1}), 2);
}

TEST(Evicting, WantedBatchAsUrgentAsTheNeedyOne_Stays) {
  World world({.pages = {3}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9})),
                  b = world.Open(world.Add({.key = "b", .steps = 9}));
  world.Advance(a, {}, 2);
  const PartId first = world.Take()->id;
  world.Finish(world.Take()->id);  // a 0:1, wanted with one before it
  world.Advance(b, {}, 2);         // b 0:0 takes the last room; b 0:1 is as urgent as a 0:1
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:1"));
  world.Finish(first);
}

TEST(Evicting, SmallBatchesMakeRoomForALargeOne) {
  World world({.pages = {8}});
  world.Close(Consume(&world, world.Add({.key = "small", .steps = 99}), 8));
  const SessionId large = world.Open(world.Add({.key = "large", .pages = 4}));
  world.Advance(large, {}, 1);
  world.MakeAll();
  EXPECT_THAT(world.Said(large), ElementsAre("0:0"));
  EXPECT_EQ(world.Status().arena().evictions(), 4u);
}

TEST(Evicting, EvictedBatch_IsMadeAgainForWhoComesLater) {
  World world({.pages = {2}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  Consume(&world, stream, 4);
  const SessionId late = world.Open(stream);
  world.Advance(late, {}, 1);
  world.MakeAll();
  EXPECT_THAT(world.Said(late), ElementsAre("0:0"));
  EXPECT_EQ(world.TimesMade(stream, {0, 0}), 2);
}

}  // namespace
}  // namespace stoker::schedule::testing
