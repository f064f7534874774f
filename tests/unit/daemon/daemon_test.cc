// SPDX-License-Identifier: Apache-2.0
// How a daemon starts and stops, and what it does without. With worker processes, under faults and as a program it is
// in tests/integration.
#include "server/daemon.h"

#include <gmock/gmock.h>
#include <grpc/grpc.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "shared/base/paths.h"
#include "shared/base/unique_fd.h"
#include "stoker/client.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using testing::IsOkAndHolds;
using testing::StatusIs;

class DaemonTest : public ::testing::Test {
 protected:
  DaemonTest() {
    grpc_init();  // as stokerd does: gRPC's shutdown may wait ten seconds
    options_.socket = dir_.File("run/socket");
    options_.cache_dir = dir_.File("cache");
    options_.roots = {dir_.File("data")};
    options_.arena_bytes = "16MiB";
    options_.segment_bytes = "auto";
    options_.workers = 0;
    options_.shm_dir = "/dev/shm";
    options_.lease_limit = 64;
    options_.session_limit = 8;
    options_.part_deadline = absl::Seconds(60);
    options_.drain_deadline = absl::Seconds(10);
    options_.log_level = log::Level::kError;
    log::SetLevel(options_.log_level);
    std::filesystem::create_directory(options_.roots[0]);
    ::mkdir(dir_.File("cache").c_str(), 0755);
  }
  // Whatever a test did: no socket, lock or segment is left.
  ~DaemonTest() override {
    daemon_ = nullptr;
    EXPECT_TRUE(!std::filesystem::exists(dir_.File("run")) || std::filesystem::is_empty(dir_.File("run")));
    if (instance_.empty()) return;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
      EXPECT_FALSE(absl::StrContains(entry.path().string(), instance_)) << entry.path();
    }
  }
  absl::Status Start() {
    absl::StatusOr<std::unique_ptr<Daemon>> daemon = Daemon::Start(options_, [this] { serving_.Notify(); });
    if (!daemon.ok()) return daemon.status();
    daemon_ = *std::move(daemon);
    return absl::OkStatus();
  }
  v1::StatusReply Status() {
    const absl::StatusOr<Client> client = Client::Connect({.address = options_.socket});
    EXPECT_OK(client);
    const absl::StatusOr<v1::StatusReply> status = client->GetStatus();
    EXPECT_OK(status);
    if (!status.ok()) return {};
    instance_ = status->instance_id();
    return *status;
  }

  const testing::TempDir dir_;
  DaemonOptions options_;
  absl::Notification serving_;
  std::unique_ptr<Daemon> daemon_;
  std::string instance_;
};

TEST_F(DaemonTest, Start_ServesOnceTheArenaIsThere_AndStopLeavesNothing) {
  ASSERT_OK(Start());
  ASSERT_TRUE(serving_.WaitForNotificationWithTimeout(absl::Seconds(60)));
  const v1::StatusReply status = Status();
  EXPECT_EQ(status.state(), v1::StatusReply::SERVING);
  EXPECT_EQ(status.pid(), ::getpid());
  EXPECT_EQ(status.arena().mode(), "shm");
  EXPECT_GT(status.arena().capacity_bytes(), 15u << 20);
  EXPECT_LE(status.arena().capacity_bytes(), 16u << 20);
  EXPECT_EQ(status.notices_size(), 0);
  EXPECT_GT(daemon_->turns(), 0u);
  daemon_->Stop();
  daemon_->Stop();  // once is enough
  EXPECT_FALSE(Client::Connect({.address = options_.socket}).ok());
}

TEST_F(DaemonTest, Stop_AtOnce_EndsPrefaultingAndNeverSaysServing) {
  options_.arena_bytes = "256MiB";
  ASSERT_OK(Start());
  Status();
  daemon_->Stop();
}

TEST_F(DaemonTest, SocketOfAnotherDaemon_IsRefused_AndThatOneGoesOn) {
  ASSERT_OK(Start());
  const auto second = Daemon::Start(options_, [] {});
  EXPECT_THAT(second.status(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                        AllOf(HasSubstr(options_.socket), HasSubstr(absl::StrCat(::getpid())))));
  ASSERT_TRUE(serving_.WaitForNotificationWithTimeout(absl::Seconds(60)));
  EXPECT_EQ(Status().state(), v1::StatusReply::SERVING);
}

// What a killed daemon left there.
TEST_F(DaemonTest, SocketsOfADeadDaemon_AreReplaced) {
  std::filesystem::create_directory(dir_.File("run"));
  for (const std::string& path : {options_.socket, LanePath(options_.socket)}) {
    ASSERT_OK(Channel::Listen(path));  // and closed: nobody listens there
    ASSERT_TRUE(std::filesystem::exists(path));
  }
  ASSERT_OK(Start());
  EXPECT_EQ(Status().notices_size(), 0);
}

TEST_F(DaemonTest, NoPlaceForLanes_IsNoticed_AndItServesWithout) {
  std::filesystem::create_directory(dir_.File("run"));
  dir_.Write("run/socket.lane", "somebody's");
  ASSERT_OK(Start());
  const v1::StatusReply status = Status();
  EXPECT_THAT(status.notices(), Contains(HasSubstr("no lanes for sessions")));
  daemon_ = nullptr;
  EXPECT_TRUE(std::filesystem::remove(dir_.File("run/socket.lane"))) << "it was not the daemon's";
}

TEST_F(DaemonTest, GroupThatThereIsNot_IsRefused) {
  options_.socket_group = "no_such_group";
  EXPECT_THAT(Start(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no_such_group")));
}

TEST_F(DaemonTest, TcpPortInUse_IsRefused) {
  const UniqueFd other(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(name);
  ASSERT_EQ(::bind(other.get(), reinterpret_cast<sockaddr*>(&name), size), 0);
  ASSERT_EQ(::getsockname(other.get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
  ASSERT_EQ(::listen(other.get(), 1), 0);
  options_.listen = absl::StrCat("127.0.0.1:", ntohs(name.sin_port));
  EXPECT_THAT(Start(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(options_.listen)));
}

TEST_F(DaemonTest, ArenaLargerThanTheMount_IsRefusedWithBothSizes) {
  options_.arena_bytes = "1000TiB";
  EXPECT_THAT(Start(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("1000.0 TiB")));
}

TEST_F(DaemonTest, NoSharedMemory_SizeGiven_IsRefused) {
  options_.shm_dir = dir_.File("none");
  EXPECT_THAT(Start(), StatusIs(absl::StatusCode::kNotFound, HasSubstr(options_.shm_dir)));
}

TEST_F(DaemonTest, CacheThatIsNoFolder_IsRefused) {
  options_.cache_dir = dir_.Write("file", "");
  EXPECT_FALSE(Start().ok());
}

}  // namespace
}  // namespace stoker
