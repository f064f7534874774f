// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "shared/channel/channel.h"

namespace stoker::workers {

// A running worker and the daemon's end of its socket. The destructor kills it and waits until it is gone, so that
// nothing it was writing to is written any more. Thread-compatible.
class WorkerProcess {
 public:
  // Starts `program` with its end of the socket as descriptor 3; an empty `program` runs the worker as a thread of this
  // process. `nice` is added to its priority. The process dies with the thread that calls this.
  static absl::StatusOr<std::unique_ptr<WorkerProcess>> Start(const std::string& program, int nice);
  ~WorkerProcess();

  Channel& channel() { return channel_; }
  pid_t pid() const { return pid_; }  // the daemon's own when it is a thread

  // Kills it at once, waits for its end, and says how it ended: "killed by signal 9", "exit status 1".
  std::string Kill();

 private:
  explicit WorkerProcess(UniqueFd socket) : channel_(std::move(socket)) {}

  Channel channel_;
  pid_t pid_ = 0;
  bool gone_ = false;
  std::thread thread_;
};

}  // namespace stoker::workers
