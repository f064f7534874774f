// SPDX-License-Identifier: Apache-2.0
// Members of a zip archive (PKWARE APPNOTE 6.3), as numpy writes .npz: stored or deflated, with zip64 sizes. Sizes come
// from the central directory: local headers may not have them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace stoker::ingest {

struct ZipMember {
  std::string name;
  bool deflated = false;  // else stored: its bytes are in the file as they are
  uint32_t crc = 0;       // of the unpacked bytes
  uint64_t packed_bytes = 0;
  uint64_t bytes = 0;
  uint64_t offset = 0;  // of the packed bytes in the file
};

// Stored and deflated members. InvalidArgument naming `path` for what is malformed, encrypted or packed otherwise.
absl::StatusOr<std::vector<ZipMember>> ReadZipDirectory(int fd, uint64_t file_bytes, const std::string& path);

// The unpacked bytes, at most the first `limit`. InvalidArgument when they are not as many as the directory says, or,
// where all are read, of another checksum.
absl::StatusOr<std::string> ReadZipMember(int fd, const ZipMember& member, uint64_t limit, const std::string& path);

// Reads all of a stored member and compares its checksum.
absl::Status CheckStoredMember(int fd, const ZipMember& member, const std::string& path);

}  // namespace stoker::ingest
