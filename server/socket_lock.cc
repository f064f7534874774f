// SPDX-License-Identifier: Apache-2.0
#include "server/socket_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "shared/base/paths.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"

namespace stoker {
namespace {

std::string LockPath(const std::string& socket_path) { return socket_path + ".lock"; }

// Whether the file that is open is the one at `path`: a daemon that just ended may have removed it.
bool IsAt(int fd, const std::string& path) {
  struct stat open, there;
  return ::fstat(fd, &open) == 0 && ::stat(path.c_str(), &there) == 0 && open.st_ino == there.st_ino &&
         open.st_dev == there.st_dev;
}

}  // namespace

absl::StatusOr<SocketLock> SocketLock::Take(const std::string& socket_path) {
  const std::string path = LockPath(socket_path);
  // gRPC removes what is there to bind the socket.
  if (struct stat there; ::lstat(socket_path.c_str(), &there) == 0 && !S_ISSOCK(there.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("listen: ", socket_path, ": is there and no socket; give another --socket"));
  }
  std::error_code error;
  const std::filesystem::path directory = std::filesystem::path(socket_path).parent_path();
  std::filesystem::create_directories(directory.parent_path(), error);
  if (!error && ::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) error = {errno, std::generic_category()};
  if (error) return ErrnoStatus(error.value(), "make the directory of the socket", socket_path);
  STOKER_RETURN_IF_ERROR(Annotate(CheckSocketDirectory(socket_path), "listen"));
  while (true) {
    STOKER_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      const std::string pid = ReadFile(path, 64).value_or("");
      return absl::FailedPreconditionError(absl::StrCat(
          "listen: ", socket_path, ": another stokerd", pid.empty() ? "" : " (pid ", absl::StripAsciiWhitespace(pid),
          pid.empty() ? "" : ")", " listens there; stop it, or give another --socket"));
    }
    if (!IsAt(fd.get(), path)) continue;
    STOKER_RETURN_IF_ERROR(WriteAll(fd.get(), absl::StrCat(::getpid(), "\n"), path));
    return SocketLock(socket_path, std::move(fd));
  }
}

SocketLock::~SocketLock() {
  if (!fd_.valid()) return;
  ::unlink(socket_path_.c_str());
  ::unlink(LockPath(socket_path_).c_str());
}

}  // namespace stoker
