// SPDX-License-Identifier: Apache-2.0
// Arrays of numpy as time series: [N, C, T] or, with the layout NTC, [N, T, C]; two dimensions are [N, T]. Each first
// index is one series, a "record" in messages, counted from 0. Channels are named "0", "1", ….
//
// Targets are an array [N] or [N, K]: integers, booleans and text are classes, floats are values, unless the option
// says.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/ingest/unit.h"

namespace stoker::ingest {

// Appends the units of the array that `whole` names: begin_bytes and end_bytes count in its elements, in C order.
absl::Status PlanArray(const Unit& whole, std::vector<Unit>* units);

absl::StatusOr<std::string> ReadNpyUnit(const Unit& unit, const UnitProgress& progress);

}  // namespace stoker::ingest
