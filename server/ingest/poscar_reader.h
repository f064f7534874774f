// SPDX-License-Identifier: Apache-2.0
// VASP's POSCAR and CONTCAR files, as VASP 5 and 6 read them:
//
//   comment
//   scale             one number; negative: the volume of the cell; or three, for x, y and z
//   a, b, c           three lines of three numbers
//   Si O              symbols; what follows "_" or "/" is not of the symbol. VASP 4 has none: refused
//   1 2               atoms of each
//   Selective         optional, by its first letter
//   Direct            or Cartesian, by its first letter; Cartesian coordinates are multiplied by the scale, as VASP
//   0 0 0 T T F ...   does it (jarvis does not); what follows the three numbers is not read, nor what follows the atoms
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ingest/structure.h"

namespace stoker::ingest {

// InvalidArgument naming `path` and line, the reason and the remedy.
absl::StatusOr<Structure> ReadPoscar(absl::string_view text, const std::string& path);

}  // namespace stoker::ingest
