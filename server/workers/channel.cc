// SPDX-License-Identifier: Apache-2.0
#include "server/workers/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "absl/strings/str_cat.h"
#include "shared/base/posix.h"

namespace stoker::workers {

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> Channel::MakePair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoStatus(errno, "make a socket pair", "worker");
  }
  UniqueFd first(ends[0]);
  UniqueFd second(ends[1]);
  if (::fcntl(first.get(), F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus(errno, "make non-blocking", "worker socket");
  return std::make_pair(std::move(first), std::move(second));
}

absl::Status Channel::Send(const google::protobuf::MessageLite& message, int fd) {
  const std::string bytes = message.SerializeAsString();
  if (bytes.size() > kMaxMessageBytes) {
    return absl::InternalError(absl::StrCat("worker message of ", bytes.size(), " bytes, at most ", kMaxMessageBytes));
  }
  if (SendWithFd(socket_.get(), bytes, fd) >= 0) return absl::OkStatus();
  if (errno == EAGAIN) return absl::ResourceExhaustedError("worker socket: full");
  return absl::UnavailableError(absl::StrCat("worker socket: ", strerror(errno)));
}

absl::StatusOr<std::optional<Channel::Received>> Channel::Receive() {
  Received received;
  received.bytes.resize(kMaxMessageBytes);
  const ssize_t size = ReceiveWithFd(socket_.get(), absl::MakeSpan(received.bytes), &received.fd);
  if (size < 0 && errno == EAGAIN) return std::nullopt;
  if (size < 0 && errno == EMSGSIZE) return absl::UnavailableError("worker socket: message cut short");
  if (size < 0) return absl::UnavailableError(absl::StrCat("worker socket: ", strerror(errno)));
  if (size == 0) return absl::UnavailableError("worker socket: closed");
  received.bytes.resize(static_cast<size_t>(size));
  return received;
}

}  // namespace stoker::workers
