// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <signal.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace stoker::ctl {

// A temporary folder for all that a benchmark needs, removed at the end and also when a person interrupts it: from its
// making on, SIGINT and SIGTERM go to a thread of its own, which removes the folder and exits 130. Make it before there
// are other threads. TMPDIR points into it, so that an embedded daemon's folder is inside.
class BenchScratch {
 public:
  static absl::StatusOr<std::unique_ptr<BenchScratch>> Make();
  ~BenchScratch();
  BenchScratch(const BenchScratch&) = delete;
  BenchScratch& operator=(const BenchScratch&) = delete;

  const std::string& path() const { return path_; }

 private:
  explicit BenchScratch(std::string path);
  void AwaitSignal();

  const std::string path_;
  sigset_t signals_;
  sigset_t mask_before_;
  std::atomic<bool> done_{false};
  std::thread watcher_;
};

}  // namespace stoker::ctl
