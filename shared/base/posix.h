// SPDX-License-Identifier: Apache-2.0
// System calls with absl::Status instead of errno. Messages read "<what>: <object>: <reason>".
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shared/base/unique_fd.h"

namespace stoker {

// NotFound for ENOENT and ENOTDIR, PermissionDenied for EACCES/EPERM/EROFS, ResourceExhausted for
// ENOSPC/ENOMEM/EDQUOT/EMFILE/ ENFILE, else Internal.
absl::Status ErrnoStatus(int error, absl::string_view what, absl::string_view object);

// Opens with O_CLOEXEC.
absl::StatusOr<UniqueFd> OpenFile(const std::string& path, int flags, int mode = 0);

// Writes all of it, going on after short writes and EINTR.
absl::Status WriteAll(int fd, absl::string_view bytes, absl::string_view path);

// One message of a Unix socket, with a descriptor if `fd` is not -1; it stays the caller's. As ::sendmsg: the bytes
// sent, or -1 and errno. A peer that is gone raises no signal.
ssize_t SendWithFd(int socket, absl::string_view bytes, int fd);
// As ::recvmsg: the bytes received, 0 at the end, or -1 and errno, which is EMSGSIZE for a message that was cut short.
// `fd`: the descriptor that came along, if one did.
ssize_t ReceiveWithFd(int socket, absl::Span<char> bytes, UniqueFd* fd);

// The whole file; ResourceExhausted when it is larger than `limit_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t limit_bytes);

// Replaces `path` by `bytes` so that a reader, or a crash, sees all of the old or all of the new: temporary file beside
// it, fsync, rename.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view bytes);

// A file mapped read-only and whole. Bytes stay valid as long as this lives; a file that shrinks meanwhile raises
// SIGBUS, so only files that are ours, and immutable, are mapped.
class MappedFile {
 public:
  // InvalidArgument when it is not a regular file. An empty file maps to an empty span.
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace stoker
