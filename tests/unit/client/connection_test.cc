// SPDX-License-Identifier: Apache-2.0
#include "client/src/connection.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "shared/base/paths.h"
#include "shared/base/unique_fd.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/client/fake_daemon.h"

namespace stoker::client {
namespace {

using ::testing::AllOf;
using testing::FakeDaemon;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

// Sets environment variables for one test; an empty value unsets.
class ScopedEnvironment {
 public:
  ScopedEnvironment(const char* name, const std::string& value) : name_(name) {
    if (const char* old = ::getenv(name)) old_ = old;
    Set(value);
  }
  ~ScopedEnvironment() { Set(old_); }

 private:
  void Set(const std::string& value) { value.empty() ? ::unsetenv(name_) : ::setenv(name_, value.c_str(), 1); }
  const char* name_;
  std::string old_;
};

TEST(ParseAddressTest, PathsAndHosts) {
  const auto target = [](const char* address) { return ParseAddress(address).value(); };
  EXPECT_EQ(target("/run/x.sock").grpc_target, "unix:/run/x.sock");
  EXPECT_EQ(target("unix:/run/x.sock").address, "/run/x.sock");
  EXPECT_EQ(target("unix:///run/x.sock").address, "/run/x.sock");
  EXPECT_EQ(target("x.sock").grpc_target, "unix:x.sock");
  EXPECT_TRUE(target("./a:b").unix_socket);
  EXPECT_EQ(target("node7:4040").grpc_target, "node7:4040");
  EXPECT_FALSE(target("[::1]:4040").unix_socket);
}

TEST(ParseAddressTest, ImpossibleOnes_AreInvalid) {
  for (const char* address : {"host:", "host:0", "host:65536", "host:x", "unix:"}) {
    EXPECT_THAT(ParseAddress(address), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(address)));
  }
  EXPECT_THAT(ParseAddress("/" + std::string(200, 'x')),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 to 107 bytes")));
}

TEST(ConnectionTest, Connect_WhereNothingIs_IsUnavailableAndNamesTheRemedy) {
  const TempDir dir;
  EXPECT_THAT(Connection::Connect({.address = dir.File("no.sock")}),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr(dir.File("no.sock")), HasSubstr("No such file"), HasSubstr("start stokerd"))));
}

TEST(ConnectionTest, Connect_ToASocketThatADeadDaemonLeft_IsUnavailable) {
  const TempDir dir;
  const std::string path = dir.File("stale.sock");
  {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::strcpy(name.sun_path, path.c_str());
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  }
  EXPECT_THAT(Connection::Connect({.address = path}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("Connection refused")));
}

TEST(ConnectionTest, Connect_ToSomebodyWhoDoesNotAnswer_EndsAtTheTimeout) {
  const TempDir dir;
  const std::string path = dir.File("mute.sock");
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::strcpy(name.sun_path, path.c_str());
  ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  ASSERT_EQ(::listen(fd.get(), 4), 0);
  EXPECT_THAT(Connection::Connect({.address = path, .timeout = absl::Milliseconds(200)}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no answer in 200ms")));
}

TEST(ConnectionTest, Connect_ToAPortWhereNothingListens_IsUnavailable) {
  EXPECT_THAT(Connection::Connect({.address = "127.0.0.1:1"}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("127.0.0.1:1")));
}

TEST(ConnectionTest, Connect_WithoutAddress_AsksTheEnvironmentThenTheUsersSocket) {
  if (Connection::Connect({.address = kSystemSocketPath}).ok()) GTEST_SKIP() << "a system daemon runs here";
  const TempDir dir;
  ASSERT_EQ(::mkdir(dir.File("stoker").c_str(), 0700), 0);
  const ScopedEnvironment runtime("XDG_RUNTIME_DIR", dir.path());
  const ScopedEnvironment none("STOKER_ADDRESS", "");
  EXPECT_THAT(Connection::Connect({}),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr(kSystemSocketPath), HasSubstr(dir.File("stoker/stoker.sock")))));
  const FakeDaemon users({.socket = dir.File("stoker/stoker.sock")});
  absl::StatusOr<std::shared_ptr<Connection>> connection = Connection::Connect({});
  ASSERT_THAT(connection, IsOk());
  EXPECT_EQ((*connection)->address(), dir.File("stoker/stoker.sock"));
  const FakeDaemon named({.socket = dir.File("named.sock")});
  const ScopedEnvironment address("STOKER_ADDRESS", "unix:" + dir.File("named.sock"));
  connection = Connection::Connect({});
  ASSERT_THAT(connection, IsOk());
  EXPECT_EQ((*connection)->address(), dir.File("named.sock"));
}

TEST(PathsTest, FollowTheEnvironment) {
  const ScopedEnvironment runtime("XDG_RUNTIME_DIR", "/r");
  const ScopedEnvironment cache("XDG_CACHE_HOME", "/c");
  const ScopedEnvironment home("HOME", "/h");
  EXPECT_EQ(DefaultSocketPath(), "/r/stoker/stoker.sock");
  EXPECT_EQ(DefaultCacheDir(), "/c/stoker");
  const ScopedEnvironment relative("XDG_CACHE_HOME", "relative");
  EXPECT_EQ(DefaultCacheDir(), "/h/.cache/stoker");
  const ScopedEnvironment no_runtime("XDG_RUNTIME_DIR", "");
  EXPECT_EQ(DefaultSocketPath(), "/tmp/stoker-" + std::to_string(::geteuid()) + "/stoker.sock");
}

}  // namespace
}  // namespace stoker::client
