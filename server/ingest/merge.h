// SPDX-License-Identifier: Apache-2.0
// From the summaries of all units to what the store says of itself: one list of classes, one set of channels, one
// policy for lengths. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/ingest/unit.h"
#include "stoker/v1/store.pb.h"

namespace stoker::ingest {

// What only the whole source tells about a shard, to be written into its tensors.
struct ShardPatch {
  size_t unit = 0;                // place among the units
  int64_t first_line = 0;         // number in the file, from 1, of the unit's first line; 0 for records
  std::vector<int64_t> class_of;  // id in the store of each label of the shard
};

struct MergedStore {
  v1::StoreManifest manifest;       // without id and sizes; shards in the order of `patches`
  std::vector<ShardPatch> patches;  // of the units that have series: the others are no shards
  std::vector<int> elements;        // of crystals: atomic numbers that there are
};

// `units` and `summaries` in the same order. InvalidArgument naming file and line: channels, kind of target or lengths
// that do not agree, a label that no header lists, a source without any series, windows longer than every series.
absl::StatusOr<MergedStore> MergeSummaries(absl::Span<const Unit> units, absl::Span<const UnitSummary> summaries,
                                           const v1::IngestOptions& options);

// Labels in the order of their ids: by number when all are finite numbers, then and otherwise by bytes; each once.
std::vector<std::string> SortLabels(std::vector<std::string> labels);

}  // namespace stoker::ingest
