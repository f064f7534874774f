// SPDX-License-Identifier: Apache-2.0
#include "server/workers/worker.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/segment/segment.h"
#include "tests/support/instance_id.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker::workers {
namespace {

using ::stoker::testing::TempDir;
using ::testing::HasSubstr;

// A worker as a thread, and the other end of its socket, made blocking here.
class WorkerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto ends = Channel::MakePair();
    ASSERT_OK(ends);
    daemon_.emplace(std::move(ends->second));  // the end that blocks
    thread_ = std::thread([socket = std::move(ends->first)]() mutable {
      ASSERT_EQ(::fcntl(socket.get(), F_SETFL, 0), 0);
      Worker(std::move(socket)).Run();
    });
    EXPECT_TRUE(Next()->has_ready());
  }
  void TearDown() override {
    daemon_.reset();
    thread_.join();
  }

  std::optional<v1::FromWorker> Next() {
    auto received = daemon_->Receive();
    if (!received.ok()) return std::nullopt;
    v1::FromWorker message;
    EXPECT_TRUE(message.ParseFromString((*received)->bytes));
    return message;
  }
  v1::WorkerStatus Make(const v1::ToWorker::MakePart& part) {
    v1::ToWorker message;
    *message.mutable_make_part() = part;
    EXPECT_OK(daemon_->Send(message));
    const std::optional<v1::FromWorker> answer = Next();
    EXPECT_TRUE(answer.has_value() && answer->has_part_done());
    EXPECT_EQ(answer->part_done().part(), part.part());
    return answer->part_done().status();
  }
  void OpenStream(uint64_t stream, const std::string& store) {
    v1::ToWorker message;
    message.mutable_open_stream()->set_stream(stream);
    message.mutable_open_stream()->set_store_dir(store);
    message.mutable_open_stream()->mutable_recipe()->mutable_gaf();
    EXPECT_OK(daemon_->Send(message));
  }
  void MapSegment(uint32_t segment, int fd, uint64_t size) {
    v1::ToWorker message;
    message.mutable_map_segment()->set_segment(segment);
    message.mutable_map_segment()->set_size_bytes(size);
    EXPECT_OK(daemon_->Send(message, fd));
  }

  std::optional<Channel> daemon_;
  std::thread thread_;
};

constexpr uint64_t kSegmentBytes = 8192;

v1::ToWorker::MakePart Part(uint64_t part, uint64_t stream, uint32_t segment) {
  v1::ToWorker::MakePart message;
  message.set_part(part);
  message.set_stream(stream);
  message.set_segment(segment);
  return message;
}

TEST_F(WorkerTest, PartOfAStreamThatItDoesNotKnow_IsAnErrorAndItGoesOn) {
  EXPECT_THAT(Make(Part(1, 9, 9)).message(), HasSubstr("part 1: unknown stream 9"));
  EXPECT_THAT(Make(Part(2, 9, 9)).message(), HasSubstr("part 2: unknown stream 9"));
}

TEST_F(WorkerTest, StreamOfAStoreThatIsNotThere_AnswersEachPartWithTheReason) {
  ASSERT_OK_AND_ASSIGN(
      const segment::Segment segment,
      segment::Segment::Create(
          {.directory = "", .instance_id = testing::RandomInstanceId(), .generation = 1, .size_bytes = kSegmentBytes}));
  MapSegment(1, segment.fd(), kSegmentBytes);
  OpenStream(3, "/nowhere/store");
  for (const uint64_t part : {1, 2}) {
    const v1::WorkerStatus status = Make(Part(part, 3, 1));
    EXPECT_NE(status.code(), 0);
    EXPECT_THAT(status.message(), HasSubstr("/nowhere/store"));
  }
}

TEST_F(WorkerTest, CloseStream_ForgetsIt) {
  OpenStream(3, "/nowhere/store");
  v1::ToWorker close;
  close.mutable_close_stream()->set_stream(3);
  ASSERT_OK(daemon_->Send(close));
  EXPECT_THAT(Make(Part(1, 3, 1)).message(), HasSubstr("unknown stream 3"));
}

TEST_F(WorkerTest, SegmentThatIsNone_EndsTheWorker) {
  const UniqueFd memory(::memfd_create("none", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(memory.get(), kSegmentBytes), 0);
  MapSegment(1, memory.get(), kSegmentBytes);
  EXPECT_FALSE(Next().has_value());
}

TEST_F(WorkerTest, MessageOfNoKind_EndsTheWorker) {
  v1::ToWorker::UnmapSegment unknown;  // by itself it is no ToWorker
  unknown.set_segment(1);
  ASSERT_OK(daemon_->Send(unknown));
  EXPECT_FALSE(Next().has_value());
}

TEST_F(WorkerTest, UnitWithoutAFile_SaysWhichAndItGoesOn) {
  const TempDir dir;
  v1::ToWorker message;
  message.mutable_ingest_unit()->set_unit(4);
  message.mutable_ingest_unit()->set_source(dir.File("missing.ts"));
  message.mutable_ingest_unit()->set_shard_path(dir.File("shard"));
  message.mutable_ingest_unit()->mutable_options()->set_format(v1::TS);
  ASSERT_OK(daemon_->Send(message));
  const std::optional<v1::FromWorker> answer = Next();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->unit_done().unit(), 4u);
  EXPECT_EQ(answer->unit_done().status().code(), static_cast<int>(absl::StatusCode::kNotFound));
  EXPECT_THAT(answer->unit_done().status().message(), HasSubstr(dir.File("missing.ts")));
  EXPECT_NE(Make(Part(1, 9, 9)).code(), 0);
}

}  // namespace
}  // namespace stoker::workers
