// SPDX-License-Identifier: Apache-2.0
// The header of a .npy array: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, versions 1 to 3.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace stoker::ingest {

inline constexpr uint64_t kNpyHeaderLimitBytes = 65548;  // magic, version, size and a header of 64 KiB

struct NpyHeader {
  char kind = 0;            // 'f', 'i', 'u', 'b' (numbers); 'U', 'S' (text)
  uint64_t item_bytes = 0;  // of an element, > 0
  bool big_endian = false;
  bool fortran_order = false;
  std::vector<uint64_t> shape;  // each > 0, so never empty of elements
  uint64_t data_offset = 0;     // of the elements, from the start of the array's file

  bool is_number() const { return kind != 'U' && kind != 'S'; }
  uint64_t rows() const { return shape[0]; }  // REQUIRES: at least one dimension
  uint64_t row_items() const;                 // elements with one first index
  uint64_t row_bytes() const { return row_items() * item_bytes; }
};

// `head`: the first kNpyHeaderLimitBytes of a file of `file_bytes`, or all of it. InvalidArgument naming `place`: wrong
// magic, a header or data shorter or longer than it says, object arrays and other element types, no elements, no
// dimensions.
absl::StatusOr<NpyHeader> ParseNpyHeader(absl::string_view head, uint64_t file_bytes, absl::string_view place);

}  // namespace stoker::ingest
