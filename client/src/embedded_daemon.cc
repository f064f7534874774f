// SPDX-License-Identifier: Apache-2.0
#include "stoker/embedded_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"
#include "shared/base/unique_fd.h"
#include "stoker/client.h"

namespace stoker {
namespace {

constexpr size_t kTailBytes = 8192;
constexpr size_t kLongestDirectory = 80;  // so that the socket's path fits into a sockaddr_un
constexpr absl::Duration kPollInterval = absl::Milliseconds(20);

bool IsProgram(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) && ::access(path.c_str(), X_OK) == 0;
}

// stokerd beside the running program, else in $PATH.
absl::StatusOr<std::string> FindDaemon() {
  std::error_code error;
  const std::string beside = std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "stokerd";
  if (IsProgram(beside)) return beside;
  if (const char* path = ::getenv("PATH"); path != nullptr) {
    for (const absl::string_view folder : absl::StrSplit(path, ':', absl::SkipEmpty())) {
      if (std::string candidate = absl::StrCat(folder, "/stokerd"); IsProgram(candidate)) return candidate;
    }
  }
  return absl::NotFoundError("start daemon: no stokerd beside this program or in PATH: name it in options.program");
}

absl::StatusOr<std::string> MakeDirectory() {
  const char* variable = ::getenv("TMPDIR");
  std::string base = variable != nullptr && variable[0] == '/' ? variable : "/tmp";
  if (base.size() > kLongestDirectory) base = "/tmp";
  std::string path = absl::StrCat(base, "/stoker-embedded-XXXXXX");
  if (::mkdtemp(path.data()) == nullptr) return ErrnoStatus(errno, "make directory", path);
  return path;
}

std::vector<std::string> CommandLine(const EmbeddedDaemonOptions& options, const std::string& program,
                                     const std::string& directory, const std::string& socket) {
  std::vector<std::string> line = {program,       "--temporary",
                                   "--socket",    socket,
                                   "--cache-dir", options.cache_dir.empty() ? directory + "/cache" : options.cache_dir};
  line.insert(line.end(), {"--arena-bytes", options.arena_bytes, "--workers", options.workers});
  for (const std::string& root : options.roots) line.insert(line.end(), {"--root", root});
  line.insert(line.end(), options.extra.begin(), options.extra.end());
  return line;
}

// Runs in the child of a process that may have had many threads: only calls that are safe after such a fork.
[[noreturn]] void RunChild(pid_t parent, int null_fd, int log_fd, char* const* arguments) {
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::setpgid(0, 0);  // the terminal's Ctrl-C is for the program, which then ends us
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(127);  // it died before the line above
  ::dup2(null_fd, STDIN_FILENO);
  ::dup2(log_fd, STDOUT_FILENO);
  ::dup2(log_fd, STDERR_FILENO);
  ::execv(arguments[0], arguments);
  constexpr char kMessage[] = "cannot be executed\n";
  (void)!::write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  ::_exit(127);
}

}  // namespace

// A keeper thread forks the daemon, reads its log and waits for its end. It is the daemon's parent as far as
// PR_SET_PDEATHSIG is concerned, so it must not end before the daemon, as the caller's thread might.
class EmbeddedDaemon::Impl {
 public:
  explicit Impl(EmbeddedDaemonOptions options) : options_(std::move(options)) {}
  ~Impl() { Stop(); }

  absl::Status Start();
  int Stop();

  const std::string& address() const { return address_; }
  const std::string& directory() const { return directory_; }
  int pid() const {
    absl::MutexLock lock(&mu_);
    return pid_;
  }
  std::string tail() const {
    absl::MutexLock lock(&mu_);
    return tail_;
  }

 private:
  void Keep();
  absl::Status Fork();
  void ReadLog(bool* open);
  bool AwaitEnd(absl::Time deadline);  // whether it has ended
  void Signal(int signal);
  absl::Status Failure(absl::string_view reason) const;

  const EmbeddedDaemonOptions options_;
  std::vector<std::string> command_;
  std::string directory_;
  std::string address_;
  std::thread keeper_;
  UniqueFd log_;    // of the keeper
  UniqueFd pidfd_;  // written before started_

  mutable absl::Mutex mu_;
  absl::CondVar changed_;
  bool started_ ABSL_GUARDED_BY(mu_) = false;  // forked, or start_status_ says why not
  absl::Status start_status_ ABSL_GUARDED_BY(mu_);
  pid_t pid_ ABSL_GUARDED_BY(mu_) = -1;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  int wait_status_ ABSL_GUARDED_BY(mu_) = 0;
  std::string tail_ ABSL_GUARDED_BY(mu_);
};

absl::Status EmbeddedDaemon::Impl::Start() {
  std::string program = options_.program;
  if (program.empty()) {
    STOKER_ASSIGN_OR_RETURN(program, FindDaemon());
  } else if (!IsProgram(program)) {
    return absl::NotFoundError(absl::StrCat("start daemon: ", program, ": no such program"));
  }
  STOKER_ASSIGN_OR_RETURN(directory_, MakeDirectory());
  address_ = directory_ + "/stoker.sock";
  command_ = CommandLine(options_, program, directory_, address_);
  const absl::Time deadline = absl::Now() + options_.start_timeout;
  keeper_ = std::thread([this] { Keep(); });
  {
    absl::MutexLock lock(&mu_);
    while (!started_) changed_.Wait(&mu_);
    STOKER_RETURN_IF_ERROR(start_status_);
  }
  while (!AwaitEnd(absl::Now() + kPollInterval)) {
    const absl::StatusOr<Client> client = Client::Connect({.address = address_, .timeout = absl::Seconds(1)});
    if (client.ok() && client->Health().value_or(false)) return absl::OkStatus();
    if (absl::Now() >= deadline) {
      return Failure(absl::StrCat("does not serve after ", absl::FormatDuration(options_.start_timeout)));
    }
  }
  const int status = Stop();
  return Failure(WIFEXITED(status) ? absl::StrCat("exited with ", WEXITSTATUS(status))
                                   : absl::StrCat("was killed by signal ", WTERMSIG(status)));
}

absl::Status EmbeddedDaemon::Impl::Failure(absl::string_view reason) const {
  const std::string log = absl::StrReplaceAll(absl::StripAsciiWhitespace(tail()), {{"\n", " | "}});
  return absl::UnavailableError(
      absl::StrCat("start daemon: ", command_[0], " ", reason, "; it said: ", log.empty() ? "nothing" : log));
}

void EmbeddedDaemon::Impl::Keep() {
  const absl::Status status = Fork();
  {
    absl::MutexLock lock(&mu_);
    started_ = true;
    start_status_ = status;
    ended_ = !status.ok();
    changed_.SignalAll();
    if (ended_) return;
  }
  bool log_open = true;
  while (true) {
    pollfd watched[2] = {{pidfd_.get(), POLLIN, 0}, {log_open ? log_.get() : -1, POLLIN, 0}};
    if (::poll(watched, 2, -1) < 0 && errno != EINTR) break;
    if (watched[1].revents != 0) ReadLog(&log_open);
    if (watched[0].revents != 0) break;
  }
  int wait_status = 0;
  (void)TEMP_FAILURE_RETRY(::waitpid(pid(), &wait_status, 0));
  if (log_open) ReadLog(&log_open);  // what it said last
  absl::MutexLock lock(&mu_);
  ended_ = true;
  wait_status_ = wait_status;
  changed_.SignalAll();
}

absl::Status EmbeddedDaemon::Impl::Fork() {
  STOKER_ASSIGN_OR_RETURN(const UniqueFd null_fd, OpenFile("/dev/null", O_RDONLY));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "start daemon", "pipe");
  log_.reset(ends[0]);
  ::fcntl(log_.get(), F_SETFL, O_NONBLOCK);  // of our end only
  const UniqueFd log_end(ends[1]);
  std::vector<char*> arguments;
  for (std::string& argument : command_) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return ErrnoStatus(errno, "start daemon", "fork");
  if (child == 0) RunChild(parent, null_fd.get(), log_end.get(), arguments.data());
  pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  if (!pidfd_.valid()) {
    const absl::Status status = ErrnoStatus(errno, "start daemon", "pidfd_open");
    ::kill(child, SIGKILL);
    (void)TEMP_FAILURE_RETRY(::waitpid(child, nullptr, 0));
    return status;
  }
  absl::MutexLock lock(&mu_);
  pid_ = child;
  return absl::OkStatus();
}

void EmbeddedDaemon::Impl::ReadLog(bool* open) {
  char buffer[4096];
  while (true) {
    const ssize_t n = TEMP_FAILURE_RETRY(::read(log_.get(), buffer, sizeof(buffer)));
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      *open = false;
      return;
    }
    absl::MutexLock lock(&mu_);
    tail_.append(buffer, static_cast<size_t>(n));
    if (tail_.size() > kTailBytes) tail_.erase(0, tail_.size() - kTailBytes);
  }
}

bool EmbeddedDaemon::Impl::AwaitEnd(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  while (!ended_) {
    if (changed_.WaitWithDeadline(&mu_, deadline)) return ended_;
  }
  return true;
}

void EmbeddedDaemon::Impl::Signal(int signal) {
  (void)::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0);  // fails when it has ended: fine
}

int EmbeddedDaemon::Impl::Stop() {
  if (keeper_.joinable()) {
    if (pidfd_.valid()) {
      Signal(SIGTERM);
      if (!AwaitEnd(absl::Now() + options_.stop_timeout)) Signal(SIGKILL);
    }
    keeper_.join();
  }
  std::error_code error;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, error);
  absl::MutexLock lock(&mu_);
  return wait_status_;
}

EmbeddedDaemon::EmbeddedDaemon(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EmbeddedDaemon::EmbeddedDaemon(EmbeddedDaemon&&) noexcept = default;
EmbeddedDaemon& EmbeddedDaemon::operator=(EmbeddedDaemon&&) noexcept = default;
EmbeddedDaemon::~EmbeddedDaemon() = default;

absl::StatusOr<EmbeddedDaemon> EmbeddedDaemon::Start(const EmbeddedDaemonOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  STOKER_RETURN_IF_ERROR(impl->Start());
  return EmbeddedDaemon(std::move(impl));
}

const std::string& EmbeddedDaemon::address() const { return impl_->address(); }
const std::string& EmbeddedDaemon::directory() const { return impl_->directory(); }
int EmbeddedDaemon::pid() const { return impl_->pid(); }
std::string EmbeddedDaemon::stderr_tail() const { return impl_->tail(); }
int EmbeddedDaemon::Stop() { return impl_->Stop(); }

}  // namespace stoker
