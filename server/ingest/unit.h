// SPDX-License-Identifier: Apache-2.0
// A unit is the part of a source that one worker turns into one shard: a pure function of the file's bytes and the
// options.
//
//   std::vector<Unit> units = *PlanUnits(sources, options);          // once, by the coordinator
//   RunUnit(unit, progress)                                          // anywhere, in parallel, any order, again after a
//   crash MergeSummaries(...)                                              // merge.h: once, when all are done
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/ingest/source.h"
#include "stoker/v1/store.pb.h"
#include "stoker/v1/worker.pb.h"

namespace stoker::ingest {

using Unit = v1::ToWorker::IngestUnit;

// Bytes of source text, or of array, in one unit of the formats that are cut: small enough to hold, large enough that
// starting a shard does not count.
inline constexpr uint64_t kUnitTextBytes = 8 << 20;
inline constexpr uint64_t kUnitArrayBytes = 32 << 20;

// Why a series is left out: UnitSummary::Skip::reason.
inline constexpr char kTooShort[] = "shorter than the window";

// Called from the thread that runs the unit with the bytes of it read so far; never more than once a MiB.
using UnitProgress = std::function<void(uint64_t bytes_done)>;

// What the coordinator must know of a shard. Kept in the shard's metadata too, so that a ready shard tells it again.
// Lines count from 0 at the first line that starts in the unit; records from 0 at the first of the file.
struct UnitSummary {
  struct Length {
    uint64_t points = 0;
    uint64_t line = 0;
    bool operator==(const Length&) const = default;
  };
  struct Skip {
    std::string reason;
    uint64_t count = 0;
    uint64_t line = 0;    // of the first
    std::string place{};  // of the first, where a line does not tell it
    bool operator==(const Skip&) const = default;
  };
  struct Label {
    std::string name;
    uint64_t samples = 0;
    bool operator==(const Label&) const = default;
  };

  uint64_t samples = 0;
  uint64_t series = 0;
  uint64_t lines = 0;                 // that start in the unit
  bool by_line = true;                // places are lines, else records
  std::vector<std::string> channels;  // empty when the unit holds no series
  std::vector<double> channel_min;
  std::vector<double> channel_max;
  Length first, shortest, longest,
      differing;            // points of series; differing: the first unlike `first`, points 0 if none
  std::string value_dtype;  // "F32" or "F64"
  v1::IngestOptions::Target target = v1::IngestOptions::TARGET_NONE;
  uint64_t target_width = 1;
  std::vector<Label> labels;          // in the order of first appearance: the shard's `label` counts in them
  std::vector<std::string> declared;  // classes that the header lists
  std::vector<Skip> skipped;

  // Of crystals only.
  struct Sidecar {
    std::string name;
    std::string dtype;           // of safetensors, or "TEXT"
    std::vector<int64_t> shape;  // of one sample
    bool operator==(const Sidecar&) const = default;
  };
  uint64_t close_atoms = 0;       // samples with atoms nearer than kCloseAtoms
  std::vector<int> elements;      // atomic numbers that there are, ascending
  std::vector<Sidecar> sidecars;  // in the order of the options

  bool operator==(const UnitSummary&) const = default;
  std::string ToJson() const;
  // DataLoss when it is not what ToJson made.
  static absl::StatusOr<UnitSummary> FromJson(const std::string& json);
};

// Cuts text at about kUnitTextBytes and arrays at whole records; a CSV file is one unit. Ids count from 0 in source
// order; shard_path is left empty. Opens arrays, so InvalidArgument for those that are malformed.
absl::StatusOr<std::vector<Unit>> PlanUnits(absl::Span<const Source> sources, const v1::IngestOptions& options);

// 16 hex digits: equal for units that make the same shard.
std::string UnitDigest(const Unit& unit);

// Reads, checks and writes unit.shard_path (atomically), and returns the summary as JSON. InvalidArgument naming file
// and line or record, the reason and the remedy for bad data; NotFound, PermissionDenied, ResourceExhausted as the
// system says. Blocks; keeps no state. `progress` may be null.
absl::StatusOr<std::string> RunUnit(const Unit& unit, const UnitProgress& progress);

// The summary of a shard that is complete and is of exactly this unit; NotFound otherwise.
absl::StatusOr<std::string> ReadySummary(const Unit& unit);

}  // namespace stoker::ingest
