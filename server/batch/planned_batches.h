// SPDX-License-Identifier: Apache-2.0
// The batches of one stream by position: a plan says which samples, a maker what of them. What the scheduler sees of a
// stream, and what its workers are told.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/batch/batch_maker.h"
#include "server/plan/budgets.h"
#include "server/plan/plan.h"
#include "server/schedule/types.h"
#include "stoker/v1/service.pb.h"
#include "stoker/v1/worker.pb.h"

namespace stoker::batch {

// Immutable; may be used by any thread.
class PlannedBatches : public schedule::BatchSource {
 public:
  // REQUIRES: a plan of CompletePlan. InvalidArgument when plan and store do not go together: no step in `epoch` (with
  // tail DROP, too few samples for one full batch of each rank), a sample over budget. May take seconds where batches
  // are cut by budget and samples are millions.
  static absl::StatusOr<std::shared_ptr<const PlannedBatches>> Create(std::shared_ptr<const BatchMaker> maker,
                                                                      const v1::Plan& plan, uint64_t epoch);

  const BatchMaker& maker() const { return *maker_; }
  const plan::BatchPlan& plan() const { return *plan_; }

  // Of a full batch; -1 for a dimension in which batches differ.
  absl::StatusOr<std::vector<tensor::TensorSpec>> Schema() const;
  // Samples and counts, so that a worker needs no plan.
  void DescribePart(const schedule::Part& part, v1::ToWorker::MakePart* message) const;

  uint64_t Steps(uint64_t epoch) const override { return plan_->Steps(epoch); }
  uint64_t SamplesAt(const schedule::Position& at) const override { return plan_->SampleCount(at.epoch, at.step); }
  absl::StatusOr<tensor::Layout> LayoutAt(const schedule::Position& at) const override;
  uint64_t full_batch_bytes() const override { return full_batch_bytes_; }
  // The most of each cost, and the bytes of an extent, that a batch of any epoch can have.
  const plan::Costs& largest() const { return largest_; }
  uint64_t oversize_samples() const override { return plan_->oversize_samples(); }
  std::string DescribeSample(const schedule::Position& at, uint64_t i) const override;

 private:
  PlannedBatches(std::shared_ptr<const BatchMaker> maker, std::shared_ptr<const plan::BatchPlan> plan)
      : maker_(std::move(maker)), plan_(std::move(plan)), costs_(maker_->costs()) {}
  Counts CountsOf(absl::Span<const uint64_t> samples) const;
  Counts CountsAt(const schedule::Position& at) const;
  absl::Status MeasureBatches(uint64_t epoch);

  const std::shared_ptr<const BatchMaker> maker_;  // before plan_, which refers to its costs
  const std::shared_ptr<const plan::BatchPlan> plan_;
  const plan::CostTable costs_;
  uint64_t full_batch_bytes_ = 0;
  plan::Costs largest_{};
};

}  // namespace stoker::batch
