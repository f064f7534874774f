// SPDX-License-Identifier: Apache-2.0
// Reading sources at given places. They are not mapped: a file that shrinks meanwhile must be an error, not a SIGBUS.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shared/base/unique_fd.h"

namespace stoker::ingest {

struct OpenSource {
  UniqueFd fd;
  uint64_t size_bytes = 0;
};

// For reading. InvalidArgument when it is not a regular file; NotFound, PermissionDenied.
absl::StatusOr<OpenSource> OpenRegularFile(const std::string& path);

// At most `size` bytes from `offset`; fewer at the end of the file only.
absl::StatusOr<size_t> ReadSome(int fd, uint64_t offset, char* out, size_t size, const std::string& path);

// Exactly `size` bytes; InvalidArgument when the file ends before.
absl::Status ReadExactly(int fd, uint64_t offset, char* out, size_t size, const std::string& path);

// The whole file. InvalidArgument when it is not a regular file, is empty, or larger than `limit`.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, uint64_t limit);

}  // namespace stoker::ingest
