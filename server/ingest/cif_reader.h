// SPDX-License-Identifier: Apache-2.0
// CIF files of crystals, by gemmi: every data block that has atom sites is one structure, others are passed over.
//
// The cell is the conventional one that the file gives, filled by symmetry: by the operations that the file lists, else
// those of its Hall symbol, its Hermann-Mauguin name or its number in the International Tables, else none. Images of a
// site, and sites of one element, that are nearer than 0.1 Å are one atom. Sites are fractions of the cell
// (_atom_site_fract_*), else Å (_atom_site_Cartn_*, a along x and b in the plane of x and y). Occupancies other than 1
// are refused. The id is the name of the block where the file has several, else empty.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/ingest/structure.h"

namespace stoker::ingest {

// Hands over the structures by the line of their block's first item. A block that is wrong is an error for the sink;
// text that is not CIF, or has no structure at all, ends reading with InvalidArgument naming `path`.
absl::Status ReadCif(absl::string_view text, const std::string& path, StructureSink sink);

}  // namespace stoker::ingest
