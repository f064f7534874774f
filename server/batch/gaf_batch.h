// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/batch/batch_maker.h"
#include "server/transforms/gaf.h"
#include "shared/store/time_series_store.h"

namespace stoker::batch {

// Gramian angular fields of a time-series store, by GafRecipe. B samples, C channels, T points (of the longest sample),
// S image size. Tensors, those asked for, in this order:
//   gasf, gadf  recipe's dtype [B, C, S, S]
//   series      f32 [B, T, C]; [B, S, C], reduced like the images, where lengths differ and none is padded
//   stats       f32 [B, …] of the sample's own points (transforms/statistics.h)
//   mask        u8 [B, T], 1 where there is a point: for data sets padded at ingest only
//   target      i64 [B] class ids, or f32 [B] or [B, K]; not there when the data set has none
//   index       i64 [B], the sample's number in the data set
// A sample shorter than T in a padded data set has its image in the top left corner, unless S makes all alike.
class GafBatchMaker : public BatchMaker {
 public:
  // REQUIRES: a recipe of CompleteRecipe for this store.
  GafBatchMaker(std::shared_ptr<const store::TimeSeriesStore> store, v1::Recipe recipe);

  const v1::StoreManifest& manifest() const override { return store_->manifest(); }
  plan::CostTable costs() const override { return {.samples = store_->samples()}; }
  absl::StatusOr<std::vector<tensor::TensorSpec>> TensorsFor(const Counts& total) const override;
  absl::Status WritePart(absl::Span<const uint64_t> samples, const Counts& before, const Counts& total,
                         absl::Span<uint8_t> extent) override;
  std::string NameSample(uint64_t sample) const override;

 private:
  struct Targets;
  bool Has(v1::GafRecipe::Field field) const;
  absl::Status PrepareEncoder();
  absl::Status WriteSample(uint64_t sample, uint64_t row, const Targets& out);
  absl::Status WriteImages(uint64_t row, int64_t length, const Targets& out);
  absl::Status WriteSeries(uint64_t row, int64_t length, const Targets& out);

  std::shared_ptr<const store::TimeSeriesStore> store_;
  const v1::GafRecipe gaf_;
  const int64_t channels_;
  const int64_t points_;  // T
  const bool padded_;
  const bool ragged_;                           // lengths differ and are not padded
  std::vector<transforms::ValueRange> bounds_;  // of each channel over the data set
  std::optional<transforms::GafEncoder> encoder_;
  std::vector<double> values_;  // of the sample at hand: [C, length]
};

}  // namespace stoker::batch
