// SPDX-License-Identifier: Apache-2.0
// A session that moves to another place: what it wants, holds and gets.
#include "server/schedule/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"
#include "tests/unit/schedule/world.h"

namespace stoker::schedule::testing {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(Scheduler, Seek_GoesOnThereWithItsCreditsAlone) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  world.Advance(a, {}, 5);
  world.Seek(a, {3, 1}, {}, 2);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "3:1", "3:2"));
  EXPECT_EQ(world.Status().sessions(0).credits(), 0u);
  EXPECT_THAT(world.Leases(a), SizeIs(4)) << "none is returned that was not named";
  world.Advance(a, {}, 1);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "3:1", "3:2", "3:3"));
}

TEST(Scheduler, Seek_SendsNothingUntilAdvance) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 3}));
  world.Advance(a, {}, 1);
  ASSERT_OK(world.scheduler().Seek(a, {4, 3}, {}));
  EXPECT_THAT(world.Said(a), IsEmpty());
  EXPECT_EQ(world.Status().sessions(0).position().epoch(), 4u);
}

TEST(Scheduler, Seek_ForgetsWhatWaitsForRoom_AndPlacesTheNewBatches) {
  World world({.pages = {2}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  const SessionId b = world.Open(world.Add({.key = "b", .steps = 9}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  world.Advance(b, {}, 3);
  EXPECT_EQ(world.Status().arena().extents().planned(), 3u);
  world.Seek(b, {1, 0}, {}, 1);
  EXPECT_EQ(world.Status().arena().extents().planned(), 1u);
  world.ReleaseAll(a, 0);
  world.MakeAll();
  EXPECT_THAT(world.Said(b), ElementsAre("1:0"));
}

TEST(Scheduler, Seek_WhileBatchesAreMade_TheyAreKeptForOthersAndNotSent) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId a = world.Open(stream), b = world.Open(stream);
  world.Advance(a, {}, 2);
  world.Advance(b, {}, 1);
  const PartId part = world.Take()->id;
  world.Seek(a, {0, 5}, {}, 1);
  world.Finish(part);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:5"));
  EXPECT_THAT(world.Said(b), ElementsAre("0:0"));
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:0", "a 0:1", "a 0:5"));
}

TEST(Scheduler, Seek_ReturnsLeasesFirst) {
  World world({.pages = {2}, .lease_limit = 2});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  world.Seek(a, {0, 5}, world.Leases(a), 2);
  EXPECT_EQ(world.MakeAll(), 2);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "0:5", "0:6"));
}

TEST(Scheduler, Seek_WithAllLeasesHeld_GoesOnWhenOneReturns) {
  World world({.lease_limit = 2});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  world.Seek(a, {2, 0}, {}, 4);
  EXPECT_EQ(world.MakeAll(), 0);
  world.Advance(a, {world.Leases(a)[0]}, 0);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "2:0"));
}

TEST(Scheduler, Seek_ToWhatIsCached_BringsItWithoutMaking) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 3}));
  world.Advance(a, {}, 3);
  world.MakeAll();
  world.Seek(a, {0, 1}, world.Leases(a), 1);
  EXPECT_EQ(world.MakeAll(), 0);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "0:2", "end 0", "0:1"));
}

TEST(Scheduler, Seek_ToTheEndOfAnEpoch_EndOfEpochComesFirstAndNeedsNoCredit) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 3}));
  world.Seek(a, {4, 3}, {}, 0);
  EXPECT_THAT(world.Said(a), ElementsAre("end 4"));
  world.Advance(a, {}, 1);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("end 4", "5:0"));
}

TEST(Scheduler, Seek_WithAnEndEpoch_NothingIsMadeFromItOn) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 2}), {.end_epoch = 2});
  world.Seek(a, {1, 1}, {}, 9);
  EXPECT_EQ(world.MakeAll(), 1);
  EXPECT_THAT(world.Said(a), ElementsAre("1:1", "end 1"));
  world.Seek(a, {2, 0}, {}, 9);  // as of a loader whose epochs are all read
  EXPECT_EQ(world.MakeAll(), 0);
  world.Seek(a, {0, 1}, {}, 1);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("1:1", "end 1", "0:1", "end 0"));
}

TEST(Scheduler, Seek_PastTheEpoch_IsRefusedAndChangesNothing) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 3}));
  world.Advance(a, {}, 2);
  EXPECT_THAT(world.TrySeek(a, {7, 4}, {}, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("position.step: 4 is past the 3 steps")));
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1"));
}

TEST(Scheduler, Seek_WithALeaseThatIsNotHeld_IsInvalid) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a"}));
  EXPECT_THAT(world.TrySeek(a, {1, 0}, {17}, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lease 17 is not held")));
}

}  // namespace
}  // namespace stoker::schedule::testing
