// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/schedule/world.h"

namespace stoker::schedule::testing {
namespace {

TEST(FillStatus, NothingOpen_IsAllZero) {
  const v1::StatusReply status = World({}).Status();
  EXPECT_EQ(status.streams_size(), 0);
  EXPECT_EQ(status.sessions_size(), 0);
  EXPECT_EQ(status.arena().extents().planned(), 0u);
}

TEST(FillStatus, BatchesInEveryState_AreCounted) {
  World world({.pages = {4}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  world.Advance(a, {world.Leases(a)[0]}, 0);  // one is sealed, one is leased
  const SessionId b = world.Open(world.Add({.key = "b", .steps = 9}));
  world.Advance(b, {}, 2);
  world.Take();
  world.Advance(b, {}, 3);
  const v1::StatusReply::Extents extents = world.Status().arena().extents();
  EXPECT_EQ(extents.leased(), 1u);
  EXPECT_EQ(extents.making(), 3u);
  EXPECT_EQ(extents.sealed(), 0u) << "it made room for the third of b";
  EXPECT_EQ(extents.planned(), 2u);
  EXPECT_EQ(world.Status().arena().evictions(), 1u);
}

TEST(FillStatus, Session_SaysWhatItHoldsAndForHowLong) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9});
  const SessionId a = world.Open(stream, {.position = {2, 1}, .pid = 4711, .host = "node7"});
  world.Advance(a, {}, 1);
  world.MakeAll();
  world.Pass(absl::Seconds(5));
  world.Advance(a, {}, 3);
  world.MakeOne();
  world.Pass(absl::Seconds(2));
  const v1::StatusReply::Session session = world.Status().sessions(0);
  EXPECT_EQ(session.id(), a);
  EXPECT_EQ(session.pid(), 4711);
  EXPECT_EQ(session.host(), "node7");
  EXPECT_EQ(session.stream(), world.scheduler().StreamOf(a));
  EXPECT_EQ(session.leases(), 2u);
  EXPECT_EQ(session.credits(), 2u);
  EXPECT_EQ(session.position().epoch(), 2u);
  EXPECT_EQ(session.position().step(), 3u);
  EXPECT_DOUBLE_EQ(session.oldest_lease_seconds(), 7);
  EXPECT_DOUBLE_EQ(session.age_seconds(), 7);
  EXPECT_TRUE(session.waiting());
  EXPECT_EQ(session.batches_delivered(), 2u);
}

TEST(FillStatus, Stream_SaysWhatWasMadeAndDelivered) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a", .steps = 9, .pages = 2});
  const SessionId a = world.Open(stream), b = world.Open(stream);
  world.Advance(a, {}, 3);
  world.Advance(b, {}, 2);
  world.MakeAll();
  const v1::StatusReply status = world.Status();
  ASSERT_EQ(status.streams_size(), 1);
  EXPECT_EQ(status.streams(0).dataset(), "a");
  EXPECT_EQ(status.streams(0).clients(), 2u);
  EXPECT_EQ(status.streams(0).batches_made(), 3u);
  EXPECT_EQ(status.streams(0).batches_delivered(), 5u);
  EXPECT_EQ(status.streams(0).batch_bytes(), 2 * kPage);
  EXPECT_EQ(status.streams(0).steps_per_epoch(), 9u);
  ASSERT_EQ(status.sessions_size(), 2);
  EXPECT_LT(status.sessions(0).id(), status.sessions(1).id());
  EXPECT_FALSE(status.sessions(0).waiting());
}

}  // namespace
}  // namespace stoker::schedule::testing
