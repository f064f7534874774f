// SPDX-License-Identifier: Apache-2.0
// The keeping of a process; programs that stand for stokerd are shell scripts. The real one is started in
// tests/integration.
#include "stoker/embedded_daemon.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

class EmbeddedDaemonTest : public ::testing::Test {
 protected:
  EmbeddedDaemonTest() { ::setenv("TMPDIR", dir_.path().c_str(), 1); }
  ~EmbeddedDaemonTest() override { ::unsetenv("TMPDIR"); }

  std::string Script(const std::string& text) {
    const std::string path = dir_.Write("stokerd", "#!/bin/sh\n" + text);
    ::chmod(path.c_str(), 0700);
    return path;
  }
  int LeftBehind() const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) count += entry.is_directory() ? 1 : 0;
    return count;
  }
  TempDir dir_;
};

TEST_F(EmbeddedDaemonTest, Start_OfAMissingProgram_IsNotFound) {
  EXPECT_THAT(EmbeddedDaemon::Start({.program = dir_.File("none")}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(dir_.File("none"))));
}

TEST_F(EmbeddedDaemonTest, Start_OfOneThatExits_TellsItsLastWords) {
  EXPECT_THAT(
      EmbeddedDaemon::Start({.program = Script("echo no room in /dev/shm >&2; exit 5")}),
      StatusIs(absl::StatusCode::kUnavailable, AllOf(HasSubstr("exited with 5"), HasSubstr("no room in /dev/shm"))));
  EXPECT_EQ(LeftBehind(), 0);
}

TEST_F(EmbeddedDaemonTest, Start_OfOneThatDoesNotServe_EndsItAtTheDeadline) {
  const std::string program = Script("echo $$ > " + dir_.File("pid") + "; echo waiting; exec sleep 1000");
  EXPECT_THAT(EmbeddedDaemon::Start({.program = program, .start_timeout = absl::Milliseconds(300)}),
              StatusIs(absl::StatusCode::kUnavailable, AllOf(HasSubstr("does not serve"), HasSubstr("waiting"))));
  std::ifstream file(dir_.File("pid"));
  pid_t pid = 0;
  file >> pid;
  ASSERT_GT(pid, 0);
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_EQ(LeftBehind(), 0);
}

TEST_F(EmbeddedDaemonTest, Start_KillsOneThatIgnoresSigterm) {
  const std::string program = Script("trap '' TERM; while true; do sleep 0.05; done");
  EXPECT_THAT(
      EmbeddedDaemon::Start(
          {.program = program, .start_timeout = absl::Milliseconds(200), .stop_timeout = absl::Milliseconds(200)}),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr("does not serve")));
}

TEST_F(EmbeddedDaemonTest, Start_PassesItsOptionsAsFlags) {
  const std::string program = Script("echo \"$@\"; exit 1");
  EXPECT_THAT(EmbeddedDaemon::Start({.program = program,
                                     .arena_bytes = "64MiB",
                                     .workers = "2",
                                     .roots = {"/a", "/b c"},
                                     .extra = {"--log-level", "debug"}}),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr("--socket " + dir_.path()), HasSubstr("--arena-bytes 64MiB --workers 2"),
                             HasSubstr("--root /a --root /b c --log-level debug"))));
}

}  // namespace
}  // namespace stoker
