// SPDX-License-Identifier: Apache-2.0
#include "server/batch/batch_maker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/batch/gaf_batch.h"
#include "server/batch/graph_batch.h"
#include "server/batch/recipe.h"
#include "shared/base/status_macros.h"
#include "shared/store/crystal_store.h"
#include "shared/store/manifest.h"
#include "shared/store/time_series_store.h"

namespace stoker::batch {

Counts& Counts::operator+=(const Counts& other) {
  samples += other.samples;
  nodes += other.nodes;
  edges += other.edges;
  triplets += other.triplets;
  text_bytes += other.text_bytes;
  return *this;
}

absl::StatusOr<std::unique_ptr<BatchMaker>> BatchMaker::Create(const std::string& store_dir, const v1::Recipe& recipe) {
  const std::string path = absl::StrCat(store_dir, "/", store::kManifestName);
  STOKER_ASSIGN_OR_RETURN(const v1::StoreManifest manifest, store::ReadManifest(path));
  STOKER_ASSIGN_OR_RETURN(v1::Recipe complete, CompleteRecipe(recipe, manifest));
  if (manifest.kind() == v1::CRYSTALS) {
    STOKER_ASSIGN_OR_RETURN(auto store, store::CrystalStore::Open(store_dir));
    return std::make_unique<GraphBatchMaker>(std::move(store), std::move(complete));
  }
  STOKER_ASSIGN_OR_RETURN(auto store, store::TimeSeriesStore::Open(store_dir));
  return std::make_unique<GafBatchMaker>(std::move(store), std::move(complete));
}

// Tensors grow with each axis by itself, so what one more of an axis takes is what it takes always; padding is added
// for all tensors at once.
absl::Status BatchMaker::AddByteCosts(plan::CostTable* costs) const {
  const auto bytes = [this](const Counts& counts) -> absl::StatusOr<uint64_t> {
    STOKER_ASSIGN_OR_RETURN(const std::vector<tensor::TensorSpec> tensors, TensorsFor(counts));
    uint64_t sum = 0;
    for (const tensor::TensorSpec& tensor : tensors) sum += tensor.size_bytes();
    return sum;
  };
  STOKER_ASSIGN_OR_RETURN(const uint64_t none, bytes({}));
  STOKER_ASSIGN_OR_RETURN(const uint64_t sample, bytes({.samples = 1}));
  STOKER_ASSIGN_OR_RETURN(const uint64_t node, bytes({.nodes = 1}));
  STOKER_ASSIGN_OR_RETURN(const uint64_t edge, bytes({.edges = 1}));
  STOKER_ASSIGN_OR_RETURN(const uint64_t triplet, bytes({.triplets = 1}));
  STOKER_ASSIGN_OR_RETURN(const std::vector<tensor::TensorSpec> tensors, TensorsFor({}));
  costs->fixed_bytes =
      none + tensor::kExtentHeaderBytes + tensors.size() * tensor::kTensorAlignment + tensor::kExtentAlignment;
  costs->sample_bytes = sample - none;
  costs->node_bytes = node - none;
  costs->edge_bytes = edge - none;
  costs->triplet_bytes = triplet - none;
  return absl::OkStatus();
}

absl::StatusOr<tensor::Layout> BatchMaker::LayoutOfPart(uint64_t samples, const Counts& before, const Counts& total,
                                                        uint64_t extent_bytes) const {
  STOKER_ASSIGN_OR_RETURN(std::vector<tensor::TensorSpec> tensors, TensorsFor(total));
  STOKER_ASSIGN_OR_RETURN(tensor::Layout layout, tensor::Layout::Create(std::move(tensors)));
  if (layout.extent_bytes() != extent_bytes || before.samples > total.samples ||
      samples > total.samples - before.samples) {
    return absl::InternalError(absl::StrCat("part [", before.samples, ", +", samples, ") of ", total.samples,
                                            " samples in ", extent_bytes, " bytes, want ", layout.extent_bytes()));
  }
  return layout;
}

}  // namespace stoker::batch
