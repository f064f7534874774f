// SPDX-License-Identifier: Apache-2.0
// Sessions: what they get, in which order, and how they end. The judge in World checks the general promises besides.
#include "server/schedule/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"
#include "tests/unit/schedule/world.h"

namespace stoker::schedule::testing {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// ---- delivery ----

TEST(Scheduler, BatchesMadeOutOfOrder_AreDeliveredInOrder) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 5}));
  world.Advance(a, {}, 3);
  const PartId first = world.Take()->id, second = world.Take()->id, third = world.Take()->id;
  world.Finish(third);
  world.Finish(second);
  EXPECT_THAT(world.Said(a), IsEmpty());
  world.Finish(first);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "0:2"));
}

TEST(Scheduler, NoCredits_NothingIsMade) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a"}));
  world.Advance(a, {}, 0);
  EXPECT_EQ(world.MakeAll(), 0);
}

TEST(Scheduler, Credits_BoundWhatIsMadeAndSent) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.Advance(a, {}, 2);
  EXPECT_EQ(world.MakeAll(), 2);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1"));
  world.Advance(a, {}, 1);
  EXPECT_EQ(world.MakeAll(), 1);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "0:2"));
}

TEST(Scheduler, AsManyLeasesAsTheLimit_NothingMoreUntilOneReturns) {
  World world({.lease_limit = 2});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9}));
  world.Advance(a, {}, 5);
  EXPECT_EQ(world.MakeAll(), 2);
  EXPECT_THAT(world.Leases(a), SizeIs(2));
  world.Advance(a, {world.Leases(a)[1]}, 0);
  EXPECT_EQ(world.MakeAll(), 1);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "0:2"));
}

TEST(Scheduler, HugeCredits_AreCapped) {
  World world({.pages = {3}, .lease_limit = 1});
  const SessionId a = world.Open(world.Add({.key = "a"}));
  world.Advance(a, {}, 65536);
  world.Advance(a, {}, 65536);
  EXPECT_EQ(world.Status().sessions(0).credits(), 65536u);
}

TEST(Scheduler, Descriptor_SaysWhereAndWhatTheBatchIs) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .pages = 2}));
  world.Advance(a, {}, 1);
  world.MakeAll();
  // Position, extent, sequence and samples are compared by World as each batch comes.
  EXPECT_THAT(world.Said(a), ElementsAre("0:0"));
}

// ---- epochs ----

TEST(Scheduler, LastBatchOfEpoch_IsFollowedByEndOfEpochAtOnce) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 2}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "end 0"));
}

TEST(Scheduler, CreditsBeyondTheEpoch_GoOnIntoTheNext) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 2}));
  world.Advance(a, {}, 5);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "end 0", "1:0", "1:1", "end 1", "2:0"));
}

TEST(Scheduler, OpenedAtTheEndOfAnEpoch_EndOfEpochComesFirstAndNeedsNoCredit) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 3}), {.position = {4, 3}});
  EXPECT_THAT(world.Said(a), IsEmpty()) << "opening sends nothing";
  world.Advance(a, {}, 0);
  EXPECT_THAT(world.Said(a), ElementsAre("end 4"));
  world.Advance(a, {}, 1);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("end 4", "5:0"));
}

TEST(Scheduler, OpenedInTheMiddle_BeginsThere) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 3}), {.position = {7, 1}});
  world.Advance(a, {}, 2);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("7:1", "7:2", "end 7"));
}

TEST(Scheduler, ShorterLastBatch_IsDeliveredWithItsOwnSize) {
  World world({});
  const SessionId a =
      world.Open(world.Add({.key = "a", .steps = 2, .pages = 4, .samples = 8, .last_pages = 1, .last_samples = 2}));
  world.Advance(a, {}, 3);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "end 0", "1:0"));
  EXPECT_EQ(world.pool().used_bytes(), 9 * kPage);
}

TEST(Scheduler, OneStepAnEpoch_EachBatchIsFollowedByEndOfEpoch) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 1}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "end 0", "1:0", "end 1"));
}

TEST(Scheduler, EndEpoch_NothingIsMadeOrSentFromItOn) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 2}), {.position = {1, 0}, .end_epoch = 2});
  world.Advance(a, {}, 9);
  EXPECT_EQ(world.MakeAll(), 2);
  EXPECT_THAT(world.Said(a), ElementsAre("1:0", "1:1", "end 1"));
  world.ReleaseAll(a, 9);
  EXPECT_EQ(world.MakeAll(), 0);
}

TEST(Scheduler, OpenedAtTheLastEndOfEpoch_GetsThatAlone) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 2}), {.position = {1, 2}, .end_epoch = 2});
  world.Advance(a, {}, 9);
  EXPECT_EQ(world.MakeAll(), 0);
  EXPECT_THAT(world.Said(a), ElementsAre("end 1"));
}

// ---- sharing ----

TEST(Scheduler, TwoSessionsOfOneStream_EachBatchIsMadeOnce) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a", .steps = 4});
  const SessionId a = world.Open(stream), b = world.Open(stream);
  EXPECT_EQ(world.scheduler().StreamOf(a), world.scheduler().StreamOf(b));
  world.Advance(a, {}, 4);
  world.Advance(b, {}, 4);
  EXPECT_EQ(world.MakeAll(), 4);
  EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "0:2", "0:3", "end 0"));
  EXPECT_EQ(world.Said(b), world.Said(a));
}

TEST(Scheduler, EqualPositionsOfTwoStreams_AreTwoBatches) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a"})), b = world.Open(world.Add({.key = "b"}));
  EXPECT_NE(world.scheduler().StreamOf(a), world.scheduler().StreamOf(b));
  world.Advance(a, {}, 1);
  world.Advance(b, {}, 1);
  EXPECT_EQ(world.MakeAll(), 2);
}

TEST(Scheduler, LateJoiner_GetsWhatIsCachedWithoutMaking) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a", .steps = 4});
  const SessionId a = world.Open(stream);
  world.Advance(a, {}, 3);
  world.MakeAll();
  world.ReleaseAll(a, 0);
  const SessionId b = world.Open(stream);
  world.Advance(b, {}, 3);
  EXPECT_THAT(world.Said(b), ElementsAre("0:0", "0:1", "0:2"));
  EXPECT_EQ(world.MakeAll(), 0);
}

TEST(Scheduler, LateJoinerWhileBatchIsMade_WaitsForTheSame) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"});
  const SessionId a = world.Open(stream);
  world.Advance(a, {}, 1);
  const PartId part = world.Take()->id;
  const SessionId b = world.Open(stream);
  world.Advance(b, {}, 1);
  EXPECT_EQ(world.Take(), std::nullopt);
  world.Finish(part);
  EXPECT_THAT(world.Said(b), ElementsAre("0:0"));
}

TEST(Scheduler, StreamWithoutSessions_StaysWhileItsBatchesDo) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"});
  const SessionId a = world.Open(stream);
  world.Advance(a, {}, 1);
  world.MakeAll();
  world.Close(a);
  EXPECT_THAT(world.closed_streams(), IsEmpty());
  const SessionId b = world.Open(stream);
  world.Advance(b, {}, 1);
  EXPECT_THAT(world.Said(b), ElementsAre("0:0"));
}

// ---- stalled clients ----

TEST(Scheduler, StalledClient_DoesNotHoldUpOthersWhenThereIsRoom) {
  World world({.pages = {4}, .lease_limit = 2});
  const StreamSpec stream = world.Add({.key = "a", .steps = 100});
  const SessionId stalled = world.Open(stream), other = world.Open(stream);
  world.Advance(stalled, {}, 64);
  world.MakeAll();
  EXPECT_THAT(world.Leases(stalled), SizeIs(2));
  for (int i = 0; i < 50; ++i) {
    world.ReleaseAll(other, 1);
    world.MakeAll();
  }
  EXPECT_EQ(world.client(other).next, (Position{0, 50}));
  EXPECT_EQ(world.client(stalled).next, (Position{0, 2}));
}

TEST(Scheduler, StalledClientWakes_GoesOnWhereItWas) {
  World world({.pages = {4}, .lease_limit = 1});
  const StreamSpec stream = world.Add({.key = "a", .steps = 100});
  const SessionId stalled = world.Open(stream), other = world.Open(stream);
  world.Advance(stalled, {}, 64);
  for (int i = 0; i < 20; ++i) {
    world.ReleaseAll(other, 1);
    world.MakeAll();
  }
  EXPECT_THAT(world.Said(stalled), ElementsAre("0:0"));
  for (int i = 0; i < 3; ++i) {
    world.ReleaseAll(stalled, 0);
    world.MakeAll();
  }
  EXPECT_THAT(world.Said(stalled), ElementsAre("0:0", "0:1", "0:2", "0:3"));
  EXPECT_EQ(world.TimesMade(stream, {0, 1}), 1) << "it comes to it soon: it was kept";
  EXPECT_EQ(world.TimesMade(stream, {0, 3}), 2) << "room was short: it went, and was made again";
}

TEST(Scheduler, ArenaOfTwoBatches_ClientThatHoldsOneWhileItWaitsGetsAll) {
  World world({.pages = {6}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 5, .pages = 3}));
  world.Advance(a, {}, 4);
  for (uint64_t step = 0; step < 20; ++step) {
    world.MakeAll();
    ASSERT_THAT(world.Leases(a), Not(IsEmpty()));
    while (world.Leases(a).size() > 1) world.Advance(a, {world.Leases(a)[0]}, 1);
  }
  EXPECT_GE(world.client(a).next.epoch, 3u);
}

// ---- opening ----

TEST(Scheduler, BatchLargerThanAnySegment_IsRefused) {
  World world({.pages = {4, 4, 4}});
  EXPECT_THAT(world.TryOpen(world.Add({.key = "a", .pages = 5})),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("20.0 KiB"), HasSubstr("48.0 KiB"), HasSubstr("16.0 KiB"),
                             HasSubstr("smaller batches, or a larger arena"))));
}

TEST(Scheduler, TwoBatchesDoNotFit_IsRefused) {
  World world({.pages = {7}});
  EXPECT_THAT(world.TryOpen(world.Add({.key = "a", .pages = 4})),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("two must fit")));
  EXPECT_EQ(world.Status().streams_size(), 0);
}

TEST(Scheduler, PositionPastTheEpoch_IsRefused) {
  World world({});
  EXPECT_THAT(world.TryOpen(world.Add({.key = "a", .steps = 3}), {.position = {0, 4}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("position.step: 4 is past the 3 steps")));
  EXPECT_EQ(world.Status().streams_size(), 0);
}

TEST(Scheduler, SessionLimit_OneMoreIsRefusedUntilOneCloses) {
  World world({.session_limit = 2});
  const StreamSpec stream = world.Add({.key = "a"});
  const SessionId a = world.Open(stream);
  world.Open(stream);
  EXPECT_THAT(world.TryOpen(stream), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("2 sessions are open")));
  world.Close(a);
  world.Open(stream);
}

// ---- protocol ----

TEST(Scheduler, ReleaseOfAnotherSessionsLease_IsInvalid) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"});
  const SessionId a = world.Open(stream), b = world.Open(stream);
  world.Advance(a, {}, 1);
  world.MakeAll();
  EXPECT_THAT(world.TryAdvance(b, {world.Leases(a)[0]}, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is not held")));
  EXPECT_THAT(world.Leases(a), SizeIs(1));
  EXPECT_EQ(world.Status().arena().extents().leased(), 1u);
}

TEST(Scheduler, ReleaseTwice_IsInvalid) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a"}));
  world.Advance(a, {}, 1);
  world.MakeAll();
  const LeaseId lease = world.Leases(a)[0];
  EXPECT_THAT(world.TryAdvance(a, {lease, lease}, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is not held")));
}

TEST(Scheduler, ReleaseOfAPin_IsInvalid) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a"}));
  world.Advance(a, {}, 1);
  world.MakeAll();
  const LeaseId pin = world.Pin(a, world.Leases(a)[0]);
  EXPECT_THAT(world.TryAdvance(a, {pin}, 0), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is not held")));
  world.Unpin(pin);
}

TEST(Scheduler, LeasesReturnedBeforeAProtocolError_AreRoomForOthers) {
  World world({.pages = {2}, .lease_limit = 2});
  const SessionId a = world.Open(world.Add({.key = "a"})), b = world.Open(world.Add({.key = "b"}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  world.Advance(b, {}, 1);
  EXPECT_EQ(world.MakeAll(), 0);
  EXPECT_THAT(world.TryAdvance(a, {world.Leases(a)[0], 999999}, 0), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(world.MakeAll(), 1);
}

TEST(Scheduler, AdvanceAfterClose_IsIgnored) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a"}));
  world.Close(a);
  EXPECT_OK(world.scheduler().Advance(a, {17}, 1, absl::UnixEpoch()));
  world.Close(a);
  EXPECT_EQ(world.MakeAll(), 0);
}

// ---- closing ----

TEST(Scheduler, Close_ReturnsLeases) {
  World world({.pages = {2}});
  const SessionId a = world.Open(world.Add({.key = "a"})), b = world.Open(world.Add({.key = "b"}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  world.Advance(b, {}, 1);
  EXPECT_EQ(world.MakeAll(), 0);
  world.Close(a);
  EXPECT_EQ(world.MakeAll(), 1);
  EXPECT_THAT(world.Said(b), ElementsAre("0:0"));
}

TEST(Scheduler, CloseWhileBatchWaitsForRoom_TheBatchIsForgotten) {
  World world({.pages = {2}});
  const SessionId a = world.Open(world.Add({.key = "a", .steps = 9})), b = world.Open(world.Add({.key = "b"}));
  world.Advance(a, {}, 2);
  world.MakeAll();
  world.Advance(b, {}, 3);
  EXPECT_EQ(world.Status().arena().extents().planned(), 3u);
  world.Close(b);
  EXPECT_EQ(world.Status().arena().extents().planned(), 0u);
  EXPECT_THAT(world.closed_streams(), ElementsAre("b"));
}

TEST(Scheduler, CloseWhileBatchIsMade_ItIsMadeToTheEndAndKept) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"});
  const SessionId a = world.Open(stream);
  world.Advance(a, {}, 1);
  const PartId part = world.Take()->id;
  world.Close(a);
  world.Finish(part);
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:0"));
}

TEST(Scheduler, Drain_EndsAllWithTheReasonAndOpensNoMore) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"});
  const SessionId a = world.Open(stream), b = world.Open(stream);
  world.Advance(a, {}, 2);
  world.Advance(b, {}, 1);
  world.MakeAll();
  world.Advance(a, {}, 1);
  world.Take();
  world.Drain(absl::UnavailableError("the daemon is stopping"));
  EXPECT_THAT(world.Ended(a), StatusIs(absl::StatusCode::kUnavailable, "the daemon is stopping"));
  EXPECT_THAT(world.Ended(b), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(world.TryOpen(stream), StatusIs(absl::StatusCode::kUnavailable, "the daemon is stopping"));
  EXPECT_EQ(world.MakeAll(), 1) << "what a worker has begun is answered";
  EXPECT_EQ(world.Status().arena().extents().leased(), 0u);
}

TEST(Scheduler, DrainWithSessionsThatWait_MakesNothingMore) {
  World world({.pages = {2}});
  const SessionId a = world.Open(world.Add({.key = "a"}));
  const SessionId b = world.Open(world.Add({.key = "b"}));
  const SessionId c = world.Open(world.Add({.key = "c"}));
  for (const SessionId id : {a, b, c}) world.Advance(id, {}, 2);
  world.MakeAll();
  world.Drain(absl::UnavailableError("stopping"));
  EXPECT_EQ(world.Take(), std::nullopt);
}

// ---- pins ----

TEST(Scheduler, Pin_OutlivesTheSession) {
  World world({.pages = {2}});
  const SessionId a = world.Open(world.Add({.key = "a"})), b = world.Open(world.Add({.key = "b"}));
  world.Advance(a, {}, 1);
  world.MakeAll();
  const LeaseId pin = world.Pin(a, world.Leases(a)[0]);
  world.Close(a);
  world.Advance(b, {}, 3);
  world.MakeAll();
  EXPECT_THAT(world.Said(b), ElementsAre("0:0"));
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:0", "b 0:0"));
  world.Unpin(pin);
  world.MakeAll();
  EXPECT_THAT(world.Said(b), ElementsAre("0:0", "0:1"));
  EXPECT_THAT(world.closed_streams(), ElementsAre("a"));
}

TEST(Scheduler, PinOfALeaseThatIsNotHeld_IsAborted) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"});
  const SessionId a = world.Open(stream), b = world.Open(stream);
  world.Advance(a, {}, 1);
  world.MakeAll();
  const LeaseId lease = world.Leases(a)[0];
  EXPECT_THAT(world.scheduler().Pin(b, lease, absl::UnixEpoch()),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("does not hold lease")));
  world.ReleaseAll(a, 0);
  EXPECT_THAT(world.scheduler().Pin(a, lease, absl::UnixEpoch()), StatusIs(absl::StatusCode::kAborted));
}

TEST(Scheduler, PinOfAPin_IsAborted) {
  World world({});
  const SessionId a = world.Open(world.Add({.key = "a"}));
  world.Advance(a, {}, 1);
  world.MakeAll();
  const LeaseId pin = world.Pin(a, world.Leases(a)[0]);
  EXPECT_THAT(world.scheduler().Pin(a, pin, absl::UnixEpoch()), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(world.scheduler().Pin(0, pin, absl::UnixEpoch()), StatusIs(absl::StatusCode::kAborted));
  world.Unpin(pin);
}

// ---- data sets ----

TEST(Scheduler, InUse_AsLongAsASessionIsOpen) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"});
  EXPECT_FALSE(world.scheduler().InUse(stream.store));
  const SessionId a = world.Open(stream);
  EXPECT_TRUE(world.scheduler().InUse(stream.store));
  EXPECT_FALSE(world.scheduler().InUse("store of another"));
  world.Advance(a, {}, 1);
  world.MakeAll();
  world.Close(a);
  EXPECT_FALSE(world.scheduler().InUse(stream.store));
}

TEST(Scheduler, Forget_DropsWhatIsCachedOfThatStoreAlone) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"}), kept = world.Add({.key = "b"});
  const SessionId a = world.Open(stream), b = world.Open(kept);
  world.Advance(a, {}, 3);
  world.Advance(b, {}, 1);
  world.MakeAll();
  world.Close(a);
  world.Close(b);
  world.Forget(stream);
  EXPECT_THAT(world.Cached(), ElementsAre("b 0:0"));
  EXPECT_THAT(world.closed_streams(), ElementsAre("a"));
}

TEST(Scheduler, ForgetWhileABatchIsMade_NothingOfItStays) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"});
  const SessionId a = world.Open(stream);
  world.Advance(a, {}, 2);
  const PartId part = world.Take()->id;
  world.Close(a);
  world.Forget(stream);
  world.Finish(part);
  world.MakeAll();
  EXPECT_THAT(world.Cached(), IsEmpty());
  EXPECT_THAT(world.closed_streams(), ElementsAre("a"));
}

TEST(Scheduler, ForgetWhileABatchIsPinned_NothingOfItStaysAfterUnpin) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"});
  const SessionId a = world.Open(stream);
  world.Advance(a, {}, 1);
  world.MakeAll();
  const LeaseId pin = world.Pin(a, world.Leases(a)[0]);
  world.Close(a);
  world.Forget(stream);
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:0"));
  world.Unpin(pin);
  EXPECT_THAT(world.Cached(), IsEmpty());
  EXPECT_THAT(world.closed_streams(), ElementsAre("a"));
}

TEST(Scheduler, ForgottenStreamIsOpenedAgain_ItIsKeptAgain) {
  World world({});
  const StreamSpec stream = world.Add({.key = "a"});
  const SessionId a = world.Open(stream);
  world.Advance(a, {}, 1);
  const PartId part = world.Take()->id;
  world.Close(a);
  world.Forget(stream);
  const SessionId b = world.Open(stream);
  world.Advance(b, {}, 1);
  world.Finish(part);
  world.Close(b);
  EXPECT_THAT(world.Cached(), ElementsAre("a 0:0"));
}

}  // namespace
}  // namespace stoker::schedule::testing
