// SPDX-License-Identifier: Apache-2.0
#include "stoker/loader.h"

#include <thread>

#include "absl/strings/str_replace.h"
#include "tests/unit/client/loader_fixture.h"

namespace stoker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::LoaderFixture;
using testing::StatusIs;

class LoaderTest : public LoaderFixture {};

TEST_F(LoaderTest, Next_YieldsEveryBatchInOrderAndEndsEachEpochOnce) {
  daemon_options_.steps = 3;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(loader.steps_per_epoch(), 3u);
  for (const char* expected : {"0:0", "0:1", "0:2", "end", "1:0", "1:1", "1:2", "end", "2:0"}) {
    EXPECT_EQ(NextOf(loader), expected);
  }
  EXPECT_EQ(loader.transport(), "shm");
  EXPECT_EQ(loader.notice(), "");
}

TEST_F(LoaderTest, Next_AfterTheLastEpoch_IsOutOfRange) {
  daemon_options_.steps = 2;
  options_.epochs = 2;
  options_.start.set_epoch(3);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (const char* expected : {"3:0", "3:1", "end", "4:0", "4:1", "end"}) EXPECT_EQ(NextOf(loader), expected);
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("all 2 epochs of numbers")));
  EXPECT_THAT(loader.SetEpoch(5), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(daemon_->sent(), ElementsAre("3:0", "3:1", "4:0", "4:1"));  // nothing is made for nobody
  EXPECT_THAT(loader.SetEpoch(4), IsOk());
  EXPECT_EQ(NextOf(loader), "4:0");
}

TEST_F(LoaderTest, StepsPerEpoch_WithABudget_AreThoseOfEachEpoch) {
  daemon_options_.steps = 1;
  daemon_options_.growing = true;
  options_.plan.mutable_budget()->set_nodes(10);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(loader.steps_per_epoch(), 1u);
  for (const char* expected : {"0:0", "end", "1:0", "1:1"}) EXPECT_EQ(NextOf(loader), expected);
  EXPECT_EQ(loader.steps_per_epoch(), 2u);
  const std::string state = loader.SaveState();
  EXPECT_EQ(NextOf(loader), "end");
  EXPECT_EQ(loader.steps_per_epoch(), 3u);
  EXPECT_THAT(loader.SetEpoch(4), IsOk());
  EXPECT_EQ(loader.steps_per_epoch(), 5u);
  EXPECT_EQ(NextOf(loader), "4:0");
  EXPECT_THAT(loader.LoadState(state), IsOk());
  EXPECT_EQ(loader.steps_per_epoch(), 2u);
  EXPECT_EQ(NextOf(loader), "end");
}

TEST_F(LoaderTest, LoadState_OfAStepThatABudgetDoesNotHave_LeavesThePosition) {
  daemon_options_.steps = 2;
  options_.plan.mutable_budget()->set_nodes(10);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  const std::string state = absl::StrReplaceAll(loader.SaveState(), {{"\"step\":1", "\"step\":9"}});
  EXPECT_THAT(loader.LoadState(state), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no such step")));
  EXPECT_EQ(NextOf(loader), "0:1");
}

TEST_F(LoaderTest, Pause_EndsTheSessionUntilTheNextBatch) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  EXPECT_EQ(Loader::OpenSessions(), 1u);
  EXPECT_TRUE(loader.Pause());
  EXPECT_EQ(Loader::OpenSessions(), 0u);
  EXPECT_TRUE(loader.Pause());
  EXPECT_EQ(NextOf(loader), "0:1");
  EXPECT_EQ(daemon_->sessions_opened(), 2u);
}

TEST_F(LoaderTest, Pause_WhileABatchIsHeld_DoesNothing) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  ASSERT_OK_AND_ASSIGN(std::optional<Batch> held, loader.Next());
  EXPECT_FALSE(loader.Pause());
  EXPECT_EQ(Describe(*held), "0:0");
  loader.Close();
  EXPECT_EQ(Loader::OpenSessions(), 1u);
  held.reset();
  EXPECT_EQ(Loader::OpenSessions(), 0u);
}

TEST_F(LoaderTest, Info_HasWhatTheDaemonSaid) {
  ASSERT_OK_AND_ASSIGN(const Loader loader, Open());
  EXPECT_EQ(loader.info().samples(), 20u);
  EXPECT_EQ(loader.info().recipe_digest(), "00112233aabbccdd");
  EXPECT_THAT(loader.classes(), ElementsAre("even", "odd"));
  EXPECT_EQ(daemon_->last_open().pid(), ::getpid());
}

TEST_F(LoaderTest, Position_CountsWhatWasYieldedNotWhatWasPrefetched) {
  daemon_options_.steps = 2;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(Position(loader), "0:0");
  ASSERT_TRUE(daemon_->AwaitLeases(4));  // prefetched
  EXPECT_EQ(Position(loader), "0:0");
  EXPECT_EQ(NextOf(loader), "0:0");
  EXPECT_EQ(Position(loader), "0:1");
  EXPECT_EQ(NextOf(loader), "0:1");
  EXPECT_EQ(Position(loader), "0:2");
  EXPECT_EQ(NextOf(loader), "end");
  EXPECT_EQ(Position(loader), "1:0");
}

TEST_F(LoaderTest, Open_StartsAnywhere_AlsoAtTheEndOfAnEpoch) {
  options_.start.set_epoch(2);
  options_.start.set_step(3);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (const char* expected : {"2:3", "2:4", "end", "3:0"}) EXPECT_EQ(NextOf(loader), expected);
  options_.start.set_step(5);
  ASSERT_OK_AND_ASSIGN(Loader at_end, Open());
  for (const char* expected : {"end", "3:0"}) EXPECT_EQ(NextOf(at_end), expected);
}

TEST_F(LoaderTest, Open_PassesTheDaemonsRefusalThrough) {
  options_.dataset = "letters";
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("data set \"letters\": there is none")));
}

TEST_F(LoaderTest, Open_WithAnImpossiblePrefetch_IsInvalid) {
  options_.prefetch = -2;
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("prefetch -2")));
}

TEST_F(LoaderTest, SetEpoch_MovesToItsStart) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_THAT(loader.SetEpoch(0), IsOk());
  EXPECT_EQ(NextOf(loader), "0:0");
  EXPECT_THAT(loader.SetEpoch(7), IsOk());
  EXPECT_EQ(Position(loader), "7:0");
  EXPECT_EQ(NextOf(loader), "7:0");
  EXPECT_THAT(loader.SetEpoch(7), IsOk());
  EXPECT_EQ(NextOf(loader), "7:0");
}

TEST_F(LoaderTest, SetEpoch_ToTheOneThatFollowsAnyway_KeepsTheSession) {
  daemon_options_.steps = 1;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    EXPECT_THAT(loader.SetEpoch(epoch), IsOk());
    EXPECT_EQ(NextOf(loader), absl::StrCat(epoch, ":0"));
    EXPECT_EQ(NextOf(loader), "end");
  }
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
}

TEST_F(LoaderTest, SaveState_ThenLoadState_GoesOnAtTheSameBatch_AtEveryStep) {
  daemon_options_.steps = 3;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  std::vector<std::string> states = {loader.SaveState()};
  std::vector<std::string> yielded;
  for (int i = 0; i < 8; ++i) {
    yielded.push_back(NextOf(loader));
    states.push_back(loader.SaveState());
  }
  for (size_t i = 0; i < yielded.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(Loader resumed, Open());
    ASSERT_THAT(resumed.LoadState(states[i]), IsOk());
    ASSERT_THAT(resumed.LoadState(resumed.SaveState()), IsOk());  // twice in a row is once
    for (size_t j = i; j < yielded.size(); ++j) EXPECT_EQ(NextOf(resumed), yielded[j]) << "from state " << i;
  }
}

TEST_F(LoaderTest, LoadState_OfAnotherConfiguration_IsRefusedAndChangesNothing) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_EQ(NextOf(loader), "0:0");
  const std::string state = loader.SaveState();
  options_.plan.set_batch_size(2 * testing::kRows);
  ASSERT_OK_AND_ASSIGN(Loader other, Open());
  EXPECT_THAT(other.LoadState(state),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("batch size times world")));
  EXPECT_THAT(other.LoadState("no state"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(Position(other), "0:0");
}

TEST_F(LoaderTest, Next_WhenNothingIsReady_EndsAtItsTimeoutAndCanBeCalledAgain) {
  StartDaemon();
  daemon_->SetPaused(true);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_THAT(loader.Next(absl::Milliseconds(30)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(loader.Next(absl::ZeroDuration()), StatusIs(absl::StatusCode::kDeadlineExceeded));
  daemon_->SetPaused(false);
  EXPECT_EQ(NextOf(loader), "0:0");
}

TEST_F(LoaderTest, Close_WakesANextThatWaits) {
  StartDaemon();
  daemon_->SetPaused(true);
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  std::thread closer([&] {
    absl::SleepFor(absl::Milliseconds(20));
    loader.Close();
  });
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kCancelled, HasSubstr("closed")));
  closer.join();
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kCancelled));
  loader.Close();
}

TEST_F(LoaderTest, Next_AtABatchThatCannotBeMade_FailsThereAndNotBefore) {
  StartDaemon();
  daemon_->FailStep(3, grpc::StatusCode::INVALID_ARGUMENT, "walks.csv:17: value 2 is not in [-1, 1]");
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());  // prefetches up to the failure
  for (const char* expected : {"0:0", "0:1", "0:2"}) EXPECT_EQ(NextOf(loader), expected);
  for (int again = 0; again < 2; ++again) {
    EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("walks.csv:17")));
    EXPECT_EQ(Position(loader), "0:3");
  }
}

TEST_F(LoaderTest, Inline_YieldsTheSameBatches) {
  options_.transport = Transport::kInline;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  std::vector<Batch> held;
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, loader.Next());
    held.push_back(*batch);
  }
  EXPECT_EQ(NextOf(loader), "end");
  EXPECT_EQ(NextOf(loader), "1:0");
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Describe(held[i]), absl::StrCat("0:", i));
    EXPECT_TRUE(held[i].inline_memory());
    EXPECT_THAT(held[i].Check(), IsOk());
  }
  EXPECT_EQ(loader.transport(), "inline");
  EXPECT_EQ(loader.notice(), "");  // it was asked for
}

TEST_F(LoaderTest, Auto_WhereNothingCanBeMapped_GoesInlineAndSaysSo) {
  daemon_options_.shared_memory = false;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (const char* expected : {"0:0", "0:1"}) EXPECT_EQ(NextOf(loader), expected);
  EXPECT_EQ(loader.transport(), "inline");
  EXPECT_THAT(loader.notice(), HasSubstr("batches come over the socket"));
}

TEST_F(LoaderTest, Shm_WhereNothingCanBeMapped_IsAnErrorWithTheRemedy) {
  daemon_options_.shared_memory = false;
  options_.transport = Transport::kShm;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("use auto or inline")));
}

TEST_F(LoaderTest, MovedLoader_GoesOn) {
  ASSERT_OK_AND_ASSIGN(Loader first, Open());
  EXPECT_EQ(NextOf(first), "0:0");
  Loader second = std::move(first);
  EXPECT_EQ(NextOf(second), "0:1");
}

}  // namespace
}  // namespace stoker
