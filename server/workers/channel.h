// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message_lite.h"
#include "shared/base/unique_fd.h"

namespace stoker::workers {

inline constexpr size_t kMaxMessageBytes = 64 << 10;

// One end of a SOCK_SEQPACKET socket pair: a message a packet. Thread-compatible; one thread may send while another
// receives.
class Channel {
 public:
  explicit Channel(UniqueFd socket) : socket_(std::move(socket)) {}

  // Two ends. `first` is the daemon's: it never blocks. Both are closed on exec.
  static absl::StatusOr<std::pair<UniqueFd, UniqueFd>> MakePair();

  // Unavailable when the peer is gone; ResourceExhausted when a non-blocking end is full, which here means that the
  // peer has stopped reading. `fd`, if any, goes along and stays the caller's.
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

}  // namespace stoker::workers
