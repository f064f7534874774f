// SPDX-License-Identifier: Apache-2.0
// An array of a .npy or .npz file, open for reading by rows (first index). Arrays in C order that are not packed are
// read where they lie; others are held in memory whole, from the first ReadRows on. For one thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ingest/file_bytes.h"
#include "server/ingest/npy_header.h"
#include "server/ingest/zip.h"

namespace stoker::ingest {

// Largest array that is held in memory.
inline constexpr uint64_t kWholeArrayLimitBytes = uint64_t{2} << 30;

class NpyArray {
 public:
  // `key` names the array of an .npz; empty for its only one besides `other`, and for a .npy, which has no keys.
  // InvalidArgument listing the keys when there is no such array; ResourceExhausted, with the remedy, for packed or
  // Fortran arrays beyond kWholeArrayLimitBytes.
  static absl::StatusOr<NpyArray> Open(const std::string& path, const std::string& key, absl::string_view other = {});

  const NpyHeader& header() const { return header_; }
  const std::string& place() const { return place_; }  // "file.npy" or "file.npz[key]", for messages
  bool whole() const { return whole_; }                // held in memory: best read by one unit
  bool in_archive() const { return in_archive_; }

  // Elements of rows [first, first + count) in C order, as they are in the file. REQUIRES: first + count <=
  // header().rows().
  absl::Status ReadRows(uint64_t first, uint64_t count, std::string* out);

  // Compares the checksum that an archive has of a stored array; OK where there is none.
  absl::Status CheckContent() const;

 private:
  absl::Status OpenMember(const std::string& key, absl::string_view other);
  absl::Status CheckWhole();
  absl::Status LoadWhole();

  std::string path_;
  std::string place_;
  OpenSource file_;
  NpyHeader header_;
  bool whole_ = false;
  bool in_archive_ = false;
  ZipMember member_;          // when in_archive_
  uint64_t data_offset_ = 0;  // of the elements in the file, unless whole_
  std::string elements_;      // when whole_, once read
};

// Elements as doubles; the function for one element type and byte order. REQUIRES: header.is_number().
using Decoder = double (*)(const char* element);
Decoder DecoderOf(const NpyHeader& header);

// An element as a label: "1", "-3", "0.5" (floats as Python writes them), "True", or the text itself in UTF-8.
std::string DecodeLabel(const NpyHeader& header, const char* element);

}  // namespace stoker::ingest
