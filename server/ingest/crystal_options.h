// SPDX-License-Identifier: Apache-2.0
// Options of ingest of crystals, completed and checked.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/transforms/neighbours.h"
#include "stoker/v1/store.pb.h"

namespace stoker::ingest {

// For sources that are crystals: writes defaults out, takes the paths of sidecars and of the table as they are once
// links are resolved, and clears what only time series have. InvalidArgument naming the field and the option of the
// command line; NotFound, PermissionDenied as CheckRoots. `--target none` means no targets.
absl::Status CompleteCrystals(absl::Span<const std::string> roots, v1::IngestOptions* options);

// InvalidArgument when an option that only crystals have is set for sources that are time series.
absl::Status RefuseCrystals(const v1::IngestOptions& options);

// REQUIRES: completed.
transforms::NeighbourOptions NeighbourOptionsOf(const v1::IngestOptions::Crystal& crystal);

}  // namespace stoker::ingest
