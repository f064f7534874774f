// SPDX-License-Identifier: Apache-2.0
// A lambda in a forked process: to be killed, to hold locks, to drop privileges, or to have its own mounts.
//
//   ChildProcess child([&](int out) { ...; dprintf(out, "ready\n"); pause(); });
//   ASSERT_TRUE(child.WaitForOutput("ready"));
//   child.Kill(SIGKILL);
//   EXPECT_EQ(child.Wait().signal, SIGKILL);
//
// EXPECT and ASSERT work in the lambda: what fails there is printed, and the child exits 1; else 0. It leaves by _exit,
// so objects of the parent are not destroyed twice. Only for tests of a single thread at the time of the fork.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace stoker::testing {

struct ChildResult {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;      // that ended it; SIGKILL also when the deadline passed
  std::string output;  // what it wrote to `out`
};

class ChildProcess {
 public:
  explicit ChildProcess(const std::function<void(int out)>& body);
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();  // kills and reaps it

  pid_t pid() const { return pid_; }
  void Kill(int signal);

  // Blocks until all output so far contains `text`; false when the child ended, or the deadline passed, before.
  bool WaitForOutput(absl::string_view text, absl::Duration deadline = absl::Seconds(60));

  // Blocks until it has ended, and kills it at the deadline.
  ChildResult Wait(absl::Duration deadline = absl::Seconds(60));

 private:
  bool ReadSome(absl::Time deadline);  // false at the end of the output or at the deadline

  pid_t pid_ = -1;  // -1 once reaped
  int fd_ = -1;
  ChildResult result_;
};

}  // namespace stoker::testing
