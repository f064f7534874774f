// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "shared/base/posix.h"
#include "shared/segment/segment.h"

namespace stoker::segment {
namespace {

// Takes the lock of `path` if nobody holds it, and removes the file while holding it. A daemon that is just creating
// the file sees afterwards that its name is gone.
bool RemoveIfOrphan(const std::string& path) {
  const absl::StatusOr<UniqueFd> fd = OpenFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd.ok()) return false;
  struct stat info;
  if (::fstat(fd->get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != ::geteuid()) return false;
  if (::flock(fd->get(), LOCK_EX | LOCK_NB) != 0) return false;
  return ::unlink(path.c_str()) == 0;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> SweepOrphans(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(directory.c_str()), &::closedir);
  if (dir == nullptr) return ErrnoStatus(errno, "sweep", directory);
  std::vector<std::string> removed;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (!IsSegmentName(entry->d_name)) continue;
    if (RemoveIfOrphan(absl::StrCat(directory, "/", entry->d_name))) removed.emplace_back(entry->d_name);
  }
  return removed;
}

}  // namespace stoker::segment
