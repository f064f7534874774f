// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "tests/unit/client/loader_fixture.h"

namespace stoker {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::LoaderFixture;
using testing::StatusIs;

class ReconnectTest : public LoaderFixture {};

// Nothing is read ahead, so the first Next() after the loss cannot be a batch of the lost daemon.
class LostDaemonTest : public ReconnectTest {
 protected:
  LostDaemonTest() { options_.prefetch = 0; }
};

TEST_F(ReconnectTest, AfterALostStream_GoesOnAtTheExactBatch) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (uint64_t epoch = 0; epoch < 4; ++epoch) {
    for (uint64_t step = 0; step < 5; ++step) {
      ASSERT_EQ(NextOf(loader), absl::StrCat(epoch, ":", step));
      daemon_->BreakStreams();
    }
    ASSERT_EQ(NextOf(loader), "end");
  }
  EXPECT_GT(daemon_->sessions_opened(), 4u);
}

TEST_F(ReconnectTest, AfterALostStream_AHeldBatchKnowsWhenItsBytesAreGone) {
  daemon_options_.slots = 1;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  ASSERT_OK_AND_ASSIGN(const std::optional<Batch> held, loader.Next());
  daemon_->BreakStreams();
  ASSERT_TRUE(daemon_->AwaitLeases(0));
  EXPECT_THAT(held->Check(), IsOk());  // the lease is gone, the bytes are still there
  EXPECT_EQ(NextOf(loader), "0:1");    // takes the only memory there is
  EXPECT_THAT(held->Check(), StatusIs(absl::StatusCode::kAborted, HasSubstr("batch 0:0")));
}

TEST_F(LostDaemonTest, AfterTheDaemonWasReplaced_GoesOnAndKeepsHeldBatches) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  ASSERT_OK_AND_ASSIGN(const std::optional<Batch> held, loader.Next());
  EXPECT_EQ(NextOf(loader), "0:1");
  daemon_.reset();
  std::thread restart([&] {
    absl::SleepFor(absl::Milliseconds(150));
    StartDaemon();
  });
  EXPECT_EQ(NextOf(loader), "0:2");
  restart.join();
  EXPECT_EQ(daemon_->last_open().position().step(), 2u);
  EXPECT_EQ(daemon_->last_open().store(), "store-1");
  EXPECT_EQ(Describe(*held), "0:0");
  EXPECT_THAT(held->Check(), IsOk());
}

TEST_F(ReconnectTest, ToADaemonThatIsStarting_WaitsUntilItServes) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  daemon_->SetState(v1::StatusReply::STARTING);
  daemon_->BreakStreams();
  std::thread serve([&] {
    absl::SleepFor(absl::Milliseconds(100));
    daemon_->SetState(v1::StatusReply::SERVING);
  });
  EXPECT_EQ(NextOf(loader), "0:1");
  serve.join();
}

TEST_F(LostDaemonTest, ToAnotherStore_IsRefused) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  daemon_.reset();
  daemon_options_.store = "store-2";
  StartDaemon();
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                      AllOf(HasSubstr("store-2"), HasSubstr("store-1"), HasSubstr("open a new one"))));
}

TEST_F(LostDaemonTest, WithoutADaemon_GivesUpAfterItsPatience_AndTriesAgainWhenAskedAgain) {
  options_.reconnect_timeout = absl::Milliseconds(200);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  daemon_.reset();
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kUnavailable,
                                      AllOf(HasSubstr("read numbers: lost the daemon at"), HasSubstr("Next again"))));
  EXPECT_EQ(Position(loader), "0:1");
  StartDaemon();
  options_.reconnect_timeout = absl::Seconds(20);
  absl::StatusOr<std::optional<Batch>> batch = loader.Next();
  while (absl::IsUnavailable(batch.status())) batch = loader.Next();
  ASSERT_THAT(batch, IsOk());
  EXPECT_EQ(Describe(**batch), "0:1");
}

TEST_F(LostDaemonTest, WithReconnectTimeoutZero_TheLossIsAnErrorAtOnce) {
  options_.reconnect_timeout = absl::ZeroDuration();
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  daemon_.reset();
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(LostDaemonTest, Next_WithATimeout_KeepsItWhileNobodyAnswers) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  daemon_.reset();
  EXPECT_THAT(loader.Next(absl::Milliseconds(50)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("lost the daemon")));
}

TEST_F(LostDaemonTest, Close_WakesANextThatWaitsForADaemon) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  daemon_.reset();
  std::thread closer([&] {
    absl::SleepFor(absl::Milliseconds(50));
    loader.Close();
  });
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kCancelled));
  closer.join();
}

TEST_F(ReconnectTest, Inline_SurvivesLostStreams) {
  options_.transport = Transport::kInline;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (uint64_t step = 0; step < 5; ++step) {
    ASSERT_EQ(NextOf(loader), absl::StrCat("0:", step));
    daemon_->BreakStreams();
  }
}

TEST_F(ReconnectTest, Inline_WhenAnotherDaemonIsAskedForTheBytes_OpensASessionThere) {
  options_.transport = Transport::kInline;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  ASSERT_EQ(NextOf(loader), "0:0");
  daemon_->AnswerFetchAsAnother();
  for (const char* expected : {"0:1", "0:2", "0:3", "0:4", "end", "1:0"}) EXPECT_EQ(NextOf(loader), expected);
  EXPECT_EQ(daemon_->sessions_opened(), 2u);
}

}  // namespace
}  // namespace stoker
