// SPDX-License-Identifier: Apache-2.0
// One unit of a source of crystals: parsed, checked, given its sidecars and its graphs, written as a shard. The unit
// holds few enough structures that all are in memory at once.
//
// What is wrong with one structure ends the ingest, or leaves the structure out and counts it (on_error). A structure
// whose target the source says is missing ("na", null, NaN) is left out and counted either way.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/ingest/unit.h"

namespace stoker::ingest {

absl::StatusOr<std::string> ReadCrystalUnit(const Unit& unit, const UnitProgress& progress);

}  // namespace stoker::ingest
