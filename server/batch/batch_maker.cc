// SPDX-License-Identifier: Apache-2.0
#include "server/batch/batch_maker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/batch/gaf_batch.h"
#include "server/batch/recipe.h"
#include "shared/base/status_macros.h"
#include "shared/store/time_series_store.h"

namespace stoker::batch {

absl::StatusOr<std::unique_ptr<BatchMaker>> BatchMaker::Create(const std::string& store_dir, const v1::Recipe& recipe,
                                                               const v1::Plan& plan) {
  STOKER_ASSIGN_OR_RETURN(auto store, store::TimeSeriesStore::Open(store_dir));
  STOKER_ASSIGN_OR_RETURN(v1::Recipe complete, CompleteRecipe(recipe, store->manifest()));
  STOKER_ASSIGN_OR_RETURN(const plan::BatchPlan batches, plan::BatchPlan::Create(plan, store->samples()));
  if (batches.steps_per_epoch() == 0) {
    return absl::InvalidArgumentError(absl::StrCat("plan.tail: DROP leaves nothing: ", store->samples(),
                                                   " samples do not fill one batch of ", batches.batch_size(),
                                                   " on each of ", batches.proto().world(), " ranks"));
  }
  std::unique_ptr<BatchMaker> maker = std::make_unique<GafBatchMaker>(std::move(store), std::move(complete), batches);
  STOKER_RETURN_IF_ERROR(maker->Finish());
  return maker;
}

absl::Status BatchMaker::Finish() {
  STOKER_ASSIGN_OR_RETURN(std::vector<tensor::TensorSpec> tensors, TensorsFor(plan_.batch_size()));
  STOKER_ASSIGN_OR_RETURN(const tensor::Layout layout, tensor::Layout::Create(std::move(tensors)));
  full_batch_bytes_ = layout.extent_bytes();
  return absl::OkStatus();
}

absl::StatusOr<tensor::Layout> BatchMaker::LayoutAt(const schedule::Position& at) const {
  STOKER_ASSIGN_OR_RETURN(std::vector<tensor::TensorSpec> tensors, TensorsFor(SamplesAt(at)));
  return tensor::Layout::Create(std::move(tensors));
}

}  // namespace stoker::batch
