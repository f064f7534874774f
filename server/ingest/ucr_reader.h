// SPDX-License-Identifier: Apache-2.0
// The text form of the UCR archive: one series a line, the label first, no header. Fields are separated by tabs, else
// by commas, else by runs of spaces (the old .txt), told from each line.
//
// Missing values are "NaN", "?" or empty. Missing values at the end of a line are padding: the archive of 2018 fills
// series of unequal length so, and the series ends before them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/ingest/unit.h"

namespace stoker::ingest {

absl::StatusOr<std::string> ReadUcrUnit(const Unit& unit, const UnitProgress& progress);

}  // namespace stoker::ingest
