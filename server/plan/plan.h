// SPDX-License-Identifier: Apache-2.0
// Which samples are in a batch: a pure function of (costs of the samples, plan, epoch, step).
//
//   STOKER_ASSIGN_OR_RETURN(const v1::Plan complete, CompletePlan(plan));
//   STOKER_ASSIGN_OR_RETURN(auto batches, BatchPlan::Create(complete, costs));
//   for (uint64_t step = 0; step < batches->Steps(epoch); ++step) {
//     batches->Samples(epoch, step, 0, batches->SampleCount(epoch, step));
//   }
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/plan/cost_table.h"
#include "server/plan/permutation.h"
#include "stoker/v1/plan.pb.h"

namespace stoker::plan {

// The order of one epoch: position -> sample.
class EpochOrder {
 public:
  EpochOrder(uint64_t samples, const v1::Plan& plan, uint64_t epoch)
      : shuffle_(plan.shuffle()), permutation_(samples, plan.seed(), epoch) {}
  uint64_t operator()(uint64_t position) const { return shuffle_ ? permutation_(position) : position; }
  // The same for each of many, in place.
  void Apply(absl::Span<uint64_t> positions) const {
    if (shuffle_) permutation_.Apply(positions);
  }

 private:
  bool shuffle_;
  Permutation permutation_;
};

// The plan with every default written out, so that plans that mean the same are the same bytes. InvalidArgument names
// the field that is out of range.
absl::StatusOr<v1::Plan> CompletePlan(const v1::Plan& plan);

// One rank's batches. Methods may be called by any thread.
class BatchPlan {
 public:
  // REQUIRES: a plan of CompletePlan; what `costs` refers to outlives the result. InvalidArgument when there are no
  // samples, or when the plan has a budget and the samples have no costs.
  static absl::StatusOr<std::shared_ptr<const BatchPlan>> Create(const v1::Plan& plan, const CostTable& costs);
  virtual ~BatchPlan() = default;

  const v1::Plan& proto() const { return plan_; }

  // Batches of an epoch, the same for every rank; 0 with DROP and too few samples.
  virtual uint64_t Steps(uint64_t epoch) const = 0;
  virtual uint64_t SampleCount(uint64_t epoch, uint64_t step) const = 0;  // REQUIRES: step < Steps(epoch)
  // `count` of a batch's samples from `first` on.
  virtual std::vector<uint64_t> Samples(uint64_t epoch, uint64_t step, uint64_t first, uint64_t count) const = 0;
  // Samples over budget, that are alone in a batch or left out.
  virtual uint64_t oversize_samples() const { return 0; }

 protected:
  explicit BatchPlan(v1::Plan plan) : plan_(std::move(plan)) {}

 private:
  v1::Plan plan_;
};

// Positions [begin, begin + count) of an epoch's order, taken modulo the number of samples (tail PAD).
struct BatchRange {
  uint64_t begin = 0;
  uint64_t count = 0;
};

// Batches of equally many samples. An epoch is one order of all samples. It is cut into global steps of batch_size *
// world positions, and a global step into one batch a rank, so that ranks together see the order of a single process
// with a batch of batch_size * world: a run can go on with another world size at the same (epoch, step) if batch_size *
// world stays the same. Every epoch has as many steps.
class CountPlan : public BatchPlan {
 public:
  CountPlan(v1::Plan plan, uint64_t samples);  // REQUIRES: a plan of CompletePlan, samples >= 1

  uint64_t Steps(uint64_t) const override { return steps_; }
  uint64_t SampleCount(uint64_t, uint64_t step) const override { return Range(step).count; }
  std::vector<uint64_t> Samples(uint64_t epoch, uint64_t step, uint64_t first, uint64_t count) const override;

  BatchRange Range(uint64_t step) const;  // REQUIRES: step < Steps()

 private:
  uint64_t samples_ = 0;
  uint64_t steps_ = 0;
};

}  // namespace stoker::plan
