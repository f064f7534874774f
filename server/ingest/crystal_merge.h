// SPDX-License-Identifier: Apache-2.0
// From the units of a source of crystals to what the store says of itself, and the tables beside its shards.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/ingest/merge.h"
#include "server/ingest/unit.h"
#include "stoker/v1/store.pb.h"

namespace stoker::ingest {

// As MergeSummaries, which calls it for crystals. InvalidArgument: targets or sidecars that do not agree, no structure
// left.
absl::StatusOr<MergedStore> MergeCrystals(absl::Span<const Unit> units, absl::Span<const UnitSummary> summaries,
                                          const v1::IngestOptions& options);

// Reads the shards that `manifest` names in `dir`, writes costs.safetensors and, where the options name a table,
// atom_features.safetensors there, and completes the manifest: sums, distributions, repeated ids. The names of the
// files written. InvalidArgument: ids that repeat though a sidecar goes by them, an element that the table lacks.
absl::StatusOr<std::vector<std::string>> CompleteCrystalStore(const std::string& dir, absl::Span<const int> elements,
                                                              const v1::IngestOptions& options,
                                                              v1::StoreManifest* manifest);

// Of one number a sample. REQUIRES: at least one.
v1::Distribution Distribute(std::vector<double> values);

}  // namespace stoker::ingest
