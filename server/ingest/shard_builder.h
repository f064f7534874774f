// SPDX-License-Identifier: Apache-2.0
// Gathers the series of one unit and writes them as a shard. What holds for every format happens here: channels are
// picked, missing values filled or refused, windows counted, what is too short skipped, ranges and lengths noted.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/ingest/unit.h"

namespace stoker::ingest {

// One series as a reader found it. Views are read during Add only.
struct Series {
  uint64_t length = 0;                     // points
  absl::Span<const double> values;         // [channels of the source, length]; NaN where missing
  uint64_t line = 0;                       // of its start, as UnitSummary counts
  absl::string_view label;                 // target CLASS
  absl::Span<const double> target;         // target VALUE: target_width numbers
  absl::Span<const uint64_t> point_lines;  // line of each point; empty where a series is one line
};

class ShardBuilder {
 public:
  struct Traits {
    bool by_line = true;
    bool single_precision = false;  // values are exact as f32
    v1::IngestOptions::Target target = v1::IngestOptions::TARGET_NONE;
    uint64_t target_width = 1;
    std::function<std::string(uint64_t line)> place;  // "file:line" or "file: record n", for messages
  };

  ShardBuilder(const Unit& unit, Traits traits);

  // Names of the source's channels, before the first Add. InvalidArgument, naming `place`, when one that the options
  // ask for is not among them.
  absl::Status SetChannels(const std::vector<std::string>& names, absl::string_view place);

  // InvalidArgument for a value that is missing where none may be, or infinite, a series of no points, and a label that
  // is empty or not UTF-8.
  absl::Status Add(const Series& series);

  void Skip(absl::string_view reason, uint64_t line, uint64_t count = 1);

  UnitSummary& summary() { return summary_; }

  // Writes the shard and returns the summary as JSON.
  absl::StatusOr<std::string> Finish();

 private:
  template <typename T>
  absl::Status AddChannel(const Series& series, size_t channel, std::vector<T>* out);
  absl::Status FillMissing(const Series& series, size_t channel, double* values);
  absl::Status CheckLabel(const Series& series);
  void NoteTarget(const Series& series, uint64_t samples);
  void NoteLength(const Series& series);
  std::string PointPlace(const Series& series, uint64_t point) const;

  const Unit& unit_;
  const Traits traits_;
  UnitSummary summary_;
  std::vector<size_t> picked_;  // places of the chosen channels among the source's
  std::vector<double> f64_;     // values, one of the two
  std::vector<float> f32_;
  std::vector<double> channel_;  // scratch
  std::vector<int64_t> value_offset_{0};
  std::vector<int64_t> series_length_;
  std::vector<int64_t> first_sample_{0};
  std::vector<int64_t> source_line_;
  std::vector<int32_t> label_;
  std::vector<double> value_target_;
  absl::flat_hash_map<std::string, int32_t> label_ids_;
};

}  // namespace stoker::ingest
