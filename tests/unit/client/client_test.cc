// SPDX-License-Identifier: Apache-2.0
#include "stoker/client.h"

#include <thread>

#include "tests/unit/client/loader_fixture.h"

namespace stoker {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::IsOkAndHolds;
using testing::LoaderFixture;
using testing::StatusIs;

class ClientTest : public LoaderFixture {
 protected:
  ClientTest() {
    StartDaemon();
    client_ = std::make_unique<Client>(*Client::Connect({.address = daemon_options_.socket}));
  }
  std::unique_ptr<Client> client_;
};

TEST_F(ClientTest, Health_OfTheDaemonAndOfUnknownServices) {
  EXPECT_THAT(client_->Health(), IsOkAndHolds(true));
  EXPECT_THAT(client_->Health("no.such"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"no.such\"")));
}

TEST_F(ClientTest, GetStatus_AndWatchStatus) {
  ASSERT_OK_AND_ASSIGN(const v1::StatusReply status, client_->GetStatus());
  EXPECT_EQ(status.instance_id().size(), 16u);
  int seen = 0;
  EXPECT_THAT(client_->WatchStatus(absl::Milliseconds(50), [&](const v1::StatusReply&) { return ++seen < 3; }), IsOk());
  EXPECT_EQ(seen, 3);
}

TEST_F(ClientTest, Ingest_ReportsProgressAndResult) {
  v1::IngestRequest request;
  request.set_name("walks");
  std::string phase;
  ASSERT_OK_AND_ASSIGN(const v1::IngestEvent::Done done,
                       client_->Ingest(request, [&](const auto& progress) { phase = progress.phase(); }));
  EXPECT_EQ(done.dataset().name(), "walks");
  EXPECT_EQ(phase, "reading");
}

TEST_F(ClientTest, Ingest_OfBadData_CarriesFileAndLine) {
  v1::IngestRequest request;
  request.set_name("bad");
  EXPECT_THAT(client_->Ingest(request), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("walks.csv:7")));
}

TEST_F(ClientTest, Ingest_CanBeCancelledFromAnotherThread) {
  v1::IngestRequest request;
  request.set_name("endless");
  Cancellation cancellation;
  std::thread canceller([&] {
    absl::SleepFor(absl::Milliseconds(30));
    cancellation.Cancel();
  });
  EXPECT_THAT(client_->Ingest(request, nullptr, &cancellation), StatusIs(absl::StatusCode::kCancelled));
  canceller.join();
}

TEST_F(ClientTest, Ingest_AfterCancel_DoesNotBegin) {
  v1::IngestRequest request;
  request.set_name("endless");
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_THAT(client_->Ingest(request, nullptr, &cancellation), StatusIs(absl::StatusCode::kCancelled));
}

TEST_F(ClientTest, Datasets_AllAndOne) {
  ASSERT_OK_AND_ASSIGN(const std::vector<v1::DatasetInfo> datasets, client_->Datasets());
  EXPECT_EQ(datasets.size(), 1u);
  EXPECT_THAT(client_->Datasets("letters"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(ClientTest, Drop_OfADataSetInUse_IsRefused) {
  EXPECT_THAT(client_->Drop("numbers"), IsOk());
  ASSERT_OK_AND_ASSIGN(Loader loader, client_->Open(options_));
  EXPECT_THAT(client_->Drop("numbers"), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(ClientTest, Loader_OutlivesItsClient) {
  ASSERT_OK_AND_ASSIGN(Loader loader, client_->Open(options_));
  client_.reset();
  EXPECT_EQ(NextOf(loader), "0:0");
}

}  // namespace
}  // namespace stoker
