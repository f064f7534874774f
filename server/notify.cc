// SPDX-License-Identifier: Apache-2.0
#include "server/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>

#include "absl/strings/numbers.h"
#include "shared/base/unique_fd.h"

namespace stoker {

void NotifyServiceManager(absl::string_view state) {
  const char* const path = ::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const size_t length = strlen(path);
  if (length >= sizeof(address.sun_path)) return;
  memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';  // the abstract namespace
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return;
  (void)::sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address),
                 static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length));
}

absl::Duration WatchdogInterval() {
  const char* const text = ::getenv("WATCHDOG_USEC");
  const char* const pid = ::getenv("WATCHDOG_PID");
  int64_t microseconds = 0;
  int wanted = 0;
  if (pid != nullptr && absl::SimpleAtoi(pid, &wanted) && wanted != ::getpid()) return absl::InfiniteDuration();
  if (text == nullptr || !absl::SimpleAtoi(text, &microseconds) || microseconds <= 0) return absl::InfiniteDuration();
  return absl::Microseconds(microseconds);
}

}  // namespace stoker
