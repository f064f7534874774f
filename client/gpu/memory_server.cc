// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/memory_server.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"

namespace stoker::gpu {
namespace {

// Of a connection, which has one short message to read: so long others wait.
constexpr absl::Duration kReadTimeout = absl::Seconds(1);
constexpr size_t kLongestAddress = 64;

// In the abstract namespace: no file is left by a process that is killed.
socklen_t AbstractAddress(absl::string_view name, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  const size_t length = std::min(name.size(), sizeof(address->sun_path) - 1);
  std::memcpy(address->sun_path + 1, name.data(), length);
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
}

void SetTimeout(int socket, absl::Duration timeout) {
  const timeval value = absl::ToTimeval(std::max(timeout, absl::Milliseconds(1)));
  (void)::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof(value));
  (void)::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof(value));
}

bool PeerIsOurs(int socket) {
  ucred peer;
  socklen_t size = sizeof(peer);
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == ::geteuid();
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryServer>> MemoryServer::Start() {
  absl::BitGen random;
  std::string name = absl::StrFormat("stoker.gpu.%016x", absl::Uniform<uint64_t>(random));
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!socket.valid() || !stop.valid()) return ErrnoStatus(errno, "make a socket", name);
  sockaddr_un address;
  const socklen_t size = AbstractAddress(name, &address);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
    return ErrnoStatus(errno, "bind", name);
  }
  if (::listen(socket.get(), SOMAXCONN) != 0) return ErrnoStatus(errno, "listen", name);
  std::unique_ptr<MemoryServer> server(new MemoryServer(std::move(name), std::move(socket), std::move(stop)));
  server->thread_ = std::thread([raw = server.get()] { raw->Run(); });
  return server;
}

MemoryServer::~MemoryServer() {
  (void)::eventfd_write(stop_.get(), 1);
  thread_.join();
}

std::string MemoryServer::Add(UniqueFd memory) {
  absl::MutexLock lock(&mu_);
  std::string address = absl::StrCat(name_, "/", next_++);
  memory_[address] = std::move(memory);
  return address;
}

void MemoryServer::Remove(const std::string& address) {
  absl::MutexLock lock(&mu_);
  memory_.erase(address);
}

void MemoryServer::Run() {
  while (true) {
    pollfd waited_for[] = {{socket_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (TEMP_FAILURE_RETRY(::poll(waited_for, 2, -1)) < 0 || waited_for[1].revents != 0) return;
    const UniqueFd connection(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (connection.valid() && PeerIsOurs(connection.get())) Serve(connection);
  }
}

void MemoryServer::Serve(const UniqueFd& connection) {
  SetTimeout(connection.get(), kReadTimeout);
  char address[kLongestAddress];
  UniqueFd nothing;
  const ssize_t size = ReceiveWithFd(connection.get(), absl::MakeSpan(address), &nothing);
  if (size <= 0) return;
  absl::MutexLock lock(&mu_);
  const auto memory = memory_.find(std::string(address, static_cast<size_t>(size)));
  if (memory != memory_.end()) (void)SendWithFd(connection.get(), "here", memory->second.get());
}

absl::StatusOr<UniqueFd> FetchMemory(const std::string& address, absl::Duration timeout) {
  const absl::string_view name = absl::string_view(address).substr(0, address.find('/'));
  const UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return ErrnoStatus(errno, "make a socket", address);
  SetTimeout(socket.get(), timeout);
  sockaddr_un to;
  const socklen_t size = AbstractAddress(name, &to);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to), size) != 0) {
    if (errno == ECONNREFUSED) return absl::NotFoundError(absl::StrCat("fetch ", address, ": its process is gone"));
    return ErrnoStatus(errno, "connect", address);
  }
  if (!PeerIsOurs(socket.get())) {
    return absl::PermissionDeniedError(absl::StrCat("fetch ", address, ": it is another user's"));
  }
  char answer[8];
  UniqueFd memory;
  ssize_t received = SendWithFd(socket.get(), address, -1);
  if (received > 0) received = ReceiveWithFd(socket.get(), absl::MakeSpan(answer), &memory);
  if (received < 0 && errno == EAGAIN) return absl::DeadlineExceededError(absl::StrCat("fetch ", address));
  if (received < 0) return ErrnoStatus(errno, "fetch", address);
  if (!memory.valid()) return absl::NotFoundError(absl::StrCat("fetch ", address, ": it is not there any more"));
  return memory;
}

}  // namespace stoker::gpu
