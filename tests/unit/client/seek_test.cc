// SPDX-License-Identifier: Apache-2.0
// Moving a loader within its session.
#include <functional>
#include <thread>

#include "absl/strings/str_replace.h"
#include "tests/unit/client/loader_fixture.h"

namespace stoker {
namespace {

using testing::FakeDaemon;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::LoaderFixture;
using testing::StatusIs;

class SeekTest : public LoaderFixture {
 protected:
  SeekTest() { options_.prefetch = 4; }

  static Batch Take(Loader& loader) { return *loader.Next(absl::Seconds(20)).value(); }

  static bool Eventually(const std::function<bool()>& condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!condition() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
    return condition();
  }
  // A loader whose session does not get an answer to its Open.
  absl::StatusOr<Loader> OpenThenReconnectInVain() {
    absl::StatusOr<Loader> loader = Open();
    if (!loader.ok()) return loader;
    daemon_->SetDeaf(true);
    daemon_->BreakStreams();
    absl::Status status;  // batches may be there already
    while (status.ok()) status = loader->Next(absl::Milliseconds(50)).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded));
    return loader;
  }
};

TEST_F(SeekTest, SetEpoch_WithBatchesQueued_GoesOnInTheSameSessionAndLeasesAreBack) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  ASSERT_TRUE(daemon_->AwaitLeases(4));
  ASSERT_THAT(loader.SetEpoch(3), IsOk());
  for (const char* expected : {"3:0", "3:1", "3:2", "3:3", "3:4", "end", "4:0"}) EXPECT_EQ(NextOf(loader), expected);
  EXPECT_TRUE(daemon_->AwaitLeases(4));
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
  EXPECT_EQ(daemon_->seeks(), 1u);
}

TEST_F(SeekTest, SetEpoch_OverAndOver_EndsAtTheLastAndLosesNoLease) {
  daemon_options_.stale = 3;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (uint64_t round = 1; round <= 300; ++round) {
    ASSERT_THAT(loader.SetEpoch(2 * round), IsOk());
    EXPECT_EQ(Position(loader), absl::StrCat(2 * round, ":0"));
    EXPECT_EQ(loader.steps_per_epoch(), 5u);
    for (uint64_t step = 0; step < round % 4; ++step) ASSERT_EQ(NextOf(loader), absl::StrCat(2 * round, ":", step));
  }
  ASSERT_THAT(loader.SetEpoch(1), IsOk());
  EXPECT_EQ(NextOf(loader), "1:0");
  EXPECT_TRUE(daemon_->AwaitLeases(4));
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
}

// What the daemon had sent before it heard: batches, and the end of an epoch.
TEST_F(SeekTest, WhatComesBeforeSought_IsGivenBackUnread) {
  daemon_options_.stale = 7;
  daemon_options_.lease_limit = 16;
  for (const Transport transport : {Transport::kShm, Transport::kInline}) {
    options_.transport = transport;
    ASSERT_OK_AND_ASSIGN(Loader loader, Open());
    ASSERT_THAT(loader.SetEpoch(8), IsOk());
    for (const char* expected : {"8:0", "8:1"}) EXPECT_EQ(NextOf(loader), expected);
    loader.Close();
    EXPECT_TRUE(daemon_->AwaitLeases(0));
  }
  EXPECT_LE(daemon_->fetches(), 4 + 2 + 4u);  // those of before the Seek and of the new place
}

TEST_F(SeekTest, HeldBatches_StayLeasedOverManySeeks) {
  daemon_options_.slots = 7;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  std::vector<Batch> held;
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    ASSERT_THAT(loader.SetEpoch(epoch), IsOk());
    held.push_back(Take(loader));
  }
  for (uint64_t epoch = 10; epoch < 50; ++epoch) {
    ASSERT_THAT(loader.SetEpoch(epoch), IsOk());
    ASSERT_EQ(NextOf(loader), absl::StrCat(epoch, ":0"));
  }
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_THAT(held[i].Check(), IsOk());
    EXPECT_EQ(Describe(held[i]), absl::StrCat(i + 1, ":0"));
  }
  held.clear();
  loader.Close();
  EXPECT_TRUE(daemon_->AwaitLeases(0));
}

TEST_F(SeekTest, WithAllLeasesHeld_NextSaysSo_UntilOneIsLetGo) {
  daemon_options_.lease_limit = 2;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  Batch first = Take(loader);
  const Batch second = Take(loader);
  ASSERT_THAT(loader.SetEpoch(6), IsOk());
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("a session may hold 2")));
  first = Batch();
  EXPECT_EQ(NextOf(loader), "6:0");
  EXPECT_EQ(Describe(second), "0:1");
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
}

TEST_F(SeekTest, WithoutPrefetch_BringsTheBatchThatNextWaitsFor) {
  options_.prefetch = 0;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  ASSERT_THAT(loader.SetEpoch(6), IsOk());
  for (const char* expected : {"6:0", "6:1"}) EXPECT_EQ(NextOf(loader), expected);
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
}

TEST_F(SeekTest, LoadState_GoesToItsStep_AlsoAtTheEndOfAnEpoch) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (const char* expected : {"0:0", "0:1"}) EXPECT_EQ(NextOf(loader), expected);
  const std::string middle = loader.SaveState();
  for (const char* expected : {"0:2", "0:3", "0:4"}) EXPECT_EQ(NextOf(loader), expected);
  const std::string end = loader.SaveState();
  for (int round = 0; round < 3; ++round) {
    ASSERT_THAT(loader.LoadState(middle), IsOk());
    EXPECT_EQ(NextOf(loader), "0:2");
    ASSERT_THAT(loader.LoadState(end), IsOk());
    for (const char* expected : {"end", "1:0"}) EXPECT_EQ(NextOf(loader), expected);
  }
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
}

TEST_F(SeekTest, SeveralBeforeTheFirstIsAnswered_EndAtTheLast) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  ASSERT_TRUE(daemon_->AwaitLeases(4));
  daemon_->SetDeaf(true);
  for (uint64_t epoch = 1; epoch <= 20; ++epoch) ASSERT_THAT(loader.SetEpoch(epoch), IsOk());
  EXPECT_THAT(loader.Next(absl::Milliseconds(20)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  daemon_->SetDeaf(false);
  for (const char* expected : {"20:0", "20:1"}) EXPECT_EQ(NextOf(loader), expected);
  EXPECT_EQ(daemon_->seeks(), 20u);
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
}

TEST_F(SeekTest, BeforeTheSessionIsOpen_GoesThereOnceItIs) {
  ASSERT_OK_AND_ASSIGN(Loader loader, OpenThenReconnectInVain());
  for (const uint64_t epoch : {7, 8}) ASSERT_THAT(loader.SetEpoch(epoch), IsOk());
  daemon_->SetDeaf(false);
  EXPECT_EQ(NextOf(loader), "8:0");
  EXPECT_EQ(daemon_->seeks(), 1u);
}

TEST_F(SeekTest, Close_BeforeItIsAnswered_ReturnsAllLeases) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  Batch held = Take(loader);
  daemon_->SetDeaf(true);
  ASSERT_THAT(loader.SetEpoch(5), IsOk());
  loader.Close();
  daemon_->SetDeaf(false);
  EXPECT_TRUE(daemon_->AwaitLeases(1));
  EXPECT_EQ(Describe(held), "0:0");
  held = Batch();
  EXPECT_TRUE(daemon_->AwaitLeases(0));
}

TEST_F(SeekTest, AFailureOfThePlaceBefore_DoesNotFailTheNewOne) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  daemon_->FaultSeek(FakeDaemon::SeekFault::kFails);
  ASSERT_THAT(loader.SetEpoch(3), IsOk());
  for (const char* expected : {"3:0", "3:1"}) EXPECT_EQ(NextOf(loader), expected);
  EXPECT_EQ(daemon_->sessions_opened(), 2u);
}

TEST_F(SeekTest, ALossBeforeItIsAnswered_GoesOnAtTheNewPlace) {
  options_.reconnect_timeout = absl::ZeroDuration();  // as for who opens there anew, a daemon that is there is no loss
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  daemon_->FaultSeek(FakeDaemon::SeekFault::kBreaks);
  ASSERT_THAT(loader.SetEpoch(3), IsOk());
  for (const char* expected : {"3:0", "3:1"}) EXPECT_EQ(NextOf(loader), expected);
}

TEST_F(SeekTest, AfterTheSessionFailed_OpensAnother) {
  StartDaemon();
  daemon_->FailStep(1, grpc::StatusCode::DATA_LOSS, "shard 3: cut short");
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kDataLoss));
  ASSERT_THAT(loader.SetEpoch(2), IsOk());
  EXPECT_EQ(NextOf(loader), "2:0");
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("shard 3")));
  EXPECT_EQ(Position(loader), "2:1");
}

TEST_F(SeekTest, Inline_CancelsTheFetchOfTheBatchBefore) {
  options_.transport = Transport::kInline;
  StartDaemon();
  daemon_->SetFetchStalled(true);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  ASSERT_TRUE(Eventually([&] { return daemon_->fetches() == 1; }));
  ASSERT_THAT(loader.SetEpoch(3), IsOk());
  EXPECT_TRUE(Eventually([&] { return daemon_->fetches_cancelled() == 1; }));
  daemon_->SetFetchStalled(false);
  for (const char* expected : {"3:0", "3:1"}) EXPECT_EQ(NextOf(loader), expected);
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
  loader.Close();
  EXPECT_TRUE(daemon_->AwaitLeases(0));
}

// ---- giving back ----

TEST_F(SeekTest, WhenNobodyAsks_WhatWasReadAheadIsGivenBack_AndIsThereAgain) {
  options_.give_back_after = absl::Milliseconds(20);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (int round = 0; round < 2; ++round) {
    const std::string epoch = absl::StrCat(round, ":");
    {
      const Batch held = Take(loader);
      EXPECT_EQ(Describe(held), epoch + "0");
      EXPECT_TRUE(daemon_->AwaitLeases(1));
      EXPECT_THAT(held.Check(), IsOk());
    }
    for (const char* step : {"1", "2", "3"}) EXPECT_EQ(NextOf(loader), epoch + step);
    EXPECT_TRUE(daemon_->AwaitLeases(0)) << "the last batch of an epoch and the first of the next were read ahead";
    EXPECT_EQ(NextOf(loader), epoch + "4");
    EXPECT_TRUE(daemon_->AwaitLeases(0)) << "at the end of an epoch";
    EXPECT_EQ(NextOf(loader), "end");
  }
  EXPECT_EQ(Position(loader), "2:0");
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
  EXPECT_GE(daemon_->seeks(), 6u);
}

TEST_F(SeekTest, WhenOthersWantRoom_WhatWasReadAheadIsGivenBackSoon) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  EXPECT_EQ(NextOf(loader), "0:1");
  absl::SleepFor(absl::Milliseconds(200));
  EXPECT_EQ(daemon_->seeks(), 0u);
  const absl::Time told = absl::Now();
  daemon_->TellRoomIsWanted();
  EXPECT_TRUE(daemon_->AwaitLeases(0));
  EXPECT_LT(absl::Now() - told, absl::Seconds(3));  // 5 s without
  EXPECT_EQ(daemon_->seeks(), 1u);
  EXPECT_EQ(NextOf(loader), "0:2");
  EXPECT_TRUE(daemon_->AwaitLeases(0)) << "from then on";
  EXPECT_EQ(daemon_->seeks(), 2u);
}

// Who takes his time for each batch is not done with it.
TEST_F(SeekTest, WhenOthersWantRoom_WhoPausesAsUsualKeepsWhatWasReadAhead) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  for (const char* expected : {"0:1", "0:2"}) {
    absl::SleepFor(absl::Milliseconds(250));
    EXPECT_EQ(NextOf(loader), expected);
  }
  daemon_->TellRoomIsWanted();
  absl::SleepFor(absl::Milliseconds(120));  // more than the least, far less than twice the pause
  EXPECT_EQ(NextOf(loader), "0:3");
  EXPECT_EQ(daemon_->seeks(), 0u);
}

TEST_F(SeekTest, BatchThatIsBeingMade_IsNotGivenBack) {
  options_.give_back_after = absl::Milliseconds(20);
  StartDaemon();
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");  // from now on they are announced
  daemon_->SetMaking(true);
  ASSERT_TRUE(Eventually([&] {
    (void)loader.Next(absl::ZeroDuration());
    return daemon_->announced() > 0;
  }));
  const uint64_t seeks = daemon_->seeks();
  absl::SleepFor(absl::Milliseconds(100));  // several times as long
  EXPECT_EQ(daemon_->seeks(), seeks);
  daemon_->SetMaking(false);
  daemon_->Seal();
  loader.Close();
  EXPECT_TRUE(daemon_->AwaitLeases(0));
}

TEST_F(SeekTest, GivingBackAtOnce_IsRefused) {
  options_.give_back_after = absl::ZeroDuration();
  EXPECT_THAT(Open(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("give_back_after 0: must be at least 10ms")));
}

// ---- with a budget ----

class BudgetSeekTest : public SeekTest {
 protected:
  BudgetSeekTest() {
    daemon_options_.growing = true;
    options_.plan.mutable_budget()->set_nodes(10);
  }
};

TEST_F(BudgetSeekTest, StepsPerEpoch_AreThoseOfTheNewPlace) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (const uint64_t epoch : {7, 2, 9}) {
    ASSERT_THAT(loader.SetEpoch(epoch), IsOk());
    EXPECT_EQ(loader.steps_per_epoch(), 5 + epoch);
    EXPECT_EQ(NextOf(loader), absl::StrCat(epoch, ":0"));
  }
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
}

TEST_F(BudgetSeekTest, APlaceThatThereIsNot_LeavesThePositionAndHeldBatches) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  const Batch held = Take(loader);
  for (const char* epoch : {"\"epoch\":0", "\"epoch\":3"}) {
    const std::string state =
        absl::StrReplaceAll(loader.SaveState(), {{"\"epoch\":0", epoch}, {"\"step\":1", "\"step\":9"}});
    EXPECT_THAT(loader.LoadState(state), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no such step")));
    EXPECT_EQ(Position(loader), "0:1");
    EXPECT_EQ(loader.steps_per_epoch(), 5u);
  }
  EXPECT_THAT(held.Check(), IsOk());
  EXPECT_TRUE(daemon_->AwaitLeases(1));
  EXPECT_EQ(NextOf(loader), "0:1");
}

TEST_F(BudgetSeekTest, WhenTheDaemonDoesNotAnswer_FailsAndLeavesThePosition) {
  options_.open_timeout = absl::Milliseconds(100);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  daemon_->SetDeaf(true);
  EXPECT_THAT(loader.SetEpoch(4), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(Position(loader), "0:1");
  EXPECT_EQ(loader.steps_per_epoch(), 5u);
  daemon_->SetDeaf(false);
  EXPECT_EQ(NextOf(loader), "0:1");
}

TEST_F(BudgetSeekTest, AFailureOrALossBeforeItIsAnswered_AsksInAnotherSession) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  uint64_t epoch = 1;
  for (const auto fault : {FakeDaemon::SeekFault::kFails, FakeDaemon::SeekFault::kBreaks}) {
    daemon_->FaultSeek(fault);
    ASSERT_THAT(loader.SetEpoch(++epoch), IsOk());
    EXPECT_EQ(loader.steps_per_epoch(), 5 + epoch);
    EXPECT_EQ(NextOf(loader), absl::StrCat(epoch, ":0"));
    EXPECT_EQ(daemon_->sessions_opened(), epoch);
  }
}

TEST_F(BudgetSeekTest, WhenNobodyAsks_WhatWasReadAheadIsGivenBack_AndIsThereAgain) {
  options_.give_back_after = absl::Milliseconds(20);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (const char* expected : {"0:0", "0:1", "0:2", "0:3", "0:4", "end", "1:0"}) {
    EXPECT_EQ(NextOf(loader), expected);
    EXPECT_TRUE(daemon_->AwaitLeases(0));
  }
  EXPECT_EQ(loader.steps_per_epoch(), 6u);
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
}

TEST_F(BudgetSeekTest, WhileTheDaemonIsAway_WaitsForTheNextOne) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  daemon_.reset();
  std::thread starter([this] {
    absl::SleepFor(absl::Milliseconds(200));
    StartDaemon();
  });
  const absl::Status moved = loader.SetEpoch(4);
  starter.join();
  ASSERT_THAT(moved, IsOk());
  EXPECT_EQ(loader.steps_per_epoch(), 9u);
  EXPECT_EQ(NextOf(loader), "4:0");
}

TEST_F(BudgetSeekTest, WhenNoOtherDaemonComes_IsUnavailableAndLeavesThePosition) {
  options_.reconnect_timeout = absl::Milliseconds(200);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  daemon_.reset();
  EXPECT_THAT(loader.SetEpoch(4), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("lost the daemon")));
  EXPECT_EQ(Position(loader), "0:1");
  EXPECT_EQ(loader.steps_per_epoch(), 5u);
  StartDaemon();
  EXPECT_EQ(NextOf(loader), "0:1");
}

}  // namespace
}  // namespace stoker
