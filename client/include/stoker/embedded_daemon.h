// SPDX-License-Identifier: Apache-2.0
// A daemon for this process alone, in a temporary directory: for tests, benchmarks, and programs on machines where
// nobody runs one.
//
//   absl::StatusOr<stoker::EmbeddedDaemon> daemon = stoker::EmbeddedDaemon::Start({.roots = {"/data"}});
//   absl::StatusOr<stoker::Client> client = stoker::Client::Connect({.address = daemon->address()});
//
// The daemon gets SIGTERM when this process dies, however it dies. Thread-compatible.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace stoker {

struct EmbeddedDaemonOptions {
  std::string program = {};             // path of stokerd; empty: beside this program, else in $PATH
  std::string arena_bytes = "256MiB";   // as --arena-bytes
  std::string workers = "auto";         // as --workers
  std::string cache_dir = {};           // empty: inside the temporary directory, gone at the end
  std::vector<std::string> roots = {};  // as --root
  std::vector<std::string> extra = {};  // more arguments
  absl::Duration start_timeout = absl::Seconds(60);
  absl::Duration stop_timeout = absl::Seconds(15);  // from SIGTERM to SIGKILL
};

class EmbeddedDaemon {
 public:
  // Returns when the daemon serves. NotFound when there is no such program, Unavailable with the end of its standard
  // error when it exits or does not serve in time; nothing is left behind then.
  static absl::StatusOr<EmbeddedDaemon> Start(const EmbeddedDaemonOptions& options);

  EmbeddedDaemon(EmbeddedDaemon&&) noexcept;
  EmbeddedDaemon& operator=(EmbeddedDaemon&&) noexcept;
  ~EmbeddedDaemon();  // Stop()

  const std::string& address() const;    // path of its socket
  const std::string& directory() const;  // temporary; removed at the end
  int pid() const;
  std::string stderr_tail() const;  // the last 8 KiB of its standard error

  // SIGTERM, after stop_timeout SIGKILL; waits for the end and removes the directory. The exit status as waitpid gives
  // it. May be called twice. To see a crash, kill pid() and then call Stop().
  int Stop();

 private:
  class Impl;
  explicit EmbeddedDaemon(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace stoker
