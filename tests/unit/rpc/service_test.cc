// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/unit/rpc/fake_core.h"

namespace stoker::rpc {
namespace {

using ::testing::EndsWith;
using testing::FakeCore;
using ::testing::HasSubstr;
using testing::kPatience;
using ::testing::StartsWith;
using testing::TestServer;

class ServiceTest : public ::testing::Test {
 protected:
  FakeCore core_;
  TestServer server_{&core_};
  std::unique_ptr<v1::Stoker::Stub> stub_ = server_.Connect();
  grpc::ClientContext context_;
};

// ---- codes ----

TEST_F(ServiceTest, Error_HasTheSameCodeAndMessageAtTheClient) {
  for (int code = 1; code <= 16; ++code) {
    core_.list = [&](const std::string& name) { return absl::Status(static_cast<absl::StatusCode>(code), name); };
    v1::ListDatasetsRequest request;
    request.set_name(absl::StrCat("line 1\nünder ", code, " %41"));
    v1::ListDatasetsReply reply;
    grpc::ClientContext context;
    const grpc::Status status = stub_->ListDatasets(&context, request, &reply);
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    EXPECT_EQ(status.error_message(), request.name());
  }
}

TEST_F(ServiceTest, ErrorWithAVeryLongMessage_KeepsItsCodeAndBothEndsOfTheMessage) {
  for (const char* filling : {"x", "ü", "x\xE2\x82\xAC"}) {
    std::string message = "reading /data/a.ts:37: ";
    while (message.size() < 40000) message += filling;
    message += "; shorten it";
    core_.list = [&](const std::string&) { return absl::InvalidArgumentError(message); };
    v1::ListDatasetsReply reply;
    grpc::ClientContext context;
    const grpc::Status status = stub_->ListDatasets(&context, {}, &reply);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    EXPECT_THAT(status.error_message(), StartsWith("reading /data/a.ts:37: "));
    EXPECT_THAT(status.error_message(), EndsWith("; shorten it"));
  }
}

TEST_F(ServiceTest, ErrorWithAVeryLongMessageThatIsNoText_KeepsItsCode) {
  core_.list = [&](const std::string&) { return absl::NotFoundError(std::string(40000, '\x80')); };
  v1::ListDatasetsReply reply;
  EXPECT_EQ(stub_->ListDatasets(&context_, {}, &reply).error_code(), grpc::StatusCode::NOT_FOUND);
}

// ---- calls in flight ----

TEST_F(ServiceTest, AwaitNoCalls_WaitsForACallThatHasBegunAndNotForIdleClients) {
  absl::Notification begun, may_end;
  core_.list = [&](const std::string&) {
    begun.Notify();
    may_end.WaitForNotification();
    return std::vector<v1::DatasetInfo>();
  };
  std::thread caller([&] {
    v1::ListDatasetsReply reply;
    EXPECT_TRUE(stub_->ListDatasets(&context_, {}, &reply).ok());
  });
  begun.WaitForNotification();
  EXPECT_FALSE(server_.service().AwaitNoCalls(absl::Now()));
  may_end.Notify();
  EXPECT_TRUE(server_.service().AwaitNoCalls(absl::Now() + kPatience));
  caller.join();
}

TEST_F(ServiceTest, AwaitNoCalls_WaitsForSessions) {
  testing::SessionClient session(stub_.get());
  ASSERT_TRUE(session.Open("a"));
  ASSERT_TRUE(core_.AwaitEvents(1));
  EXPECT_FALSE(server_.service().AwaitNoCalls(absl::Now()));
  core_.peer("a")->End(absl::UnavailableError("the daemon is stopping"));
  session.Finish();
  EXPECT_TRUE(server_.service().AwaitNoCalls(absl::Now() + kPatience));
}

// ---- status ----

TEST_F(ServiceTest, GetStatus_GivesTheCores) {
  core_.status = [] {
    v1::StatusReply reply;
    reply.set_instance_id("0123456789abcdef");
    return reply;
  };
  v1::StatusReply reply;
  ASSERT_TRUE(stub_->GetStatus(&context_, {}, &reply).ok());
  EXPECT_EQ(reply.instance_id(), "0123456789abcdef");
}

TEST_F(ServiceTest, WatchStatus_IntervalOutOfRange_IsRefusedByName) {
  for (const double seconds : {-1.0, 0.049, 3600.5, std::nan(""), HUGE_VAL}) {
    v1::StatusRequest request;
    request.set_interval_seconds(seconds);
    grpc::ClientContext context;
    const auto reader = stub_->WatchStatus(&context, request);
    v1::StatusReply reply;
    EXPECT_FALSE(reader->Read(&reply));
    const grpc::Status status = reader->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << seconds;
    EXPECT_THAT(status.error_message(), HasSubstr("interval_seconds: "));
  }
}

TEST_F(ServiceTest, WatchStatus_GivesOneAtOnceAndThenOneEachInterval) {
  const auto calls = std::make_shared<std::atomic<int>>(0);  // the call may outlive this function
  core_.status = [calls] {
    v1::StatusReply reply;
    reply.set_pid(++*calls);
    return reply;
  };
  v1::StatusRequest request;
  request.set_interval_seconds(0.05);
  const absl::Time start = absl::Now();
  const auto reader = stub_->WatchStatus(&context_, request);
  v1::StatusReply reply;
  for (int i = 1; i <= 4; ++i) {
    ASSERT_TRUE(reader->Read(&reply));
    EXPECT_EQ(reply.pid(), i);
  }
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(150));
  context_.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServiceTest, WatchStatus_IntervalUnset_MeansASecondAndCancellingEndsIt) {
  const auto reader = stub_->WatchStatus(&context_, {});
  v1::StatusReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  context_.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServiceTest, WatchStatus_WhileTheDaemonStops_DoesNotHoldItUp) {
  std::atomic<bool> draining{false};
  core_.status = [&] {
    v1::StatusReply reply;
    reply.set_state(draining ? v1::StatusReply::DRAINING : v1::StatusReply::SERVING);
    return reply;
  };
  v1::StatusRequest request;
  request.set_interval_seconds(0.05);
  const auto reader = stub_->WatchStatus(&context_, request);
  v1::StatusReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  draining = true;
  while (reader->Read(&reply)) {  // the test's deadline ends it else
  }
  EXPECT_EQ(reply.state(), v1::StatusReply::DRAINING) << "the last one says why";
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

// ---- data sets ----

TEST_F(ServiceTest, ListDatasets_GivesAllInOrder) {
  core_.list = [](const std::string& name) -> absl::StatusOr<std::vector<v1::DatasetInfo>> {
    std::vector<v1::DatasetInfo> datasets(2);
    datasets[0].set_name("a" + name);
    datasets[1].set_name("b" + name);
    return datasets;
  };
  v1::ListDatasetsRequest request;
  request.set_name("!");
  v1::ListDatasetsReply reply;
  ASSERT_TRUE(stub_->ListDatasets(&context_, request, &reply).ok());
  ASSERT_EQ(reply.datasets_size(), 2);
  EXPECT_EQ(reply.datasets(0).name(), "a!");
  EXPECT_EQ(reply.datasets(1).name(), "b!");
}

TEST_F(ServiceTest, DropDataset_TellsWhetherTheStoreWentToo) {
  core_.drop = [](const std::string& name) -> absl::StatusOr<bool> {
    if (name == "busy") return absl::FailedPreconditionError("drop: data set busy is being read");
    return name == "last";
  };
  for (const char* name : {"last", "shared"}) {
    v1::DropDatasetRequest request;
    request.set_name(name);
    v1::DropDatasetReply reply;
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->DropDataset(&context, request, &reply).ok());
    EXPECT_EQ(reply.store_removed(), std::string(name) == "last");
  }
  v1::DropDatasetRequest request;
  request.set_name("busy");
  v1::DropDatasetReply reply;
  EXPECT_EQ(stub_->DropDataset(&context_, request, &reply).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

// ---- ingest ----

TEST_F(ServiceTest, Ingest_TellsProgressAndThenTheEnd) {
  absl::Notification seen;
  core_.ingest = [&](const v1::IngestRequest& request, const auto& progress, const auto&) {
    v1::IngestEvent::Progress report;
    report.set_phase("reading");
    progress(report);
    seen.WaitForNotificationWithTimeout(kPatience);  // until the client has it
    v1::IngestEvent::Done done;
    done.mutable_dataset()->set_name(request.name());
    return done;
  };
  v1::IngestRequest request;
  request.set_name("pumps");
  const auto reader = stub_->Ingest(&context_, request);
  v1::IngestEvent event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.progress().phase(), "reading");
  seen.Notify();
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.done().dataset().name(), "pumps");
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ServiceTest, Ingest_Fails_GivesTheErrorAndNoDone) {
  core_.ingest = [](const auto&, const auto&, const auto&) {
    return absl::InvalidArgumentError("reading /data/a.ts:3: a number is expected");
  };
  const auto reader = stub_->Ingest(&context_, {});
  v1::IngestEvent event;
  EXPECT_FALSE(reader->Read(&event));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "reading /data/a.ts:3: a number is expected");
}

TEST_F(ServiceTest, Ingest_ClientCancels_StopsTheWork) {
  absl::Notification started, stopped;
  core_.ingest = [&](const auto&, const auto&, const auto& cancelled) {
    started.Notify();
    while (!cancelled()) absl::SleepFor(absl::Milliseconds(1));
    stopped.Notify();
    return absl::CancelledError("ingest: cancelled");
  };
  const auto reader = stub_->Ingest(&context_, {});
  started.WaitForNotification();
  context_.TryCancel();
  EXPECT_TRUE(stopped.WaitForNotificationWithTimeout(kPatience));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServiceTest, Ingest_ConnectionIsCut_StopsTheWork) {
  absl::Notification started, stopped;
  core_.ingest = [&](const auto&, const auto&, const auto& cancelled) {
    started.Notify();
    while (!cancelled()) absl::SleepFor(absl::Milliseconds(1));
    stopped.Notify();
    return absl::CancelledError("ingest: cancelled");
  };
  std::function<void()> cut;
  const auto stub = server_.ConnectToBeCut(&cut);
  const auto reader = stub->Ingest(&context_, {});
  started.WaitForNotification();
  cut();
  EXPECT_TRUE(stopped.WaitForNotificationWithTimeout(kPatience));
}

// ---- fetch ----

TEST_F(ServiceTest, Fetch_SendsAllBytesInChunksOfAMebibyteInOrder) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1} << 20, (size_t{1} << 20) + 1, (size_t{5} << 19) + 17}) {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + (i >> 12));
    core_.pin = [&](const v1::FetchRequest& request) -> absl::StatusOr<std::string> {
      EXPECT_EQ(request.session(), 7u);
      EXPECT_EQ(request.token(), 8u);
      EXPECT_EQ(request.lease(), 9u);
      return bytes;
    };
    v1::FetchRequest request;
    request.set_session(7);
    request.set_token(8);
    request.set_lease(9);
    grpc::ClientContext context;
    const auto reader = stub_->Fetch(&context, request);
    std::string got;
    v1::FetchChunk chunk;
    while (reader->Read(&chunk)) {
      EXPECT_EQ(chunk.offset_bytes(), got.size());
      EXPECT_LE(chunk.data().size(), size_t{1} << 20);
      got += chunk.data();
    }
    EXPECT_TRUE(reader->Finish().ok());
    EXPECT_TRUE(got == bytes) << size;
    EXPECT_TRUE(core_.AwaitPinned(0));
  }
}

TEST_F(ServiceTest, Fetch_OfWhatIsNotHeld_GivesTheCoresError) {
  core_.pin = [](const auto&) { return absl::AbortedError("fetch: lease 9 is not held"); };
  const auto reader = stub_->Fetch(&context_, {});
  v1::FetchChunk chunk;
  EXPECT_FALSE(reader->Read(&chunk));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::ABORTED);
}

TEST_F(ServiceTest, Fetch_ClientGoesAway_UnpinsTheBatch) {
  core_.pin = [](const auto&) { return std::string(64 << 20, 'x'); };
  std::function<void()> cut;
  const auto stub = server_.ConnectToBeCut(&cut);
  const auto reader = stub->Fetch(&context_, {});
  v1::FetchChunk chunk;
  ASSERT_TRUE(reader->Read(&chunk));
  EXPECT_EQ(core_.pinned(), 1);
  cut();
  EXPECT_TRUE(core_.AwaitPinned(0));
}

}  // namespace
}  // namespace stoker::rpc
