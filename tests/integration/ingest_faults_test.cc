// SPDX-License-Identifier: Apache-2.0
// The rows of the crash table in server/DESIGN.md that are about ingest: what is done is kept, what is not is made
// again, and nothing half done is published.
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/integration/fixture.h"

namespace stoker {
namespace {

using ::testing::AnyOf;
using testing::Digests;
using testing::Eventually;
using ::testing::HasSubstr;
using testing::IntegrationTest;
using testing::IsOk;
using testing::MakeSamples;
using testing::Read;
using testing::Samples;
using testing::StatusIs;

// 24 MB of text: three units, which take their parsers some tens of milliseconds each.
class IngestFaultsTest : public IntegrationTest {
 protected:
  static constexpr size_t kCases = 12000;
  void SetUp() override {
    const Samples samples = MakeSamples(120, 4, 64);
    const std::string once = ToTs(samples);
    const size_t data = once.find("@data\n") + 6;
    std::string text = once.substr(0, data);
    for (size_t i = 0; i < kCases / 120; ++i) text.append(once, data);
    request_.set_name("large");
    request_.add_source(WriteData("large.ts", text));
  }
  void ExpectWhole() {
    ASSERT_OK_AND_ASSIGN(const auto datasets, client().Datasets("large"));
    EXPECT_EQ(datasets[0].samples(), kCases);
    EXPECT_EQ(datasets[0].manifest().classes_size(), 3);
    LoaderOptions options = Read("large", 6000);
    options.recipe.mutable_gaf()->set_image_size(2);
    const Digests digests = ReadAll(options);
    ASSERT_EQ(digests.size(), 2u);
  }
  std::vector<pid_t> BusyWorkers() {
    std::vector<pid_t> pids;
    const v1::StatusReply status = Status();
    for (const auto& worker : status.workers()) {
      if (worker.role() == "ingest" && worker.pid() > 0 && worker.state() == "busy") pids.push_back(worker.pid());
    }
    return pids;
  }
  v1::IngestRequest request_;
};

TEST_F(IngestFaultsTest, IngestWorkerKilled_Once_IngestCompletes) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  absl::StatusOr<v1::IngestEvent::Done> done;
  std::thread ingesting([&] { done = client().Ingest(request_); });
  EXPECT_TRUE(Eventually([&] { return !BusyWorkers().empty(); }));
  for (const pid_t pid : BusyWorkers()) ::kill(pid, SIGKILL);
  ingesting.join();
  ASSERT_OK(done);
  ExpectWhole();
}

TEST_F(IngestFaultsTest, IngestWorkerKilled_WheneverThereIsOne_FailsClearlyAndGoesOnLater) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  absl::StatusOr<v1::IngestEvent::Done> done;
  std::atomic<bool> over{false};
  std::thread ingesting([&] {
    done = client().Ingest(request_);
    over = true;
  });
  while (!over) {
    for (const pid_t pid : BusyWorkers()) ::kill(pid, SIGKILL);
  }
  ingesting.join();
  EXPECT_THAT(done, AnyOf(IsOk(), StatusIs(absl::StatusCode::kInternal, HasSubstr("3 workers died"))));
  if (!done.ok()) {
    EXPECT_THAT(client().Datasets("large"), StatusIs(absl::StatusCode::kNotFound));
    EXPECT_THAT(done.status().message(), HasSubstr("large.ts"));
  }
  ASSERT_OK(client().Ingest(request_));
  ExpectWhole();
}

TEST_F(IngestFaultsTest, IngestCancelled_TheNextOneFindsWhatIsReady) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.workers = "1"}));
  Cancellation cancellation;
  const absl::StatusOr<v1::IngestEvent::Done> cancelled = client().Ingest(
      request_,
      [&](const v1::IngestEvent::Progress& progress) {
        if (progress.units_done() > 0) cancellation.Cancel();
      },
      &cancellation);
  uint64_t resumed = 0;
  ASSERT_OK_AND_ASSIGN(const v1::IngestEvent::Done done,
                       client().Ingest(request_, [&](const v1::IngestEvent::Progress& progress) {
                         resumed = std::max(resumed, progress.units_resumed());
                       }));
  if (!cancelled.ok()) {
    EXPECT_THAT(cancelled, StatusIs(absl::StatusCode::kCancelled));
    // A quick daemon has made all of it before it hears that nobody waits.
    EXPECT_TRUE(resumed > 0 || done.unchanged());
  }
  ExpectWhole();
}

TEST_F(IngestFaultsTest, Sigterm_WhileIngesting_NextDaemonGoesOn) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.workers = "1", .extra = {"--drain-deadline", "60"}}));
  absl::StatusOr<v1::IngestEvent::Done> done;
  std::atomic<bool> begun{false};
  ASSERT_OK_AND_ASSIGN(const Client other, Client::Connect({.address = daemon().address()}));
  std::thread ingesting([&] {
    done = other.Ingest(request_, [&](const v1::IngestEvent::Progress& progress) {
      if (progress.phase() == "reading") begun = true;
    });
    begun = true;
  });
  EXPECT_TRUE(Eventually([&] { return begun.load(); }));
  StopDaemon();
  ingesting.join();
  if (!done.ok()) {
    EXPECT_THAT(done, StatusIs(absl::StatusCode::kUnavailable));
  }
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  ASSERT_OK(client().Ingest(request_));
  ExpectWhole();
}

}  // namespace
}  // namespace stoker
