// SPDX-License-Identifier: Apache-2.0
#include "shared/base/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/child_process.h"
#include "tests/support/shm_namespace.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker {
namespace {

using ::stoker::testing::ChildProcess;
using ::stoker::testing::IsOk;
using ::stoker::testing::IsOkAndHolds;
using ::stoker::testing::RunInShmNamespace;
using ::stoker::testing::ShmNamespaceSkipReason;
using ::stoker::testing::StatusIs;
using ::stoker::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kLimit = 1 << 24;

std::vector<std::string> NamesIn(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  return names;
}

std::string Text(absl::Span<const uint8_t> bytes) { return std::string(bytes.begin(), bytes.end()); }

TEST(ErrnoStatus, EachErrno_HasItsCode) {
  const std::vector<std::pair<int, absl::StatusCode>> cases = {
      {ENOENT, absl::StatusCode::kNotFound},          {EACCES, absl::StatusCode::kPermissionDenied},
      {EPERM, absl::StatusCode::kPermissionDenied},   {EROFS, absl::StatusCode::kPermissionDenied},
      {ENOSPC, absl::StatusCode::kResourceExhausted}, {ENOMEM, absl::StatusCode::kResourceExhausted},
      {EDQUOT, absl::StatusCode::kResourceExhausted}, {EMFILE, absl::StatusCode::kResourceExhausted},
      {ENFILE, absl::StatusCode::kResourceExhausted}, {EIO, absl::StatusCode::kInternal},
      {EEXIST, absl::StatusCode::kInternal}};
  for (const auto& [error, code] : cases) EXPECT_EQ(ErrnoStatus(error, "a", "b").code(), code) << error;
}

TEST(ErrnoStatus, Message_SaysWhatObjectAndReason) {
  EXPECT_EQ(ErrnoStatus(ENOENT, "open", "/x").message(), "open: /x: No such file or directory");
}

TEST(OpenFile, Open_IsClosedByExec) {
  ASSERT_OK_AND_ASSIGN(const UniqueFd fd, OpenFile("/dev/null", O_RDONLY));
  EXPECT_NE(::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(OpenFile, NoSuchFile_IsNotFound) {
  TempDir dir;
  EXPECT_THAT(OpenFile(dir.File("none"), O_RDONLY),
              StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr("open"), HasSubstr(dir.File("none")))));
}

TEST(ReadFile, FileUpToTheLimit_IsRead) {
  TempDir dir;
  const std::string text(200000, 'x');
  EXPECT_THAT(ReadFile(dir.Write("a", text), text.size()), IsOkAndHolds(text));
  EXPECT_THAT(ReadFile(dir.Write("empty", ""), 0), IsOkAndHolds(""));
}

TEST(ReadFile, FileAboveTheLimit_IsResourceExhausted) {
  TempDir dir;
  const std::string path = dir.Write("a", std::string(1001, 'x'));
  EXPECT_THAT(ReadFile(path, 1000),
              StatusIs(absl::StatusCode::kResourceExhausted, AllOf(HasSubstr(path), HasSubstr("1000 bytes"))));
  EXPECT_THAT(ReadFile("/dev/zero", 1000), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("/dev/zero")));
}

TEST(ReadFile, FileWithoutASize_IsReadToItsEnd) {
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile("/proc/self/status", kLimit));
  EXPECT_THAT(text, HasSubstr("VmRSS"));
}

TEST(ReadFile, Folder_IsAnErrorThatNamesIt) {
  TempDir dir;
  EXPECT_THAT(ReadFile(dir.path(), kLimit), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(dir.path())));
}

TEST(WriteAll, FullDevice_IsResourceExhausted) {
  ASSERT_OK_AND_ASSIGN(const UniqueFd fd, OpenFile("/dev/full", O_WRONLY));
  EXPECT_THAT(WriteAll(fd.get(), "x", "/dev/full"),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("write: /dev/full")));
}

// A write to a pipe that a signal interrupts returns early, with EINTR or with what fitted until then.
TEST(WriteAll, SignalsAndShortWrites_LoseNothing) {
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  std::string sent(1 << 20, ' ');
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>('a' + i % 23);
  ChildProcess writer([&](int) {
    ::close(fds[0]);
    struct sigaction action = {};
    action.sa_handler = [](int) {};  // without SA_RESTART
    ::sigaction(SIGALRM, &action, nullptr);
    const itimerval often = {{0, 200}, {0, 200}};
    ::setitimer(ITIMER_REAL, &often, nullptr);
    EXPECT_OK(WriteAll(fds[1], sent, "pipe"));
  });
  ::close(fds[1]);
  std::string received;
  char buffer[1000];
  for (ssize_t n; (n = ::read(fds[0], buffer, sizeof(buffer))) > 0;) received.append(buffer, n);
  ::close(fds[0]);
  EXPECT_EQ(writer.Wait().exit_code, 0);
  EXPECT_TRUE(received == sent);
}

TEST(WriteFileAtomically, NewFile_IsReadableByAll) {
  TempDir dir;
  ASSERT_OK(WriteFileAtomically(dir.File("a"), "text"));
  EXPECT_THAT(ReadFile(dir.File("a"), kLimit), IsOkAndHolds("text"));
  struct stat info;
  ASSERT_EQ(::stat(dir.File("a").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0644u);
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("a"));
}

TEST(WriteFileAtomically, OldFileStillOpen_KeepsItsOldBytes) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(const MappedFile old, MappedFile::Open(dir.Write("a", "old")));
  ASSERT_OK(WriteFileAtomically(dir.File("a"), "new"));
  EXPECT_EQ(Text(old.bytes()), "old");
  EXPECT_THAT(ReadFile(dir.File("a"), kLimit), IsOkAndHolds("new"));
}

TEST(WriteFileAtomically, ReadMeanwhile_IsAllOldOrAllNew) {
  TempDir dir("/dev/shm");  // where fsync costs nothing
  const std::string path = dir.Write("a", std::string(1 << 18, 'a'));
  ChildProcess writer([&](int out) {
    ::dprintf(out, "ready");
    for (int i = 0;; ++i) ASSERT_OK(WriteFileAtomically(path, std::string((1 << 18) + i % 2, i % 2 ? 'b' : 'a')));
  });
  ASSERT_TRUE(writer.WaitForOutput("ready"));
  for (int i = 0; i < 200; ++i) {
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path, kLimit));
    ASSERT_TRUE(text == std::string(1 << 18, 'a') || text == std::string((1 << 18) + 1, 'b')) << text.size();
  }
}

TEST(WriteFileAtomically, WriterKilled_LeavesAWholeFile) {
  TempDir dir("/dev/shm");  // where fsync costs nothing
  for (int round = 0; round < 10; ++round) {
    const std::string path = dir.Write("a", std::string(1 << 18, 'a'));
    ChildProcess writer([&](int out) {
      ::dprintf(out, "ready");
      while (true) ASSERT_OK(WriteFileAtomically(path, std::string(1 << 18, 'b')));
    });
    ASSERT_TRUE(writer.WaitForOutput("ready"));
    ::usleep(static_cast<useconds_t>(round * 300));  // so that the signal falls into another place each time
    writer.Kill(SIGKILL);
    EXPECT_EQ(writer.Wait().signal, SIGKILL);
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path, kLimit));
    EXPECT_TRUE(text == std::string(1 << 18, 'a') || text == std::string(1 << 18, 'b')) << text.size();
  }
}

TEST(WriteFileAtomically, TargetIsAFolder_LeavesNoTemporaryFile) {
  TempDir dir;
  std::filesystem::create_directory(dir.File("a"));
  EXPECT_THAT(WriteFileAtomically(dir.File("a"), "text"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("rename to: " + dir.File("a"))));
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("a"));
}

TEST(WriteFileAtomically, NoSuchFolder_IsNotFound) {
  TempDir dir;
  EXPECT_THAT(WriteFileAtomically(dir.File("none/a"), "text"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(dir.File("none/a"))));
}

TEST(WriteFileAtomically, FullDisk_KeepsTheOldFileAndLeavesNoTemporaryFile) {
  if (const std::string reason = ShmNamespaceSkipReason(); !reason.empty()) GTEST_SKIP() << reason;
  const auto result = RunInShmNamespace(1 << 20, [](int) {
    TempDir dir("/dev/shm");
    const std::string path = dir.Write("a", "old");
    EXPECT_THAT(WriteFileAtomically(path, std::string(4 << 20, 'b')),
                StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("write: " + path)));
    EXPECT_THAT(ReadFile(path, kLimit), IsOkAndHolds("old"));
    EXPECT_THAT(NamesIn(dir.path()), ElementsAre("a"));
  });
  EXPECT_EQ(result.exit_code, 0);
}

TEST(WriteFileAtomically, FolderNotWritable_IsPermissionDenied) {
  TempDir dir;
  ASSERT_EQ(::chmod(dir.path().c_str(), 0555), 0);
  const auto result = ChildProcess([&](int) {
                        // Root may write anywhere.
                        if (::geteuid() == 0) {
                          ASSERT_EQ(::setresuid(65534, 65534, 65534), 0);
                        }
                        EXPECT_THAT(WriteFileAtomically(dir.File("a"), "text"),
                                    StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr(dir.File("a"))));
                      }).Wait();
  EXPECT_EQ(result.exit_code, 0);
}

TEST(MappedFile, RegularFile_GivesItsBytesAlsoAfterItsRemoval) {
  TempDir dir;
  const std::string path = dir.Write("a", "text");
  ASSERT_OK_AND_ASSIGN(const MappedFile file, MappedFile::Open(path));
  ASSERT_EQ(::unlink(path.c_str()), 0);
  EXPECT_EQ(Text(file.bytes()), "text");
}

TEST(MappedFile, EmptyFile_GivesAnEmptySpan) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(const MappedFile file, MappedFile::Open(dir.Write("a", "")));
  EXPECT_THAT(file.bytes(), IsEmpty());
}

TEST(MappedFile, Moved_TakesTheBytesAlong) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(MappedFile first, MappedFile::Open(dir.Write("a", "text")));
  MappedFile second(std::move(first));
  EXPECT_THAT(first.bytes(), IsEmpty());  // NOLINT(bugprone-use-after-move)
  MappedFile third;
  third = std::move(second);
  EXPECT_EQ(Text(third.bytes()), "text");
}

TEST(MappedFile, NoSuchFile_IsNotFound) {
  TempDir dir;
  EXPECT_THAT(MappedFile::Open(dir.File("none")), StatusIs(absl::StatusCode::kNotFound, HasSubstr(dir.File("none"))));
}

TEST(MappedFile, NotARegularFile_IsInvalidArgument) {
  TempDir dir;
  for (const std::string& path : {dir.path(), std::string("/dev/null")}) {
    EXPECT_THAT(MappedFile::Open(path), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(path)));
  }
}

TEST(MappedFile, FifoWithoutAWriter_IsInvalidArgumentAndDoesNotBlock) {
  TempDir dir;
  ASSERT_EQ(::mkfifo(dir.File("fifo").c_str(), 0600), 0);
  ChildProcess child([&](int) {
    EXPECT_THAT(MappedFile::Open(dir.File("fifo")),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")));
  });
  EXPECT_EQ(child.Wait(absl::Seconds(20)).exit_code, 0);
}

}  // namespace
}  // namespace stoker
