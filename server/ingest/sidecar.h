// SPDX-License-Identifier: Apache-2.0
// What goes with each structure and stands in a file of its own: texts or rows of arrays.
//
//   .csv     two columns, id and text; a first line "id,text" is a header
//   .jsonl   {"id": …, "text": …} a line
//   .npy     row i is of the i-th structure of the sources
//   .npz     arrays `id` [M] and `value` [M, …]
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ingest/unit.h"
#include "stoker/v1/store.pb.h"

namespace stoker::ingest {

// Structures that ask for their part of a sidecar.
struct SidecarKeys {
  std::vector<std::string> ids;
  std::vector<uint64_t> rows;  // among all structures of the sources
};

struct SidecarColumn {
  UnitSummary::Sidecar info;
  std::vector<std::string> bytes;  // by structure
  std::vector<bool> there;         // whether the sidecar has it
};

// True when structures are found by their ids, not by their order.
bool IsById(const v1::Sidecar& sidecar);

// Reads the file once and keeps what is asked for. InvalidArgument naming file and line or array: what is malformed, an
// id that the sidecar has twice, an element type that is not kept as it is.
absl::StatusOr<SidecarColumn> ReadSidecar(const v1::Sidecar& sidecar, const SidecarKeys& keys);

// {"1": [numbers], "2": …}: a row for each element, by its atomic number or symbol. [rows, width], row z for atomic
// number z; zeros where the file has no row.
struct AtomFeatures {
  uint64_t width = 0;
  std::vector<float> values;
  std::vector<bool> there;  // by atomic number
};
absl::StatusOr<AtomFeatures> ReadAtomFeatures(const std::string& path);

}  // namespace stoker::ingest
