// SPDX-License-Identifier: Apache-2.0
// The .ts format of sktime and aeon, as their specifications and the files of the UEA/UCR archives have it:
//
//   # comment (also %)         anywhere, as are blank lines
//   @tag value                 tags in any case and order; unknown ones (@problemName, @dimensions, @seriesLength)
//   ignored
//   @classLabel true a b c     or @targetLabel true; absent tags: timeStamps false, classLabel true, targetLabel false
//   @data
//   1.5,?,NaN:2,3,4:a          one case a line: channels by ':', points by ',', at last the label
//   (2007-01-01 00:00:00,1.5),(2007-01-01 00:01:00,-2):a      with @timeStamps true; the times are dropped
//
// The number of channels comes from the first case and is the same in all; their names are "0", "1", …. Labels keep
// their spelling and must be among those that the header lists.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/ingest/unit.h"

namespace stoker::ingest {

absl::StatusOr<std::string> ReadTsUnit(const Unit& unit, const UnitProgress& progress);

}  // namespace stoker::ingest
