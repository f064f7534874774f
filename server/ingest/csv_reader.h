// SPDX-License-Identifier: Apache-2.0
// Comma-separated tables with a header line, one row a point in time: the data of fault-detection benches (one file a
// class, with gaps) and of forecasting (one long table). IngestOptions.Csv says which column is what; all others are
// channels.
//
// Rows whose working column is not 1 are dropped first; the rest is sorted by time (rows of equal time keep their
// order) and cut into segments, the series, where the time steps by more than gap_seconds or the label changes. A
// segment shorter than the window is skipped and counted. Cells that are empty, "NaN", "NA", "N/A", "null", "None" or
// "?" (any case) are missing. Fields may be quoted, with "" for a quotation mark and line breaks inside. A column
// without a name is called "column N".
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/ingest/unit.h"

namespace stoker::ingest {

absl::StatusOr<std::string> ReadCsvUnit(const Unit& unit, const UnitProgress& progress);

}  // namespace stoker::ingest
