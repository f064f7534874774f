// SPDX-License-Identifier: Apache-2.0
#include "tests/support/child_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/time/clock.h"

namespace stoker::testing {

ChildProcess::ChildProcess(const std::function<void(int out)>& body) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) ::abort();
  ::fflush(nullptr);  // else both processes print what is buffered
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) ::abort();
  if (pid_ > 0) {
    ::close(fds[1]);
    fd_ = fds[0];
    return;
  }
  ::close(fds[0]);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  body(fds[1]);
  ::fflush(nullptr);
  ::_exit(::testing::Test::HasFailure() ? 1 : 0);
}

ChildProcess::~ChildProcess() {
  Kill(SIGKILL);
  Wait();
  ::close(fd_);
}

void ChildProcess::Kill(int signal) {
  if (pid_ > 0) ::kill(pid_, signal);
}

bool ChildProcess::ReadSome(absl::Time deadline) {
  const int64_t left_ms = std::max<int64_t>(0, absl::ToInt64Milliseconds(deadline - absl::Now()));
  pollfd entry = {fd_, POLLIN, 0};
  if (TEMP_FAILURE_RETRY(::poll(&entry, 1, static_cast<int>(left_ms))) <= 0) return false;
  char buffer[4096];
  const ssize_t n = TEMP_FAILURE_RETRY(::read(fd_, buffer, sizeof(buffer)));
  if (n <= 0) return false;
  result_.output.append(buffer, static_cast<size_t>(n));
  return true;
}

bool ChildProcess::WaitForOutput(absl::string_view text, absl::Duration deadline) {
  const absl::Time end = absl::Now() + deadline;
  while (!absl::StrContains(result_.output, text)) {
    if (!ReadSome(end)) return false;
  }
  return true;
}

ChildResult ChildProcess::Wait(absl::Duration deadline) {
  if (pid_ < 0) return result_;
  const absl::Time end = absl::Now() + deadline;
  while (ReadSome(end)) {
  }
  if (absl::Now() >= end) ::kill(pid_, SIGKILL);
  int status = 0;
  TEMP_FAILURE_RETRY(::waitpid(pid_, &status, 0));
  pid_ = -1;
  if (WIFEXITED(status)) result_.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result_.signal = WTERMSIG(status);
  return result_;
}

}  // namespace stoker::testing
