// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share: the bytes at hand as a file, and the check that a reader fails as it should.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/ingest/structure.h"
#include "server/ingest/unit.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace stoker::fuzz {

inline absl::string_view View(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// A file in memory, gone with this.
class MemoryFile {
 public:
  explicit MemoryFile(absl::string_view bytes) : fd_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    if (fd_ < 0 || ::write(fd_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) std::abort();
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::close(fd_); }
  std::string path() const { return absl::StrCat("/proc/self/fd/", fd_); }

 private:
  const int fd_;
};

// Bad bytes are bad data, of which a person is told in one line: anything else is our bug.
inline void CheckStatus(const absl::Status& status) {
  const bool told = absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status) || absl::IsNotFound(status);
  if (status.ok() || (told && status.message().find('\n') == absl::string_view::npos)) return;
  std::fprintf(stderr, "not how a reader may fail: %s\n", status.ToString().c_str());
  std::abort();
}

// What ingest does with each structure that a reader finds.
inline absl::Status CheckFound(absl::StatusOr<ingest::Structure> structure) {
  CheckStatus(structure.status());
  if (!structure.ok()) return absl::OkStatus();
  bool close;
  absl::Status status = ingest::CompleteStructure("fuzz", &*structure);
  CheckStatus(status);
  if (status.ok()) CheckStatus(ingest::CheckAtoms("fuzz", *structure, &close));
  return absl::OkStatus();
}

// Reads the bytes as one unit of a source of time series, as ingest does.
inline void ReadSeries(absl::string_view bytes, const v1::IngestOptions& options) {
  if (bytes.empty()) return;
  const MemoryFile file(bytes);
  ingest::Unit unit;
  unit.set_source(file.path());
  unit.set_end_bytes(bytes.size());
  unit.set_shard_path("/nowhere/shard");  // what could be written is not
  *unit.mutable_options() = options;
  CheckStatus(ingest::RunUnit(unit, nullptr).status());
}

}  // namespace stoker::fuzz
