// SPDX-License-Identifier: Apache-2.0
// What is left of dead daemons, and only that.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shared/segment/segment.h"
#include "tests/support/child_process.h"
#include "tests/support/instance_id.h"
#include "tests/support/shm_namespace.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker::segment {
namespace {

using ::stoker::testing::ChildProcess;
using ::stoker::testing::IsOkAndHolds;
using ::stoker::testing::RandomInstanceId;
using ::stoker::testing::RunInShmNamespace;
using ::stoker::testing::ShmNamespaceSkipReason;
using ::stoker::testing::StatusIs;
using ::stoker::testing::TempDir;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr uint64_t kSize = 1 << 16;

SegmentOptions Options(const std::string& directory, const std::string& id, uint64_t generation = 1) {
  return {.directory = directory, .instance_id = id, .generation = generation, .size_bytes = kSize};
}

// A daemon with two segments, that waits to be killed.
class Daemon : public ChildProcess {
 public:
  explicit Daemon(const SegmentOptions& options)
      : ChildProcess([&options](int out) {
          SegmentOptions second = options;
          ++second.generation;
          ASSERT_OK_AND_ASSIGN(const Segment one, Segment::Create(options));
          ASSERT_OK_AND_ASSIGN(const Segment two, Segment::Create(second));
          ::dprintf(out, "ready");
          while (true) ::pause();
        }) {}
};

std::string Name(const std::string& id, uint64_t generation) { return absl::StrCat("stoker.", id, ".", generation); }

// Sends `fd` over a socket, as the daemon hands a segment to a worker.
void SendFd(int socket, int fd) {
  char byte = 0;
  iovec io = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  ASSERT_EQ(::sendmsg(socket, &message, 0), 1);
}

UniqueFd ReceiveFd(int socket) {
  char byte = 0;
  iovec io = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  if (::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 || CMSG_FIRSTHDR(&message) == nullptr) return UniqueFd();
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
  return UniqueFd(fd);
}

TEST(SweepOrphans, DaemonKilled_RemovesItsSegments) {
  const TempDir dir;
  const std::string id = RandomInstanceId();
  Daemon daemon(Options(dir.path(), id));
  ASSERT_TRUE(daemon.WaitForOutput("ready"));
  daemon.Kill(SIGKILL);
  EXPECT_EQ(daemon.Wait().signal, SIGKILL);
  EXPECT_THAT(SweepOrphans(dir.path()), IsOkAndHolds(UnorderedElementsAre(Name(id, 1), Name(id, 2))));
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(SweepOrphans, DaemonKilledInDevShm_RemovesItsSegments) {
  if (const std::string reason = ShmNamespaceSkipReason(); !reason.empty()) GTEST_SKIP() << reason;
  const auto result = RunInShmNamespace(1 << 20, [](int) {
    const std::string id = RandomInstanceId();
    Daemon daemon(Options(kDefaultDirectory, id));
    ASSERT_TRUE(daemon.WaitForOutput("ready"));
    daemon.Kill(SIGKILL);
    daemon.Wait();
    EXPECT_THAT(SweepOrphans(kDefaultDirectory), IsOkAndHolds(UnorderedElementsAre(Name(id, 1), Name(id, 2))));
  });
  EXPECT_EQ(result.exit_code, 0);
}

TEST(SweepOrphans, DaemonAliveOrStopped_KeepsItsSegments) {
  const TempDir dir;
  Daemon daemon(Options(dir.path(), RandomInstanceId()));
  ASSERT_TRUE(daemon.WaitForOutput("ready"));
  EXPECT_THAT(SweepOrphans(dir.path()), IsOkAndHolds(IsEmpty()));
  daemon.Kill(SIGSTOP);
  EXPECT_THAT(SweepOrphans(dir.path()), IsOkAndHolds(IsEmpty()));
}

TEST(SweepOrphans, OwnSegment_IsKept) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(const Segment segment, Segment::Create(Options(dir.path(), RandomInstanceId())));
  EXPECT_THAT(SweepOrphans(dir.path()), IsOkAndHolds(IsEmpty()));
  EXPECT_TRUE(segment.linked());
}

TEST(SweepOrphans, TwoDaemonsOneDead_RemovesTheDeadOnes) {
  const TempDir dir;
  const std::string dead_id = RandomInstanceId();
  Daemon alive(Options(dir.path(), RandomInstanceId()));
  ASSERT_TRUE(alive.WaitForOutput("ready"));
  Daemon dead(Options(dir.path(), dead_id));
  ASSERT_TRUE(dead.WaitForOutput("ready"));
  dead.Kill(SIGKILL);
  dead.Wait();
  EXPECT_THAT(SweepOrphans(dir.path()), IsOkAndHolds(UnorderedElementsAre(Name(dead_id, 1), Name(dead_id, 2))));
}

TEST(SweepOrphans, WorkerWithTheDescriptorOutlivesTheDaemon_DoesNotKeepTheSegment) {
  const TempDir dir;
  const std::string id = RandomInstanceId();
  int sockets[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
  ChildProcess daemon([&](int out) {
    ASSERT_OK_AND_ASSIGN(const Segment segment, Segment::Create(Options(dir.path(), id)));
    SendFd(sockets[1], segment.fd());
    ::dprintf(out, "ready");
    while (true) ::pause();
  });
  ASSERT_TRUE(daemon.WaitForOutput("ready"));
  UniqueFd fd = ReceiveFd(sockets[0]);
  ::close(sockets[0]);
  ::close(sockets[1]);
  ASSERT_OK_AND_ASSIGN(MappedSegment worker, MappedSegment::MapReadWrite(std::move(fd), kSize));
  EXPECT_THAT(SweepOrphans(dir.path()), IsOkAndHolds(IsEmpty()));
  daemon.Kill(SIGKILL);
  daemon.Wait();
  EXPECT_THAT(SweepOrphans(dir.path()), IsOkAndHolds(UnorderedElementsAre(Name(id, 1))));
  worker.mutable_data()[kSize - 1] = 1;
}

TEST(SweepOrphans, FilesThatAreNoSegments_AreKept) {
  const TempDir dir;
  const std::string id = RandomInstanceId();
  for (const std::string& name :
       {std::string("torch_1_2"), std::string("psm_12345678"), absl::StrCat("stokers.", id, ".1"),
        std::string("stoker."), std::string("stoker.pid"), std::string("stoker.log.1"), std::string("stoker.d5.1"),
        absl::StrCat("stoker.", id), absl::StrCat("stoker.", id, "."), absl::StrCat("stoker.", id, ".x"),
        absl::StrCat("stoker.", id, ".1.bak"), absl::StrCat("stoker.", id.substr(1), ".11"),
        absl::StrCat("stoker.", id, "0.1"), absl::StrCat("stoker.", id.substr(1), "g.1")}) {
    dir.Write(name, "theirs");
    EXPECT_THAT(SweepOrphans(dir.path()), IsOkAndHolds(IsEmpty())) << name;
    EXPECT_TRUE(std::filesystem::exists(dir.File(name))) << name;
  }
}

TEST(SweepOrphans, NoRegularFile_IsKept) {
  const TempDir dir;
  const std::string id = RandomInstanceId();
  std::filesystem::create_directory(dir.File(Name(id, 1)));
  std::filesystem::create_symlink(dir.Write("target", "theirs"), dir.File(Name(id, 2)));
  ASSERT_EQ(::mkfifo(dir.File(Name(id, 3)).c_str(), 0600), 0);
  EXPECT_THAT(SweepOrphans(dir.path()), IsOkAndHolds(IsEmpty()));
  for (int generation = 1; generation <= 3; ++generation) {
    EXPECT_TRUE(std::filesystem::exists(std::filesystem::symlink_status(dir.File(Name(id, generation)))));
  }
  EXPECT_TRUE(std::filesystem::exists(dir.File("target")));
}

TEST(SweepOrphans, SegmentOfAnotherUser_IsKept) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can make a file of another user";
  const TempDir dir;
  const std::string path = dir.Write(Name(RandomInstanceId(), 1), "theirs");
  ASSERT_EQ(::chown(path.c_str(), 65534, 65534), 0);
  EXPECT_THAT(SweepOrphans(dir.path()), IsOkAndHolds(IsEmpty()));
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST(SweepOrphans, NoSuchDirectory_IsNotFound) {
  EXPECT_THAT(SweepOrphans("/no/such"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("sweep: /no/such")));
}

// One process creates without end while two others sweep. A segment that was created stays; one that a sweep took in
// the moment between its birth and its lock is Unavailable, never anything else.
void CreateAgainstSweep(const std::string& directory) {
  const auto sweep = [&](int) {
    while (true) ASSERT_OK(SweepOrphans(directory));
  };
  ChildProcess first(sweep);
  ChildProcess second(sweep);
  const std::string id = RandomInstanceId();
  int created = 0;
  for (uint64_t generation = 1; generation <= 1500; ++generation) {
    const absl::StatusOr<Segment> segment = Segment::Create(Options(directory, id, generation));
    if (!segment.ok()) {
      ASSERT_THAT(segment, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("sweeping")));
      continue;
    }
    ++created;
    ASSERT_TRUE(segment->linked());
    ASSERT_OK(SweepOrphans(directory));
    ASSERT_TRUE(segment->linked());
  }
  EXPECT_GT(created, 0);
  first.Kill(SIGKILL);
  second.Kill(SIGKILL);
  first.Wait();
  second.Wait();
  ASSERT_OK(SweepOrphans(directory));
  EXPECT_TRUE(std::filesystem::is_empty(directory));
}

TEST(SweepOrphans, SegmentsCreatedMeanwhile_AreKeptOrUnavailable) {
  const TempDir dir;
  CreateAgainstSweep(dir.path());
}

TEST(SweepOrphans, SegmentsCreatedMeanwhileInDevShm_AreKeptOrUnavailable) {
  if (const std::string reason = ShmNamespaceSkipReason(); !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_EQ(RunInShmNamespace(1 << 20, [](int) { CreateAgainstSweep(kDefaultDirectory); }).exit_code, 0);
}

}  // namespace
}  // namespace stoker::segment
