// SPDX-License-Identifier: Apache-2.0
// What a loader asks for and gives back.
#include <thread>

#include "tests/unit/client/loader_fixture.h"

namespace stoker {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::LoaderFixture;
using testing::StatusIs;

class LeaseTest : public LoaderFixture {
 protected:
  static Batch Take(Loader& loader) { return *loader.Next(absl::Seconds(20)).value(); }
};

TEST_F(LeaseTest, Prefetch_BoundsWhatTheDaemonSendsAhead) {
  options_.prefetch = 3;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_TRUE(daemon_->AwaitLeases(3));
  Batch held = Take(loader);
  EXPECT_TRUE(daemon_->AwaitLeases(4));  // one held, three ahead
  held = Batch();
  EXPECT_TRUE(daemon_->AwaitLeases(3));
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_EQ(daemon_->leases(), 3u);
}

TEST_F(LeaseTest, PrefetchZero_AsksOnlyWhenNextWaits) {
  options_.prefetch = 0;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (const char* expected : {"0:0", "0:1"}) {
    absl::SleepFor(absl::Milliseconds(10));
    EXPECT_EQ(daemon_->leases(), 0u);
    EXPECT_EQ(NextOf(loader), expected);
    EXPECT_TRUE(daemon_->AwaitLeases(0));
  }
}

TEST_F(LeaseTest, HoldingAllLeases_MakesNextAnErrorAtOnce_UntilOneIsLetGo) {
  daemon_options_.lease_limit = 3;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  std::vector<Batch> held;
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, loader.Next());
    held.push_back(*batch);
  }
  EXPECT_THAT(loader.Next(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("a session may hold 3")));
  held.erase(held.begin());
  EXPECT_EQ(NextOf(loader), "0:3");
  EXPECT_EQ(Describe(held[0]), "0:1");
}

TEST_F(LeaseTest, MoreThanMayBeKept_IsCopiedAndItsLeaseGoesBack) {
  daemon_options_.slots = 3;
  daemon_options_.may_keep = 2;
  options_.prefetch = 1;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  std::vector<Batch> held;
  for (int i = 0; i < 5; ++i) held.push_back(Take(loader));  // all of an epoch, as nobody else has
  EXPECT_THAT(loader.notice(), HasSubstr("batches beyond 2 that are kept are copies: the arena has room for 3"));
  EXPECT_EQ(loader.transport(), "shm");
  EXPECT_TRUE(daemon_->AwaitLeases(2));
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Describe(held[i]), absl::StrCat("0:", i));
    EXPECT_EQ(held[i].inline_memory(), i >= 2);
    EXPECT_OK(held[i].Check());
  }
  EXPECT_EQ(NextOf(loader), "end");
  held.clear();
  EXPECT_FALSE(Take(loader).inline_memory());
  loader.Close();
  EXPECT_TRUE(daemon_->AwaitLeases(0));
}

TEST_F(LeaseTest, Close_ReturnsWhatIsPrefetched_AndKeepsWhatIsHeld) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  Batch held = Take(loader);
  loader.Close();
  EXPECT_TRUE(daemon_->AwaitLeases(1));
  EXPECT_EQ(Describe(held), "0:0");
  held = Batch();
  EXPECT_TRUE(daemon_->AwaitLeases(0));
}

TEST_F(LeaseTest, Destruction_ReturnsEverything) {
  {
    ASSERT_OK_AND_ASSIGN(Loader loader, Open());
    EXPECT_EQ(NextOf(loader), "0:0");
  }
  EXPECT_TRUE(daemon_->AwaitLeases(0));
}

TEST_F(LeaseTest, SetEpoch_KeepsTheLeasesOfBatchesThatAreHeld) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  const Batch held = Take(loader);
  ASSERT_THAT(loader.SetEpoch(9), IsOk());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(NextOf(loader), absl::StrCat("9:", i));
  EXPECT_EQ(Describe(held), "0:0");
  EXPECT_THAT(held.Check(), IsOk());
}

TEST_F(LeaseTest, ManyEpochs_UseTheSameMemoryAgain) {
  daemon_options_.slots = 6;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  for (uint64_t epoch = 0; epoch < 100; ++epoch) {
    for (uint64_t step = 0; step < 5; ++step) ASSERT_EQ(NextOf(loader), absl::StrCat(epoch, ":", step));
    ASSERT_EQ(NextOf(loader), "end");
  }
  // With so little room each goes back at once, but not in a message of its own for each of the two.
  EXPECT_LE(daemon_->advances(), 1000u);
}

TEST_F(LeaseTest, LeasesAndCredits_GoBackTwoAtATime_WhereTheArenaHasRoomForMany) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());  // prefetch 4 of 16 that there is room for
  const absl::Time start = absl::Now();
  for (uint64_t epoch = 0; epoch < 100; ++epoch) {
    for (uint64_t step = 0; step < 5; ++step) ASSERT_EQ(NextOf(loader), absl::StrCat(epoch, ":", step));
    ASSERT_EQ(NextOf(loader), "end");
  }
  const auto lingered = static_cast<uint64_t>((absl::Now() - start) / absl::Milliseconds(10));
  EXPECT_LE(daemon_->advances(), 500 / 2 + lingered + 10);
}

// A message of half a depth would never be: nobody asks for more.
TEST_F(LeaseTest, ALeaseAlone_GoesBackSoon) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  EXPECT_TRUE(daemon_->AwaitLeases(4));
  Batch held = Take(loader);
  held = Batch();
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (daemon_->sent().size() < 5 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(daemon_->sent().size(), 5u);  // was asked for in the same message
  EXPECT_TRUE(daemon_->AwaitLeases(4));
}

TEST_F(LeaseTest, BatchesMayBeDroppedOnOtherThreads) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  std::vector<std::thread> threads;
  for (int i = 0; i < 40; ++i) {
    absl::StatusOr<std::optional<Batch>> batch = loader.Next();
    while (absl::IsResourceExhausted(batch.status())) batch = loader.Next();  // the others still hold theirs
    ASSERT_THAT(batch, IsOk());
    if (batch->has_value()) threads.emplace_back([held = **batch]() mutable { held = Batch(); });
  }
  for (std::thread& thread : threads) thread.join();
  loader.Close();
  EXPECT_TRUE(daemon_->AwaitLeases(0));
}

}  // namespace
}  // namespace stoker
