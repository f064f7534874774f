// SPDX-License-Identifier: Apache-2.0
// Batches that are leased while they are being made.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "server/schedule/scheduler.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/schedule/world.h"

namespace stoker::schedule::testing {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(Announce, ABatchIsLeasedAsSoonAsItHasRoom_AndNoOtherMessageFollows) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.AnnounceTo(a);
  world.Advance(a, {}, 2);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1"));
  EXPECT_FALSE(world.IsSealed(world.Leases(a)[0]));
  EXPECT_EQ(world.Status().arena().extents().making(), 2u);
  EXPECT_TRUE(world.Status().sessions(0).waiting());
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1"));
  EXPECT_TRUE(world.IsSealed(world.Leases(a)[0]) && world.IsSealed(world.Leases(a)[1]));
  EXPECT_EQ(world.Status().arena().extents().leased(), 2u);
  EXPECT_FALSE(world.Status().sessions(0).waiting());
}

TEST(Announce, WhoDoesNotAskGetsItSealed_BesideOneWhoDoes) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId a = world.Open(stream), b = world.Open(stream);
  world.AnnounceTo(a);
  world.Advance(a, {}, 1);
  world.Advance(b, {}, 1);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0"));
  EXPECT_THAT(world.Said(b), IsEmpty());
  world.MakeAll();
  EXPECT_THAT(world.Said(b), ElementsAre("0:0"));
  EXPECT_EQ(world.TimesMade(stream, {0, 0}), 1);
}

TEST(Announce, PastTheEndOfAnEpoch) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 2}));
  world.AnnounceTo(a);
  world.Advance(a, {}, 5);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "end 0", "1:0", "1:1", "end 1", "2:0"));
}

TEST(Announce, WhatHasNoRoomComesWhenItHas) {
  World world({.pages = {2}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.AnnounceTo(a);
  world.Advance(a, {}, 4);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1"));
  world.MakeAll();
  world.Advance(a, {world.Leases(a)[0]}, 0);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "0:2"));
}

TEST(Announce, RoomThatAnotherSessionLeaves_IsTakenAndTheBatchIsThereWhenItIsSealed) {
  World world({.pages = {2}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId a = world.Open(stream), b = world.Open(world.Add({.key = "b", .steps = 9}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  world.AnnounceTo(b);
  world.Advance(b, {}, 1);
  EXPECT_THAT(world.Said(b), IsEmpty());
  world.Close(a);
  world.MakeAll();
  EXPECT_THAT(world.Said(b), ElementsAre("0:0"));
}

TEST(Announce, AFailureEndsAllWhoWereAnnouncedTheBatch_AndWhoWaitForIt) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId a = world.Open(stream), b = world.Open(stream), c = world.Open(stream, {.position = {0, 1}});
  world.AnnounceTo(a);
  world.AnnounceTo(b);
  world.AnnounceTo(c);
  for (const SessionId each : {a, b, c}) world.Advance(each, {}, 1);
  const SessionId waits = world.Open(stream);
  world.Advance(waits, {}, 1);
  const Part first = *world.Take();
  ASSERT_EQ(first.at, (Position{0, 0}));
  world.Finish(first.id, absl::DataLossError("sample 3: no number"));
  for (const SessionId each : {a, b, waits}) {
    EXPECT_THAT(world.Ended(each), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("sample 3")));
  }
  EXPECT_EQ(world.Ended(c).code(), absl::StatusCode::kUnknown);
  world.MakeAll();
  EXPECT_TRUE(world.IsSealed(world.Leases(c)[0]));
  EXPECT_EQ(world.pool().live(), 1u) << "the failed one's extent is free";
}

TEST(Announce, ABatchOfWhichAPartHasFailedIsNotAnnounced) {
  World world({.parallel_parts = 2});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9, .pages = 2});
  const SessionId a = world.Open(stream);
  world.Advance(a, {}, 1);
  const Part first = *world.Take(), second = *world.Take();
  world.Finish(first.id, absl::DataLossError("no number"));
  const SessionId b = world.Open(stream);
  world.AnnounceTo(b);
  world.Advance(b, {}, 1);
  EXPECT_THAT(world.Said(b), IsEmpty());
  world.Finish(second.id);
  EXPECT_THAT(world.Ended(b), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(Announce, AfterASeekTheFailureOfWhatWasAnnouncedBeforeIsNobodys) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId a = world.Open(stream);
  world.AnnounceTo(a);
  world.Advance(a, {}, 1);
  const Part part = *world.Take();
  world.Seek(a, {4, 0}, {}, 1);
  world.Finish(part.id, absl::DataLossError("no number"));
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "4:0"));
  EXPECT_TRUE(world.IsSealed(world.Leases(a)[1]));
  world.ReleaseAll(a, 0);
  world.Close(a);
  EXPECT_EQ(world.pool().live(), 1u) << "4:0 stays, 0:0 is gone";
}

TEST(Announce, ALeaseThatComesBackBeforeTheBatchIsMade_LeavesItToOthers) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId a = world.Open(stream);
  world.AnnounceTo(a);
  world.Advance(a, {}, 2);
  world.ReleaseAll(a, 0);
  world.MakeAll();
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:0", "a 0:1"));
  EXPECT_EQ(world.Status().arena().extents().sealed(), 2u);
  const SessionId b = world.Open(stream);
  world.Advance(b, {}, 2);
  EXPECT_THAT(world.Said(b), ElementsAre("0:0", "0:1"));
  EXPECT_EQ(world.TimesMade(stream, {0, 0}), 1);
}

TEST(Announce, TheEndOfASessionLeavesWhatIsBeingMadeToOthers) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId a = world.Open(stream), b = world.Open(stream);
  for (const SessionId each : {a, b}) {
    world.AnnounceTo(each);
    world.Advance(each, {}, 2);
  }
  world.Close(a);
  world.MakeAll();
  EXPECT_TRUE(world.IsSealed(world.Leases(b)[0]) && world.IsSealed(world.Leases(b)[1]));
}

// What waits longest is made first, announced or not: b holds nothing, a is announced its second and third.
TEST(Announce, UrgencyIsAsIfItHadNotBeenAnnounced) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.AnnounceTo(a);
  world.Advance(a, {}, 1);
  world.MakeAll();
  world.Advance(a, {}, 2);
  const SessionId b = world.Open(world.Add({.key = "b", .steps = 9}));
  world.Advance(b, {}, 2);
  world.MakeAll();
  EXPECT_THAT(world.Made(), ElementsAre("a 0:0", "b 0:0", "a 0:1", "b 0:1", "a 0:2"));
}

TEST(Announce, ABatchThatIsNotMadeIsNeitherFetchedNorClaimed) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.AnnounceTo(a);
  world.Advance(a, {}, 1);
  const LeaseId lease = world.Leases(a)[0];
  EXPECT_THAT(world.scheduler().Pin(a, lease, absl::UnixEpoch()), StatusIs(absl::StatusCode::kFailedPrecondition));
  v1::SessionRequest::Claim claim;
  claim.set_lease(lease);
  claim.set_device("gpu");
  EXPECT_THAT(world.scheduler().Claim(a, claim), StatusIs(absl::StatusCode::kInvalidArgument));
  world.MakeAll();
  world.Unpin(world.Pin(a, lease));
}

// Clients of all kinds and workers that fail, lose and give back, in any order; the judge sees every event.
TEST(Announce, AnyOrderOfEvents) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto pick = [&random](size_t n) { return static_cast<size_t>(random() % n); };
    World world({.pages = {6, 4}, .lease_limit = 4, .parallel_parts = 1 + static_cast<uint32_t>(pick(3))});
    const std::vector<StreamSpec> streams = {world.Add({.key = "a", .steps = 3}),
                                             world.Add({.key = "b", .steps = 5, .pages = 2})};
    std::vector<SessionId> open;
    for (int event = 0; event < 200 && !::testing::Test::HasFailure(); ++event) {
      std::erase_if(open, [&world](SessionId id) { return !world.client(id).open; });
      if (open.size() < 2 || (open.size() < 5 && pick(20) == 0)) {
        open.push_back(world.Open(streams[pick(2)], {.position = {0, pick(3)}}));
        if (pick(3) > 0) world.AnnounceTo(open.back());
      }
      const SessionId id = open[pick(open.size())];
      switch (pick(12)) {
        case 0: {
          std::vector<LeaseId> some = world.Leases(id);
          std::erase_if(some, [&](LeaseId) { return pick(2) == 0; });
          world.Seek(id, {pick(3), pick(3)}, some, static_cast<uint32_t>(pick(3)));
          break;
        }
        case 1:
          if (pick(4) == 0) world.Close(id);
          break;
        case 2:
        case 3:
        case 4:
          world.ReleaseAll(id, static_cast<uint32_t>(pick(4)));
          break;
        case 5:
          if (!world.Leases(id).empty()) world.Advance(id, {world.Leases(id)[pick(world.Leases(id).size())]}, 1);
          break;
        case 6:
        case 7:
          (void)world.Take();
          break;
        default: {
          const auto& in_flight = world.in_flight();
          if (in_flight.empty()) break;
          const PartId part = in_flight[pick(in_flight.size())];
          const size_t how = pick(12);
          if (how == 0) {
            world.Finish(part, absl::DataLossError("no number"));
          } else if (how == 1) {
            world.Lose(part);
          } else if (how == 2) {
            world.GiveBack(part);
          } else {
            world.Finish(part);
          }
        }
      }
    }
    world.MakeAll();
    for (const SessionId id : open) {
      if (world.client(id).open) world.Close(id);
    }
    EXPECT_EQ(world.Status().arena().extents().leased(), 0u);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace stoker::schedule::testing
