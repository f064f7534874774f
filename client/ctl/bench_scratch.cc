// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/bench_scratch.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "shared/base/posix.h"

namespace stoker::ctl {
namespace {
constexpr int kInterrupted = 130;  // as shells have it
}  // namespace

absl::StatusOr<std::unique_ptr<BenchScratch>> BenchScratch::Make() {
  std::error_code error;
  std::string path = (std::filesystem::temp_directory_path(error) / "stoker-bench-XXXXXX").string();
  if (::mkdtemp(path.data()) == nullptr) return ErrnoStatus(errno, "make directory", path);
  return std::unique_ptr<BenchScratch>(new BenchScratch(std::move(path)));
}

BenchScratch::BenchScratch(std::string path) : path_(std::move(path)) {
  ::setenv("TMPDIR", path_.c_str(), 1);
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGINT);
  sigaddset(&signals_, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &signals_, &mask_before_);
  watcher_ = std::thread([this] { AwaitSignal(); });
}

BenchScratch::~BenchScratch() {
  done_ = true;
  ::pthread_kill(watcher_.native_handle(), SIGTERM);
  watcher_.join();
  ::pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

void BenchScratch::AwaitSignal() {
  int signal = 0;
  ::sigwait(&signals_, &signal);
  if (done_) return;
  std::error_code error;
  std::filesystem::remove_all(path_, error);
  ::_exit(kInterrupted);  // the daemon sees that its parent is gone, and the clients that nobody speaks to them
}

}  // namespace stoker::ctl
