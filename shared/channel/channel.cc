// SPDX-License-Identifier: Apache-2.0
#include "shared/channel/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"

namespace stoker {
namespace {

absl::StatusOr<sockaddr_un> MakeName(const std::string& path) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(name.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("socket: ", path, ": a path has 1 to ", sizeof(name.sun_path) - 1, " bytes"));
  }
  memcpy(name.sun_path, path.data(), path.size());
  return name;
}

absl::StatusOr<UniqueFd> NewSocket(const std::string& path) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return ErrnoStatus(errno, "make a socket", path);
  return socket;
}

}  // namespace

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> Channel::MakePair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoStatus(errno, "make", "a socket pair");
  }
  UniqueFd first(ends[0]);
  UniqueFd second(ends[1]);
  if (::fcntl(first.get(), F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus(errno, "make non-blocking", "a socket pair");
  return std::make_pair(std::move(first), std::move(second));
}

absl::StatusOr<UniqueFd> Channel::Listen(const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const sockaddr_un name, MakeName(path));
  STOKER_ASSIGN_OR_RETURN(UniqueFd socket, NewSocket(path));
  struct stat info;
  if (::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) ::unlink(path.c_str());
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
    return ErrnoStatus(errno, "bind", path);
  }
  if (::listen(socket.get(), SOMAXCONN) != 0) return ErrnoStatus(errno, "listen", path);
  return socket;
}

absl::StatusOr<Channel> Channel::Connect(const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const sockaddr_un name, MakeName(path));
  STOKER_ASSIGN_OR_RETURN(UniqueFd socket, NewSocket(path));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
    if (errno == EAGAIN) return absl::ResourceExhaustedError(absl::StrCat("connect: ", path, ": too many wait there"));
    return ErrnoStatus(errno, "connect", path);
  }
  if (::fcntl(socket.get(), F_SETFL, 0) != 0) return ErrnoStatus(errno, "make blocking", path);
  return Channel(std::move(socket));
}

absl::Status Channel::Send(const google::protobuf::MessageLite& message, int fd) {
  const std::string bytes = message.SerializeAsString();
  if (bytes.size() > kMaxBytes) {
    return absl::InternalError(absl::StrCat("socket: message of ", bytes.size(), " bytes, at most ", kMaxBytes));
  }
  if (SendWithFd(socket_.get(), bytes, fd) >= 0) return absl::OkStatus();
  if (errno == EAGAIN) return absl::ResourceExhaustedError("socket: full");
  return absl::UnavailableError(absl::StrCat("socket: ", strerror(errno)));
}

absl::StatusOr<std::optional<Channel::Received>> Channel::Receive() {
  Received received;
  char buffer[kMaxBytes];
  const ssize_t size = ReceiveWithFd(socket_.get(), absl::MakeSpan(buffer), &received.fd);
  if (size < 0 && errno == EAGAIN) return std::nullopt;
  if (size < 0 && errno == EMSGSIZE) return absl::UnavailableError("socket: message cut short");
  if (size < 0) return absl::UnavailableError(absl::StrCat("socket: ", strerror(errno)));
  if (size == 0) return absl::UnavailableError("socket: closed");
  received.bytes.assign(buffer, static_cast<size_t>(size));
  return received;
}

}  // namespace stoker
