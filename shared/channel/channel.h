// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message_lite.h"
#include "shared/base/unique_fd.h"

namespace stoker {

// One end of a SOCK_SEQPACKET connection on this host: a message a packet. Between the daemon and its workers, and the
// lanes of its clients. Thread-compatible; one thread may send while another receives.
class Channel {
 public:
  static constexpr size_t kMaxBytes = 64 << 10;  // of a message

  explicit Channel(UniqueFd socket) : socket_(std::move(socket)) {}

  // Two ends. `first` never blocks. Both are closed on exec.
  static absl::StatusOr<std::pair<UniqueFd, UniqueFd>> MakePair();

  // A socket at `path` to accept from, which never blocks; one that was there before is removed. Errors as ErrnoStatus,
  // InvalidArgument for a path too long.
  static absl::StatusOr<UniqueFd> Listen(const std::string& path);
  // An end that blocks, connected to who listens at `path`. Does not wait: ResourceExhausted when too many do.
  static absl::StatusOr<Channel> Connect(const std::string& path);

  // Unavailable when the peer is gone; ResourceExhausted when a non-blocking end is full; Internal, and nothing is
  // sent, when the message is too large. `fd`, if any, goes along and stays the caller's.
  absl::Status Send(const google::protobuf::MessageLite& message, int fd = -1);

  struct Received {
    std::string bytes;  // never empty
    UniqueFd fd;        // that came along
  };
  // Nothing when a non-blocking end has no message; Unavailable at the end; blocks on a blocking one.
  absl::StatusOr<std::optional<Received>> Receive();

  int fd() const { return socket_.get(); }

 private:
  UniqueFd socket_;
};

}  // namespace stoker
