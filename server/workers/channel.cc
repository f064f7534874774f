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
  std::string bytes = message.SerializeAsString();
  if (bytes.size() > kMaxMessageBytes) {
    return absl::InternalError(absl::StrCat("worker message of ", bytes.size(), " bytes, at most ", kMaxMessageBytes));
  }
  iovec data = {bytes.data(), bytes.size()};
  msghdr header = {};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &fd, sizeof(int));
  }
  if (TEMP_FAILURE_RETRY(::sendmsg(socket_.get(), &header, MSG_NOSIGNAL)) >= 0) return absl::OkStatus();
  if (errno == EAGAIN) return absl::ResourceExhaustedError("worker socket: full");
  return absl::UnavailableError(absl::StrCat("worker socket: ", strerror(errno)));
}

absl::StatusOr<std::optional<Channel::Received>> Channel::Receive() {
  Received received;
  received.bytes.resize(kMaxMessageBytes);
  iovec data = {received.bytes.data(), received.bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t size = TEMP_FAILURE_RETRY(::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC));
  if (size < 0 && errno == EAGAIN) return std::nullopt;
  if (size < 0) return absl::UnavailableError(absl::StrCat("worker socket: ", strerror(errno)));
  if (size == 0) return absl::UnavailableError("worker socket: closed");
  const cmsghdr* const rights = CMSG_FIRSTHDR(&header);
  if (rights != nullptr && rights->cmsg_type == SCM_RIGHTS) {
    int fd;
    memcpy(&fd, CMSG_DATA(rights), sizeof(int));
    received.fd.reset(fd);
  }
  if (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) return absl::UnavailableError("worker socket: message cut short");
  received.bytes.resize(static_cast<size_t>(size));
  return received;
}

}  // namespace stoker::workers
