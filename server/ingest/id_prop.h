// SPDX-License-Identifier: Apache-2.0
// The id_prop.csv of ALIGNN and CGCNN: no header, a line for each structure, first the name of its file (ALIGNN) or its
// id (CGCNN), then targets. Structure files lie beside it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace stoker::ingest {

// The lines that start in [begin, end) of the file; the first of them has this number in the file.
struct IdPropRange {
  std::string path;
  uint64_t begin_bytes = 0;
  uint64_t end_bytes = 0;
  uint64_t first_line = 1;
};

// Fields without quotation marks, at least one.
using IdPropSink = absl::FunctionRef<absl::Status(uint64_t line, const std::vector<absl::string_view>& fields)>;

absl::Status ReadIdProp(const IdPropRange& range, IdPropSink sink);

// The file beside `id_prop_path` that an id means: of that name, or with one of the extensions of structure files, or
// "POSCAR-<id>". NotFound.
absl::StatusOr<std::string> FindStructureFile(const std::string& id_prop_path, absl::string_view id);

// The targets of a line: columns by number from 1 (of the targets, so field 1), all where `columns` is empty. NaN for
// "na", "nan" and an empty field. InvalidArgument naming `place`: a column that is not there, no number.
absl::StatusOr<std::vector<double>> IdPropTargets(const std::vector<absl::string_view>& fields,
                                                  const std::vector<std::string>& columns, absl::string_view place);

}  // namespace stoker::ingest
