// SPDX-License-Identifier: Apache-2.0
// What is in the batches of a stream and how they are made: store and recipe. Which samples a batch has is told: by the
// plan to the daemon (planned_batches.h), by the daemon to its workers. The daemon asks for sizes before it allocates,
// a worker writes; each makes its own BatchMaker.
//
//   STOKER_ASSIGN_OR_RETURN(auto maker, BatchMaker::Create(store_dir, recipe));
//   auto tensors = maker->TensorsFor(total);                                       // the layout of the extent
//   STOKER_RETURN_IF_ERROR(maker->WritePart(samples, before, total, extent));       // the rest on other workers
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/plan/cost_table.h"
#include "shared/tensor/layout.h"
#include "stoker/v1/recipe.pb.h"
#include "stoker/v1/store.pb.h"

namespace stoker::batch {

// How much there is of each axis of a batch. Time series have samples only.
struct Counts {
  uint64_t samples = 0;
  uint64_t nodes = 0;
  uint64_t edges = 0;
  uint64_t triplets = 0;
  uint64_t text_bytes = 0;

  Counts& operator+=(const Counts& other);
  bool operator==(const Counts&) const = default;
};

// Const methods may be called by any thread; WritePart by one at a time.
class BatchMaker {
 public:
  // NotFound or DataLoss when the store cannot be opened; InvalidArgument naming the field of the recipe.
  static absl::StatusOr<std::unique_ptr<BatchMaker>> Create(const std::string& store_dir, const v1::Recipe& recipe);
  virtual ~BatchMaker() = default;

  const v1::Recipe& recipe() const { return recipe_; }  // with defaults written out
  virtual const v1::StoreManifest& manifest() const = 0;

  // Of each sample, as long as this lives. Bytes are filled in by AddByteCosts.
  virtual plan::CostTable costs() const = 0;
  absl::Status AddByteCosts(plan::CostTable* costs) const;

  // The tensors of a batch, in the order of its layout.
  virtual absl::StatusOr<std::vector<tensor::TensorSpec>> TensorsFor(const Counts& total) const = 0;

  // Writes `samples` to their places in the extent of a batch of `total`, in which `before` lies before them. An error
  // names the sample by its source; then a part of the samples may be written. Internal when the sizes do not agree.
  virtual absl::Status WritePart(absl::Span<const uint64_t> samples, const Counts& before, const Counts& total,
                                 absl::Span<uint8_t> extent) = 0;

  // "sample 17 (pump.ts:37)". REQUIRES: a sample of the store
  virtual std::string NameSample(uint64_t sample) const = 0;

 protected:
  explicit BatchMaker(v1::Recipe recipe) : recipe_(std::move(recipe)) {}
  // The layout of a batch of `total`; Internal unless it is of `extent_bytes` and has room for the part.
  absl::StatusOr<tensor::Layout> LayoutOfPart(uint64_t samples, const Counts& before, const Counts& total,
                                              uint64_t extent_bytes) const;

 private:
  v1::Recipe recipe_;
};

}  // namespace stoker::batch
