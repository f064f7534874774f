// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/file_bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/ingest/text.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {

absl::StatusOr<OpenSource> OpenRegularFile(const std::string& path) {
  OpenSource source;
  STOKER_ASSIGN_OR_RETURN(source.fd, OpenFile(path, O_RDONLY | O_NONBLOCK));  // a named pipe must not block
  struct stat info;
  if (::fstat(source.fd.get(), &info) != 0) return ErrnoStatus(errno, "stat", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("reading ", path, ": not a regular file; name a file or a directory of files"));
  }
  source.size_bytes = static_cast<uint64_t>(info.st_size);
  return source;
}

absl::StatusOr<size_t> ReadSome(int fd, uint64_t offset, char* out, size_t size, const std::string& path) {
  size_t done = 0;
  while (done < size) {
    const ssize_t n = TEMP_FAILURE_RETRY(::pread(fd, out + done, size - done, static_cast<off_t>(offset + done)));
    if (n < 0) return ErrnoStatus(errno, "read", path);
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

absl::Status ReadExactly(int fd, uint64_t offset, char* out, size_t size, const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const size_t got, ReadSome(fd, offset, out, size, path));
  if (got == size) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("reading ", path, ": it ends at byte ", offset + got, ", ", size - got,
                                                 " bytes too early; do not change it while it is ingested"));
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, uint64_t limit) {
  STOKER_ASSIGN_OR_RETURN(const OpenSource source, OpenRegularFile(path));
  if (source.size_bytes == 0) return BadData(path, "the file is empty", "remove it from the sources");
  if (source.size_bytes > limit) {
    return BadData(path, absl::StrCat("a file of ", source.size_bytes, " bytes, at most ", limit),
                   "cut it into several");
  }
  std::string bytes(source.size_bytes, '\0');
  STOKER_RETURN_IF_ERROR(ReadExactly(source.fd.get(), 0, bytes.data(), bytes.size(), path));
  return bytes;
}

}  // namespace stoker::ingest
