// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/bench_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"

namespace stoker::ctl {
namespace {

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

absl::StatusOr<Pipe> MakePipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "start process", "pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

}  // namespace

absl::StatusOr<LineProcess> LineProcess::Start(const std::vector<std::string>& command) {
  STOKER_ASSIGN_OR_RETURN(Pipe in, MakePipe());
  STOKER_ASSIGN_OR_RETURN(Pipe out, MakePipe());
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in.read.get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, out.write.get(), STDOUT_FILENO);
  LineProcess process;
  process.name_ = command[0];
  posix_spawnattr_t attributes;  // a child takes signals, whatever this process blocks
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  const int error = ::posix_spawnp(&process.pid_, arguments[0], &actions, &attributes, arguments.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    process.pid_ = -1;
    return ErrnoStatus(error, "start process", command[0]);
  }
  process.in_ = std::move(in.write);
  process.out_ = std::move(out.read);
  return process;
}

LineProcess::LineProcess(LineProcess&& other) noexcept
    : name_(std::move(other.name_)),
      pid_(std::exchange(other.pid_, -1)),
      in_(std::move(other.in_)),
      out_(std::move(other.out_)),
      buffer_(std::move(other.buffer_)) {}

LineProcess::~LineProcess() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  (void)TEMP_FAILURE_RETRY(::waitpid(pid_, nullptr, 0));
}

absl::Status LineProcess::WriteLine(const std::string& line) { return WriteAll(in_.get(), line + "\n", name_); }

absl::StatusOr<std::string> LineProcess::ReadLine(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    pollfd watched = {out_.get(), POLLIN, 0};
    const int64_t left_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left_ms < 0) return absl::DeadlineExceededError(absl::StrCat(name_, ": says nothing"));
    if (::poll(&watched, 1, static_cast<int>(std::min<int64_t>(left_ms + 1, 60000))) <= 0) continue;
    char bytes[4096];
    const ssize_t n = TEMP_FAILURE_RETRY(::read(out_.get(), bytes, sizeof(bytes)));
    if (n < 0) return ErrnoStatus(errno, "read from", name_);
    if (n == 0) return absl::OutOfRangeError(absl::StrCat(name_, ": ended"));
    buffer_.append(bytes, static_cast<size_t>(n));
  }
}

absl::Status LineProcess::Wait() {
  in_.reset();
  int status = 0;
  if (TEMP_FAILURE_RETRY(::waitpid(std::exchange(pid_, -1), &status, 0)) < 0) return ErrnoStatus(errno, "wait", name_);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::InternalError(WIFEXITED(status) ? absl::StrCat(name_, ": exited with ", WEXITSTATUS(status))
                                               : absl::StrCat(name_, ": killed by signal ", WTERMSIG(status)));
}

}  // namespace stoker::ctl
