// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/batch/batch_maker.h"
#include "server/transforms/line_graph.h"
#include "shared/store/crystal_store.h"

namespace stoker::batch {

// Batched graphs of a store of crystals, by GraphRecipe (proto/stoker/v1/recipe.proto has tensors and shapes). A
// sample's graph lies in the store; offsets are added as it is copied. The line graph is not stored: from edges that
// are sorted by source it is made faster than it could be read, for it is 14 times as large as what it is made from.
class GraphBatchMaker : public BatchMaker {
 public:
  // REQUIRES: a recipe of CompleteRecipe for this store.
  GraphBatchMaker(std::shared_ptr<const store::CrystalStore> store, v1::Recipe recipe);

  const v1::StoreManifest& manifest() const override { return store_->manifest(); }
  plan::CostTable costs() const override { return costs_; }
  absl::StatusOr<std::vector<tensor::TensorSpec>> TensorsFor(const Counts& total) const override;
  absl::Status WritePart(absl::Span<const uint64_t> samples, const Counts& before, const Counts& total,
                         absl::Span<uint8_t> extent) override;
  std::string NameSample(uint64_t sample) const override;

 private:
  struct Targets;
  bool Has(absl::string_view tensor) const;
  bool HasTriplets() const { return graph_.line_graph() != v1::GraphRecipe::NO_LINE_GRAPH; }
  absl::StatusOr<tensor::TensorSpec> Spec(const std::string& name, const Counts& total) const;
  absl::Status Prepare();
  Counts CountsOf(uint64_t sample) const;
  absl::Status CheckGraph(const store::CrystalView& view, const Counts& counts);
  absl::StatusOr<store::CrystalView> FetchAhead(absl::Span<const uint64_t> samples, size_t i) const;
  absl::Status WriteSample(uint64_t sample, const store::CrystalView& view, const Counts& before, const Counts& total,
                           const Targets& out);
  absl::Status WriteNodes(const store::CrystalView& view, const Counts& before, const Targets& out) const;
  void WriteEdges(const store::CrystalView& view, const Counts& before, const Counts& total, const Targets& out);
  void WriteTriplets(const Counts& before, const Counts& total, const Targets& out);
  void WriteRows(const store::CrystalView& view, const Counts& counts, const Counts& before, uint64_t sample,
                 const Targets& out) const;

  const std::shared_ptr<const store::CrystalStore> store_;
  const v1::GraphRecipe graph_;
  plan::CostTable costs_;
  std::vector<int64_t> bucket_;  // of the sample at hand: edges of atom i are [bucket_[i], bucket_[i + 1])
  transforms::LineGraph line_graph_;
  std::vector<float> centres_;     // of rbf
  std::vector<uint8_t> features_;  // of x, in the recipe's dtype: the table's rows
};

}  // namespace stoker::batch
