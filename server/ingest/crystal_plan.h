// SPDX-License-Identifier: Apache-2.0
// How sources of crystals are cut into units: whole records, whole frames, whole files, lines of an id_prop.csv.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/ingest/source.h"
#include "server/ingest/unit.h"

namespace stoker::ingest {

// A unit ends when it has one of these.
inline constexpr uint64_t kUnitRecords = 2000;
inline constexpr uint64_t kUnitRecordBytes = 16 << 20;
inline constexpr uint64_t kUnitNameBytes = 32 << 10;  // of its files: a unit must fit into a message to a worker

// Appends the units of one source; `whole` has its path and options. Reads documents of many records once, to find
// where they can be cut, which id they have and which targets. InvalidArgument for those that cannot be.
absl::Status PlanCrystals(const Source& source, const Unit& whole, std::vector<Unit>* units);

// InvalidArgument when a sidecar that goes by order (.npy) has not one row for each structure of the sources.
absl::Status CheckSidecarRows(absl::Span<const Unit> units, const v1::IngestOptions& options);

}  // namespace stoker::ingest
