// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/programs.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "shared/base/posix.h"

extern char** environ;

namespace stoker::testing {
namespace {

struct Pipe {
  UniqueFd read_end, write_end;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) ::abort();
    read_end.reset(ends[0]);
    write_end.reset(ends[1]);
  }
};

std::vector<char*> Pointers(std::vector<std::string>* strings) {
  std::vector<char*> pointers;
  for (std::string& string : *strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Only calls that are safe after the fork of a process with many threads.
[[noreturn]] void RunChild(pid_t parent, const int (&fds)[3], uid_t uid, char* const* command,
                           char* const* environment) {
  ::setpgid(0, 0);
  for (int i = 0; i < 3; ++i) ::dup2(fds[i], i);
  if (uid != 0 && (::setgroups(0, nullptr) != 0 || ::setgid(uid) != 0 || ::setuid(uid) != 0)) ::_exit(126);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // after setuid, which would forget it
  if (::getppid() != parent) ::_exit(126);
  ::execve(command[0], command, environment);
  ::_exit(127);
}

}  // namespace

std::string Program(absl::string_view name) { return absl::StrCat(STOKER_BIN_DIR, "/", name); }

std::string SharedFile(absl::string_view path) {
  const char* const folder = ::getenv("STOKER_SHARED");
  std::string file = absl::StrCat(folder != nullptr ? folder : STOKER_SHARED_DIR, "/", path);
  std::error_code error;
  // Resolved, for a root is compared with resolved paths.
  const std::filesystem::path resolved = std::filesystem::canonical(file, error);
  return error ? "" : resolved.string();
}

RunningProgram::RunningProgram(std::vector<std::string> command, const Options& options) {
  ::signal(SIGPIPE, SIG_IGN);  // Say() to one that is gone
  Pipe in, out, err;
  std::vector<std::string> environment = options.environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const std::vector<char*> command_pointers = Pointers(&command);
  const std::vector<char*> environment_pointers = Pointers(&environment);
  const int fds[3] = {in.read_end.get(), out.write_end.get(), err.write_end.get()};
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) ::abort();
  if (pid_ == 0) RunChild(parent, fds, options.uid, command_pointers.data(), environment_pointers.data());
  in_ = std::move(in.write_end);
  out_ = std::move(out.read_end);
  err_ = std::move(err.read_end);
}

RunningProgram::~RunningProgram() {
  Kill(SIGKILL);
  Wait();
}

void RunningProgram::Kill(int signal) {
  if (pid_ > 0) ::kill(pid_, signal);
}

void RunningProgram::Say(absl::string_view line) {
  const std::string text = absl::StrCat(line, "\n");
  (void)WriteAll(in_.get(), text, "standard input of a program");  // that it is gone is found elsewhere
}

bool RunningProgram::ReadSome(absl::Time deadline) {
  pollfd entries[2] = {{out_.get(), POLLIN, 0}, {err_.get(), POLLIN, 0}};
  if (!out_.valid() && !err_.valid()) return false;
  const int64_t left_ms = std::max<int64_t>(0, absl::ToInt64Milliseconds(deadline - absl::Now()));
  if (TEMP_FAILURE_RETRY(::poll(entries, 2, static_cast<int>(left_ms))) <= 0) return false;
  UniqueFd* const fds[2] = {&out_, &err_};
  std::string* const texts[2] = {&result_.out, &result_.err};
  for (int i = 0; i < 2; ++i) {
    if (entries[i].revents == 0) continue;
    char buffer[4096];
    const ssize_t n = TEMP_FAILURE_RETRY(::read(fds[i]->get(), buffer, sizeof(buffer)));
    if (n > 0) {
      texts[i]->append(buffer, static_cast<size_t>(n));
    } else {
      fds[i]->reset();
    }
  }
  return true;
}

bool RunningProgram::WaitFor(const std::string& text, const std::string& where, absl::Time deadline) {
  while (!absl::StrContains(where, text)) {
    if (!ReadSome(deadline)) return false;
  }
  return true;
}

bool RunningProgram::WaitForOutput(absl::string_view text, absl::Duration deadline) {
  return WaitFor(std::string(text), result_.out, absl::Now() + deadline);
}

bool RunningProgram::WaitForError(absl::string_view text, absl::Duration deadline) {
  return WaitFor(std::string(text), result_.err, absl::Now() + deadline);
}

ProgramResult RunningProgram::Wait(absl::Duration deadline) {
  if (pid_ < 0) return result_;
  in_.reset();
  const absl::Time end = absl::Now() + deadline;
  while (ReadSome(end)) {
  }
  if (absl::Now() >= end) ::kill(pid_, SIGKILL);
  int status = 0;
  (void)TEMP_FAILURE_RETRY(::waitpid(pid_, &status, 0));
  pid_ = -1;
  if (WIFEXITED(status)) result_.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result_.signal = WTERMSIG(status);
  return result_;
}

ProgramResult RunProgram(std::vector<std::string> command, absl::Duration deadline) {
  return RunningProgram(std::move(command)).Wait(deadline);
}

std::vector<std::string> SegmentsOf(absl::string_view instance_id, const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    std::string name = entry.path().filename();
    if (absl::StartsWith(name, absl::StrCat("stoker.", instance_id, "."))) names.push_back(std::move(name));
  }
  return names;
}

std::vector<pid_t> WorkersOf(pid_t daemon) {
  std::vector<pid_t> pids;
  const std::string parent = absl::StrCat("--parent=", daemon);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    pid_t pid = 0;
    if (!absl::SimpleAtoi(entry.path().filename().string(), &pid)) continue;
    const std::string command = ReadFile(entry.path() / "cmdline", 1 << 16).value_or("");
    if (absl::StrContains(command, "stoker-worker") &&
        absl::StrContains(command, absl::StrCat(parent, std::string(1, '\0')))) {
      pids.push_back(pid);
    }
  }
  return pids;
}

}  // namespace stoker::testing
