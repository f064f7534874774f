// SPDX-License-Identifier: Apache-2.0
#include "shared/channel/channel.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>

#include "stoker/v1/worker.pb.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::HasSubstr;

v1::ToWorker UnitOf(const std::string& source) {
  v1::ToWorker message;
  message.mutable_ingest_unit()->set_source(source);
  return message;
}

class ChannelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto ends = Channel::MakePair();
    ASSERT_OK(ends);
    daemon_.emplace(std::move(ends->first));
    worker_.emplace(std::move(ends->second));
  }
  std::optional<Channel> daemon_;
  std::optional<Channel> worker_;
};

TEST_F(ChannelTest, Message_ArrivesWhole) {
  ASSERT_OK(daemon_->Send(UnitOf("/data/a.ts")));
  ASSERT_OK(daemon_->Send(UnitOf("/data/b.ts")));
  for (const char* source : {"/data/a.ts", "/data/b.ts"}) {
    ASSERT_OK_AND_ASSIGN(auto received, worker_->Receive());
    ASSERT_TRUE(received.has_value());
    v1::ToWorker message;
    ASSERT_TRUE(message.ParseFromString(received->bytes));
    EXPECT_EQ(message.ingest_unit().source(), source);
    EXPECT_FALSE(received->fd.valid());
  }
}

TEST_F(ChannelTest, Descriptor_GoesAlongAndIsClosedOnExec) {
  const testing::TempDir dir;
  const UniqueFd file(::open(dir.Write("a", "figures").c_str(), O_RDONLY));
  ASSERT_OK(daemon_->Send(UnitOf("a"), file.get()));
  ASSERT_OK_AND_ASSIGN(auto received, worker_->Receive());
  ASSERT_TRUE(received.has_value());
  ASSERT_TRUE(received->fd.valid());
  EXPECT_TRUE(::fcntl(received->fd.get(), F_GETFD) & FD_CLOEXEC);
  char bytes[8] = {};
  EXPECT_EQ(::read(received->fd.get(), bytes, sizeof(bytes)), 7);
  EXPECT_STREQ(bytes, "figures");
}

TEST_F(ChannelTest, BothEnds_AreClosedOnExec) {
  EXPECT_TRUE(::fcntl(daemon_->fd(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(::fcntl(worker_->fd(), F_GETFD) & FD_CLOEXEC);
}

TEST_F(ChannelTest, Receive_OnTheDaemonsEndWithoutAMessage_ReturnsNothing) {
  ASSERT_OK_AND_ASSIGN(auto received, daemon_->Receive());
  EXPECT_FALSE(received.has_value());
}

TEST_F(ChannelTest, PeerThatIsGone_IsUnavailableBothWays) {
  worker_.reset();
  EXPECT_THAT(daemon_->Receive(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("closed")));
  EXPECT_THAT(daemon_->Send(UnitOf("a")), StatusIs(absl::StatusCode::kUnavailable));  // and no SIGPIPE
}

TEST_F(ChannelTest, Messages_SentBeforeTheEnd_AreStillReceived) {
  ASSERT_OK(worker_->Send(UnitOf("a")));
  worker_.reset();
  ASSERT_OK_AND_ASSIGN(auto received, daemon_->Receive());
  EXPECT_TRUE(received.has_value());
  EXPECT_THAT(daemon_->Receive(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(ChannelTest, PeerThatReadsNothing_EndsInResourceExhausted) {
  const v1::ToWorker message = UnitOf(std::string(32 << 10, 'x'));
  absl::Status status;
  for (int i = 0; i < 100000 && status.ok(); ++i) status = daemon_->Send(message);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("full")));
}

TEST_F(ChannelTest, MessageBeyondTheLimit_IsRefusedAndNothingIsSent) {
  EXPECT_THAT(daemon_->Send(UnitOf(std::string(Channel::kMaxBytes, 'x'))), StatusIs(absl::StatusCode::kInternal));
  ASSERT_OK(daemon_->Send(UnitOf("next")));
  ASSERT_OK_AND_ASSIGN(auto received, worker_->Receive());
  ASSERT_TRUE(received.has_value());
  EXPECT_THAT(received->bytes, HasSubstr("next"));
}

TEST_F(ChannelTest, PacketLongerThanAMessage_IsUnavailable) {
  const std::string packet(Channel::kMaxBytes + 1, 'x');
  ASSERT_EQ(::send(worker_->fd(), packet.data(), packet.size(), 0), static_cast<ssize_t>(packet.size()));
  EXPECT_THAT(daemon_->Receive(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("cut short")));
}

TEST(ChannelPathTest, Connect_ToWhoListens_IsAnEndThatBlocks) {
  const testing::TempDir dir;
  ASSERT_OK_AND_ASSIGN(const UniqueFd listener, Channel::Listen(dir.File("socket")));
  EXPECT_TRUE(::fcntl(listener.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(::fcntl(listener.get(), F_GETFL) & O_NONBLOCK);
  ASSERT_OK_AND_ASSIGN(Channel client, Channel::Connect(dir.File("socket")));
  EXPECT_TRUE(::fcntl(client.fd(), F_GETFD) & FD_CLOEXEC);
  EXPECT_FALSE(::fcntl(client.fd(), F_GETFL) & O_NONBLOCK);
  Channel accepted(UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  ASSERT_OK(accepted.Send(UnitOf("a")));
  ASSERT_OK_AND_ASSIGN(auto received, client.Receive());
  EXPECT_TRUE(received.has_value());
}

TEST(ChannelPathTest, Listen_WhereADeadOneListened_TakesItsPlace) {
  const testing::TempDir dir;
  { ASSERT_OK(Channel::Listen(dir.File("socket"))); }
  EXPECT_FALSE(Channel::Connect(dir.File("socket")).ok());
  ASSERT_OK_AND_ASSIGN(const UniqueFd listener, Channel::Listen(dir.File("socket")));
  EXPECT_OK(Channel::Connect(dir.File("socket")));
}

TEST(ChannelPathTest, Listen_WhereAFileIs_LeavesItThere) {
  const testing::TempDir dir;
  const std::string path = dir.Write("socket", "somebody's");
  EXPECT_FALSE(Channel::Listen(path).ok());
  EXPECT_EQ(::access(path.c_str(), F_OK), 0);
}

TEST(ChannelPathTest, Connect_WhereTooManyWait_DoesNotWaitWithThem) {
  const testing::TempDir dir;
  ASSERT_OK_AND_ASSIGN(const UniqueFd listener, Channel::Listen(dir.File("socket")));
  ASSERT_EQ(::listen(listener.get(), 0), 0);
  ASSERT_OK(Channel::Connect(dir.File("socket")));
  EXPECT_THAT(Channel::Connect(dir.File("socket")), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(ChannelPathTest, Path_ThatIsNone_IsAClearError) {
  const testing::TempDir dir;
  EXPECT_THAT(Channel::Connect(dir.File("none")), StatusIs(absl::StatusCode::kNotFound));
  const std::string longest(200, 'x');
  EXPECT_THAT(Channel::Listen(dir.File(longest)), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(longest)));
  EXPECT_THAT(Channel::Connect(""), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace stoker
