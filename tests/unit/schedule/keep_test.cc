// SPDX-License-Identifier: Apache-2.0
// How many leases a session's user may keep while he waits for more, and that with so many nobody waits for ever.
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/schedule/world.h"

namespace stoker::schedule::testing {
namespace {

using stoker::testing::StatusIs;

// What the session is told with its next batch.
uint64_t MayKeep(World& world, SessionId session) {
  world.ReleaseAll(session, 1);
  world.MakeAll();
  return world.client(session).may_keep;
}

TEST(KeepTest, OneSession_AllButOneBatch) {
  World world({.pages = {4}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  EXPECT_EQ(MayKeep(world, a), 3u);
}

TEST(KeepTest, SessionsThatComeAndGo_ShareWhatThereIs) {
  World world({.pages = {5}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId a = world.Open(stream);
  const SessionId b = world.Open(world.Add({.key = "b", .steps = 9}));
  EXPECT_EQ(MayKeep(world, a), 2u);
  EXPECT_EQ(MayKeep(world, b), 2u);
  const SessionId c = world.Open(stream);
  EXPECT_EQ(MayKeep(world, a), 1u);
  world.Close(b);
  world.Close(c);
  EXPECT_EQ(MayKeep(world, a), 4u);
}

TEST(KeepTest, MoreSessionsThanBatches_Nothing) {
  World world({.pages = {2}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.Open(world.Add({.key = "b", .steps = 9}));
  EXPECT_EQ(MayKeep(world, a), 0u);
}

TEST(KeepTest, BatchesOfSeveralSizes_CountWithWhatTheyTake) {
  World world({.pages = {16}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9, .pages = 1}));
  world.Open(world.Add({.key = "b", .steps = 9, .pages = 4}));
  EXPECT_EQ(MayKeep(world, a), 1u);  // the smaller may be in as many of the four places for the larger
}

TEST(KeepTest, SizesThatDoNotDivideEachOther_CountWithThePlacesTheyMayTouch) {
  World world({.pages = {24}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9, .pages = 3}));
  world.Open(world.Add({.key = "b", .steps = 9, .pages = 4}));
  EXPECT_EQ(MayKeep(world, a), 1u);  // 6 places for b: 1 of b, 2 that one of a touches; 8 for a: 1 and 2
}

TEST(KeepTest, ManySizes_AreEstimated_NotTooLow) {
  World world({.pages = {100000}, .judge_waiting = false});
  SessionId last = 0;
  for (uint64_t pages = 1; pages <= 80; ++pages) {
    last = world.Open(world.Add({.key = absl::StrCat("stream ", pages), .steps = 9, .pages = pages}));
  }
  // 1250 places for the largest; the 3240 pages that one of each takes touch at most 3240 / 80 + 2 x 80 of them.
  EXPECT_EQ(MayKeep(world, last), 1249u / 200);
}

TEST(KeepTest, SegmentsWithRestsThatFitNoBatch_CountWithoutThem) {
  World world({.pages = {5, 5}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9, .pages = 3}));
  EXPECT_EQ(MayKeep(world, a), 1u);
}

TEST(KeepTest, TwoBatchesThatFitTogetherButNoSegmentEach_AreRefused) {
  World world({.pages = {3, 2, 2}});
  EXPECT_THAT(world.TryOpen(world.Add({.key = "a", .steps = 9, .pages = 3})),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

// Each user keeps what he may for good, and waits. What he may not keep he copies and gives back.
TEST(KeepTest, ReadersThatKeepAllTheyMay_GoOnForEver) {
  for (uint64_t pages = 2; pages <= 9; ++pages) {
    for (int readers = 1; readers <= 5; ++readers) {
      SCOPED_TRACE(absl::StrCat(pages, " pages, ", readers, " readers"));
      World world({.pages = {pages}});
      std::vector<SessionId> sessions;
      for (int i = 0; i < readers; ++i) {
        sessions.push_back(world.Open(world.Add({.key = absl::StrCat("stream ", i), .steps = 1000})));
      }
      for (const SessionId session : sessions) world.Advance(session, {}, 1);
      for (int round = 0; round < 40; ++round) {
        world.MakeAll();
        for (const SessionId session : sessions) {
          const World::Client& client = world.client(session);
          if (client.credits > 0) continue;  // waits
          std::vector<LeaseId> copies;
          if (client.leases.size() > client.may_keep) copies.push_back(client.leases.back());
          world.Advance(session, copies, 1);
        }
      }
      for (const SessionId session : sessions) EXPECT_GT(world.Said(session).size(), 4u);
    }
  }
}

TEST(KeepTest, WhoHoldsLeasesIsToldThatAnotherWaits_TheOtherIsNot) {
  World world({.pages = {3}});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId holder = world.Open(stream);
  const SessionId waiter = world.Open(world.Add({.key = "b", .steps = 9}));
  const SessionId idle = world.Open(stream);
  world.Advance(holder, {}, 2);
  world.Advance(waiter, {}, 1);
  world.MakeAll();
  EXPECT_FALSE(world.client(holder).room_wanted);
  world.Advance(waiter, {}, 1);
  EXPECT_TRUE(world.client(holder).room_wanted);
  EXPECT_FALSE(world.client(waiter).room_wanted);
  EXPECT_FALSE(world.client(idle).room_wanted);
  world.Advance(holder, {}, 1);
  EXPECT_TRUE(world.client(waiter).room_wanted);
}

// The batch that is kept is somewhere among what others left.
TEST(KeepTest, RoomThatSmallerBatchesLeft_IsUsedFromPlaceToPlace) {
  for (uint64_t left = 1; left <= 16; ++left) {
    SCOPED_TRACE(left);
    World world({.pages = {17}});
    world.Close(Consume(&world, world.Add({.key = "small", .steps = 99}), left));
    const SessionId large = world.Open(world.Add({.key = "large", .steps = 9, .pages = 8}));
    world.Advance(large, {}, 1);
    for (uint64_t step = 0; step < 9; ++step) {
      world.MakeAll();
      ASSERT_EQ(world.client(large).leases.size(), step == 0 ? 1 : 2);
      world.Advance(large, step == 0 ? std::vector<LeaseId>() : std::vector{world.Leases(large).front()}, 1);
    }
  }
}

// Of sizes at random, each user keeps what he may, wherever it is.
TEST(KeepTest, ReadersOfSeveralSizesThatKeepAllTheyMay_GoOnForEver) {
  std::mt19937_64 random(5);
  for (int world_number = 0; world_number < 200; ++world_number) {
    SCOPED_TRACE(world_number);
    constexpr FakePool::Fit kFits[] = {FakePool::Fit::kBest, FakePool::Fit::kFirst, FakePool::Fit::kLast};
    World world({.pages = {10 + random() % 30, 10 + random() % 30}, .fit = kFits[world_number % 3]});
    std::vector<SessionId> sessions;
    for (uint64_t i = 0; i < 1 + random() % 4; ++i) {
      const uint64_t pages = 1 + random() % 8;
      sessions.push_back(world.Open(world.Add(
          {.key = absl::StrCat("stream ", i), .steps = 7, .pages = pages, .last_pages = 1 + random() % pages})));
    }
    for (const SessionId session : sessions) world.Advance(session, {}, 1);
    for (int round = 0; round < 60; ++round) {
      world.MakeAll();
      for (const SessionId session : sessions) {
        const World::Client& client = world.client(session);
        if (client.credits > 0) continue;  // waits
        std::vector<LeaseId> release;
        if (client.leases.size() > client.may_keep) release.push_back(client.leases[random() % client.leases.size()]);
        world.Advance(session, release, 1);
      }
    }
    for (const SessionId session : sessions) EXPECT_GT(world.Said(session).size(), 4u);
  }
}

}  // namespace
}  // namespace stoker::schedule::testing
