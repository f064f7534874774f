// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "shared/base/unique_fd.h"

namespace stoker {

// The right to listen at a path: a lock on a file beside the socket, which a dead daemon cannot hold. Makes the
// directory when it is not there. The destructor removes socket and lock file.
class SocketLock {
 public:
  // FailedPrecondition when another daemon listens there; PermissionDenied.
  static absl::StatusOr<SocketLock> Take(const std::string& socket_path);
  SocketLock(SocketLock&&) = default;
  SocketLock& operator=(SocketLock&&) = delete;
  ~SocketLock();

 private:
  SocketLock(std::string socket_path, UniqueFd fd) : socket_path_(std::move(socket_path)), fd_(std::move(fd)) {}
  std::string socket_path_;
  UniqueFd fd_;
};

}  // namespace stoker
