// SPDX-License-Identifier: Apache-2.0
// Records of structures in JSON, by simdjson: those of JARVIS and ALIGNN-FF, and the rows of matbench and matminer.
//
//   {"jid": "JVASP-1", "formation_energy": -1.2, "atoms": {"lattice_mat": [[…], […], […]], "coords": [[…], …],
//     "elements": ["Si", …], "cartesian": false, …}}
//
//   row: [{"lattice": {"matrix": […]}, "sites": [{"species": [{"element": "Si", "occu": 1}], "abc": […]}, …]}, 1.5]
//
// Targets are numbers, or one array of numbers; "na", null and NaN mean that there is none; true and false are 1 and 0.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ingest/extxyz_reader.h"
#include "server/ingest/structure.h"

namespace stoker::ingest {

// Parses one record after another in the same memory. For one thread.
class JsonReader {
 public:
  JsonReader();
  ~JsonReader();

  // InvalidArgument naming `place`: not JSON, without atoms, a target or the named id that is missing, arrays of
  // lengths that do not agree, an element that is not known.
  absl::StatusOr<Structure> ReadJarvis(absl::string_view record, absl::string_view place, const RecordKeys& keys);

  // `columns`: names of the row's values. The structure is the first value that is an object; targets are by name.
  // Partly occupied sites are refused.
  absl::StatusOr<Structure> ReadMatbench(absl::string_view row, absl::string_view place,
                                         const std::vector<std::string>& columns, const RecordKeys& keys);

  // The text of a string or whole number, as an id; empty for anything else.
  std::string ReadId(absl::string_view json);

  // The id key that RecordKeys means where it names none: the first of kIdKeys that the record has; empty: none.
  std::string FindIdKey(absl::string_view record);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stoker::ingest
