// SPDX-License-Identifier: Apache-2.0
// Batches that the daemon announces while it makes them.
#include <chrono>
#include <future>

#include "tests/unit/client/loader_fixture.h"

namespace stoker {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::LoaderFixture;
using testing::StatusIs;

constexpr uint64_t kSteps = 5;  // of an epoch

class AnnounceTest : public LoaderFixture {
 protected:
  AnnounceTest() {
    options_.prefetch = 3;
    daemon_options_.steps = kSteps;
  }

  // A loader that has read batch 0:0 and has the next ones announced.
  absl::StatusOr<Loader> OpenAndRead() {
    absl::StatusOr<Loader> loader = Open();
    if (!loader.ok()) return loader;
    EXPECT_TRUE(daemon_->AwaitLeases(3));
    daemon_->SetMaking(true);
    // Until a message says that it has mapped a batch, batches come sealed.
    for (uint64_t at = 0; daemon_->announced() < 3; ++at) {
      const uint64_t step = at % (kSteps + 1);
      const std::string expected = step == kSteps ? "end" : absl::StrCat(at / (kSteps + 1), ":", step);
      const absl::StatusOr<std::optional<Batch>> batch = loader->Next(absl::Milliseconds(50));
      if (absl::IsDeadlineExceeded(batch.status())) {
        --at;
        continue;
      }
      EXPECT_THAT(batch, IsOk());
      EXPECT_EQ(batch->has_value() ? Describe(**batch) : "end", expected);
    }
    return loader;
  }

  // The place of the next batch, also at the end of an epoch.
  static std::string At(const Loader& loader) {
    const uint64_t step = loader.position().epoch() * kSteps + loader.position().step();
    return absl::StrCat(step / kSteps, ":", step % kSteps);
  }
};

TEST_F(AnnounceTest, Next_WaitsUntilTheBatchIsSealed) {
  ASSERT_OK_AND_ASSIGN(Loader loader, OpenAndRead());
  EXPECT_THAT(loader.Next(absl::ZeroDuration()), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(loader.Next(absl::Milliseconds(30)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  std::future<std::string> next = std::async(std::launch::async, [&] {
    std::string said = NextOf(loader);
    return said == "end" ? NextOf(loader) : said;
  });
  EXPECT_EQ(next.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  const std::string expected = At(loader);
  daemon_->Seal();
  EXPECT_EQ(next.get(), expected);
  EXPECT_EQ(loader.transport(), "shm");
}

TEST_F(AnnounceTest, Close_WakesWhoWaits_AndLeasesAreBack) {
  ASSERT_OK_AND_ASSIGN(Loader loader, OpenAndRead());
  std::future<absl::Status> next =
      std::async(std::launch::async, [&] { return loader.Next(absl::InfiniteDuration()).status(); });
  EXPECT_EQ(next.wait_for(std::chrono::milliseconds(30)), std::future_status::timeout);
  loader.Close();
  EXPECT_THAT(next.get(), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_TRUE(daemon_->AwaitLeases(0));
}

TEST_F(AnnounceTest, ALostDaemon_WakesWhoWaits_AndItGoesOnAtThatBatch) {
  ASSERT_OK_AND_ASSIGN(Loader loader, OpenAndRead());
  const std::string expected = At(loader);
  std::future<std::string> next = std::async(std::launch::async, [&] { return NextOf(loader); });
  EXPECT_EQ(next.wait_for(std::chrono::milliseconds(30)), std::future_status::timeout);
  daemon_->SetMaking(false);
  daemon_->BreakStreams();
  EXPECT_EQ(next.get(), expected);
}

TEST_F(AnnounceTest, SetEpoch_GivesBackWhatIsBeingMade) {
  ASSERT_OK_AND_ASSIGN(Loader loader, OpenAndRead());
  daemon_->SetMaking(false);
  ASSERT_THAT(loader.SetEpoch(8), IsOk());
  for (const char* expected : {"8:0", "8:1", "8:2"}) EXPECT_EQ(NextOf(loader), expected);
  EXPECT_EQ(daemon_->sessions_opened(), 1u);
  loader.Close();
  EXPECT_TRUE(daemon_->AwaitLeases(0));
}

// Good ones before the one that fails are read, though its failure is known first.
TEST_F(AnnounceTest, AFailureOfWhatWasAnnounced_ComesAtItsPlace) {
  ASSERT_OK_AND_ASSIGN(Loader loader, OpenAndRead());
  const std::string good = At(loader);
  const uint64_t failing = (loader.position().step() + 1) % kSteps;
  daemon_->SetMaking(false);
  daemon_->FailAnnounced(failing, grpc::StatusCode::DATA_LOSS, "sample 7: no number");
  std::string said = NextOf(loader);
  if (said == "end") said = NextOf(loader);
  EXPECT_EQ(said, good);
  absl::StatusOr<std::optional<Batch>> next = loader.Next();
  if (next.ok()) next = loader.Next();  // it was the end of an epoch
  EXPECT_THAT(next, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("sample 7")));
  EXPECT_EQ(loader.position().step(), failing);
}

TEST_F(AnnounceTest, AnotherBatchInItsPlace_IsAnError_AndNeverReadAsThisOne) {
  ASSERT_OK_AND_ASSIGN(Loader loader, OpenAndRead());
  daemon_->Seal(/*wrongly=*/true);
  absl::StatusOr<std::optional<Batch>> next = loader.Next();
  if (next.ok()) next = loader.Next();
  EXPECT_THAT(next, StatusIs(absl::StatusCode::kAborted, HasSubstr("its memory is used again")));
}

}  // namespace
}  // namespace stoker
