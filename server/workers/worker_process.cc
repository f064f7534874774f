// SPDX-License-Identifier: Apache-2.0
#include "server/workers/worker_process.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "server/workers/worker.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"

extern char** environ;

namespace stoker::workers {
namespace {

constexpr int kWorkerSocket = 3;

absl::StatusOr<pid_t> Spawn(const std::string& program, int nice, int socket) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, socket, kWorkerSocket);  // clears close-on-exec, also where they are equal
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::string name = program;
  std::string nice_option = absl::StrCat("--nice=", nice);
  std::string parent_option = absl::StrCat("--parent=", ::getpid());
  char* const arguments[] = {name.data(), nice_option.data(), parent_option.data(), nullptr};
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, program.c_str(), &actions, &attributes, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return ErrnoStatus(error, "start worker", program);
  return pid;
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerProcess>> WorkerProcess::Start(const std::string& program, int nice) {
  STOKER_ASSIGN_OR_RETURN(auto ends, Channel::MakePair());
  std::unique_ptr<WorkerProcess> process(new WorkerProcess(std::move(ends.first)));
  if (program.empty()) {
    process->pid_ = ::getpid();
    process->thread_ = std::thread([socket = std::move(ends.second)]() mutable { Worker(std::move(socket)).Run(); });
  } else {
    STOKER_ASSIGN_OR_RETURN(process->pid_, Spawn(program, nice, ends.second.get()));
  }
  return process;
}

WorkerProcess::~WorkerProcess() { Kill(); }

std::string WorkerProcess::Kill() {
  if (gone_ || pid_ == 0) return "gone";
  gone_ = true;
  if (thread_.joinable()) {
    ::shutdown(channel_.fd(), SHUT_RDWR);
    thread_.join();
    return "stopped";
  }
  ::kill(pid_, SIGKILL);  // a zombie stays what it was; the pid is ours until waitpid
  int status = 0;
  if (TEMP_FAILURE_RETRY(::waitpid(pid_, &status, 0)) < 0) return strerror(errno);
  if (WIFSIGNALED(status)) return absl::StrCat("killed by signal ", WTERMSIG(status));
  return absl::StrCat("exit status ", WEXITSTATUS(status));
}

}  // namespace stoker::workers
