// SPDX-License-Identifier: Apache-2.0
// The batches of one stream: what is in them, how large they are, and how they are made. The daemon asks for sizes
// before it allocates, a worker writes; both make their own BatchMaker from the same four: store, recipe, plan and
// code.
//
//   STOKER_ASSIGN_OR_RETURN(auto maker, BatchMaker::Create(store_dir, recipe, plan));
//   Layout layout = *maker->LayoutAt({epoch, step});
//   STOKER_RETURN_IF_ERROR(maker->WritePart({epoch, step}, 0, 32, extent));   // and 32 to 64 on another worker
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/plan/plan.h"
#include "server/schedule/types.h"
#include "shared/tensor/layout.h"
#include "stoker/v1/store.pb.h"

namespace stoker::batch {

// Const methods may be called by any thread; WritePart by one at a time.
class BatchMaker : public schedule::BatchSource {
 public:
  // NotFound or DataLoss when the store cannot be opened; InvalidArgument naming the field of recipe or plan; also when
  // the plan has no step (fewer samples than one full batch, with tail DROP).
  static absl::StatusOr<std::unique_ptr<BatchMaker>> Create(const std::string& store_dir, const v1::Recipe& recipe,
                                                            const v1::Plan& plan);

  const v1::Recipe& recipe() const { return recipe_; }  // with defaults written out
  const plan::BatchPlan& plan() const { return plan_; }
  virtual const v1::StoreManifest& manifest() const = 0;
  virtual absl::StatusOr<std::vector<tensor::TensorSpec>> TensorsFor(uint64_t samples) const = 0;

  // Writes samples [first, first + count) of a batch to their places in `extent`, which is of the layout's size. An
  // error names the sample by its source; then part of the range may be written.
  virtual absl::Status WritePart(const schedule::Position& at, uint64_t first, uint64_t count,
                                 absl::Span<uint8_t> extent) = 0;

  uint64_t steps_per_epoch() const override { return plan_.steps_per_epoch(); }
  uint64_t SamplesAt(const schedule::Position& at) const override { return plan_.Range(at.step).count; }
  absl::StatusOr<tensor::Layout> LayoutAt(const schedule::Position& at) const override;
  uint64_t full_batch_bytes() const override { return full_batch_bytes_; }

 protected:
  BatchMaker(v1::Recipe recipe, const plan::BatchPlan& plan) : recipe_(std::move(recipe)), plan_(plan) {}
  absl::Status Finish();  // once the virtual methods work

 private:
  v1::Recipe recipe_;
  plan::BatchPlan plan_;
  uint64_t full_batch_bytes_ = 0;
};

}  // namespace stoker::batch
