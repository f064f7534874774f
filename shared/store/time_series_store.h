// SPDX-License-Identifier: Apache-2.0
// A store of kind TIME_SERIES, open for reading: sample index -> the window's values, where they lie in the mapped
// shards. Series are stored once; windows are computed, so nothing is held in memory a sample or a series.
// shared/FORMAT.md has the tensors.
//
//   auto store = TimeSeriesStore::Open(dir);
//   SampleView view = *(*store)->Sample(7);
//   for (uint64_t c = 0; c < view.channels; ++c) view.CopyChannel(c, row);   // view.length doubles
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "shared/store/manifest.h"
#include "shared/store/safetensors.h"
#include "stoker/v1/store.pb.h"

namespace stoker::store {

// One sample, valid as long as its store. Exactly one of f64 and f32 is set: point t of channel c is
// f64[c * channel_stride + t].
struct SampleView {
  const double* f64 = nullptr;
  const float* f32 = nullptr;
  uint64_t channels = 0;
  uint64_t channel_stride = 0;      // elements
  uint64_t length = 0;              // points that are there; below length_max only where `unequal` is PAA or PAD
  int64_t class_id = -1;            // target CLASS: place in manifest().classes()
  absl::Span<const double> values;  // target VALUE: target_width numbers

  // The `length` points of channel c, widened. REQUIRES: c < channels and room at `out`.
  void CopyChannel(uint64_t c, double* out) const;
};

// Const and immutable: any thread may call anything.
class TimeSeriesStore {
 public:
  // Maps all shards. NotFound when there is no store; FailedPrecondition for a store of another version or kind
  // (remedy: ingest again); DataLoss when manifest and shards disagree.
  static absl::StatusOr<std::shared_ptr<const TimeSeriesStore>> Open(const std::string& store_dir);

  const v1::StoreManifest& manifest() const { return manifest_; }
  uint64_t samples() const { return manifest_.samples(); }
  uint64_t channels() const { return channels_; }
  uint64_t length_max() const { return manifest_.time_series().length_max(); }

  // O(log shards + log series). OutOfRange for index >= samples(); DataLoss when offsets in the shard are not sound.
  absl::StatusOr<SampleView> Sample(uint64_t index) const;

  // For messages: "/data/a.ts:37", "/data/a.csv:121 points 96..191", "/data/a.npy: record 17". Never fails: an index
  // that is not there gives "sample <index>".
  std::string SampleName(uint64_t index) const;

 private:
  struct Shard {
    explicit Shard(SafetensorsFile f) : file(std::move(f)) {}
    SafetensorsFile file;
    std::string source;
    bool by_line = true;  // source_line counts lines, else records
    int64_t first_line = 0;
    absl::Span<const double> f64;
    absl::Span<const float> f32;
    absl::Span<const int64_t> value_offset, series_length, first_sample, source_line;
    absl::Span<const int64_t> class_target;
    absl::Span<const double> value_target;
    uint64_t points = 0;  // of `values`
  };
  struct Place {
    const Shard* shard;
    uint64_t series;
    uint64_t window;  // number of the window in its series
  };

  TimeSeriesStore() = default;
  absl::StatusOr<std::unique_ptr<Shard>> OpenShard(const std::string& dir, const v1::ShardInfo& info) const;
  absl::StatusOr<Place> Locate(uint64_t index) const;

  v1::StoreManifest manifest_;
  uint64_t channels_ = 0;
  uint64_t window_ = 0;
  uint64_t stride_ = 0;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<uint64_t> shard_begin_;  // first sample of each shard, and the total
};

}  // namespace stoker::store
