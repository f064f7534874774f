// SPDX-License-Identifier: Apache-2.0
// Extended XYZ, and plain XYZ, as ASE writes and reads them; any number of frames:
//
//   2
//   Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3:forces:R:3 pbc="T T F" energy=-1.5 id="a b"
//   Si 0 0 0 0.1 0 0
//   O 1.5 1.5 1.5 0 0 0
//
// The lattice is the vectors one after another; without one the frame is a molecule. Properties come in any order, with
// types S, I, R and L; without them a line is symbol, x, y, z. The species is a symbol, or an atomic number under the
// name Z. Without pbc a frame with a lattice is periodic. Values may be quoted by " or ', or stand in [] or {}.
// Coordinates are Cartesian. What follows the declared columns is not read. Blank lines may stand between frames.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/ingest/structure.h"

namespace stoker::ingest {

// What of a record besides its atoms is read: of a frame's comment, or of a JSON object.
struct RecordKeys {
  std::string id{};  // empty: the first of kIdKeys that is there
  std::vector<std::string> targets{};
};
inline constexpr absl::string_view kIdKeys[] = {"jid", "id", "material_id", "mp_id"};

// Hands over the frames, by the line of their first one; `first_line` is that of the start of `text`. A frame that is
// wrong in its values is an error for the sink; where it cannot be told where the next one begins, reading ends with
// InvalidArgument naming `path` and line.
absl::Status ReadExtxyz(absl::string_view text, const std::string& path, uint64_t first_line, const RecordKeys& keys,
                        StructureSink sink);

}  // namespace stoker::ingest
