// SPDX-License-Identifier: Apache-2.0
// The programs of this build as real processes, and what they may leave behind.
//
//   RunningProgram daemon({Program("stokerd"), "--socket", path});
//   ASSERT_TRUE(daemon.WaitForError("serving"));
//   daemon.Kill(SIGTERM);
//   EXPECT_EQ(daemon.Wait().exit_code, 0);
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shared/base/unique_fd.h"

namespace stoker::testing {

// Path of a program of this build: "stokerd", "stoker-worker", "stokerctl", "integration_reader".
std::string Program(absl::string_view name);

// Path below the folder of real data; empty when it is not there.
std::string SharedFile(absl::string_view path);

struct ProgramResult {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;      // that ended it; SIGKILL also when the deadline passed
  std::string out;
  std::string err;
};

// A process that this one started, with its standard input, output and error in hand. It gets SIGTERM when the thread
// that started it dies. Thread-compatible.
class RunningProgram {
 public:
  struct Options {
    uid_t uid = 0;                         // not 0: runs as this user, who is in no group but one of the same number
    std::vector<std::string> environment;  // "NAME=value", added
  };
  explicit RunningProgram(std::vector<std::string> command) : RunningProgram(std::move(command), Options()) {}
  RunningProgram(std::vector<std::string> command, const Options& options);
  RunningProgram(const RunningProgram&) = delete;
  RunningProgram& operator=(const RunningProgram&) = delete;
  ~RunningProgram();  // kills and reaps it

  pid_t pid() const { return pid_; }
  void Kill(int signal);
  void Say(absl::string_view line);  // to its standard input, with a line break

  // Block until all output so far contains `text`; false when the program ended, or the deadline passed, before.
  bool WaitForOutput(absl::string_view text, absl::Duration deadline = absl::Seconds(60));
  bool WaitForError(absl::string_view text, absl::Duration deadline = absl::Seconds(60));
  const std::string& output() const { return result_.out; }  // so far, as the calls above and below have read it
  const std::string& error() const { return result_.err; }

  // Closes its standard input, blocks until it has ended, and kills it at the deadline.
  ProgramResult Wait(absl::Duration deadline = absl::Seconds(60));

 private:
  bool WaitFor(const std::string& text, const std::string& where, absl::Time deadline);
  bool ReadSome(absl::Time deadline);  // false at the end of both streams or at the deadline

  pid_t pid_ = -1;  // -1 once reaped
  UniqueFd in_, out_, err_;
  ProgramResult result_;
};

ProgramResult RunProgram(std::vector<std::string> command, absl::Duration deadline = absl::Seconds(60));

// Names of the segments of a daemon that are there.
std::vector<std::string> SegmentsOf(absl::string_view instance_id, const std::string& directory = "/dev/shm");

// Worker processes of a daemon that are there; those that have ended and are not reaped do not count.
std::vector<pid_t> WorkersOf(pid_t daemon);

// Polls until `condition` holds; false when it does not by the deadline.
template <typename Condition>
bool Eventually(const Condition& condition, absl::Duration deadline = absl::Seconds(20)) {
  const absl::Time end = absl::Now() + deadline;
  while (!condition()) {
    if (absl::Now() >= end) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

}  // namespace stoker::testing
