// SPDX-License-Identifier: Apache-2.0
// Which samples are in a batch: a pure function of (number of samples, plan, epoch, step).
//
// An epoch is one order of all samples. It is cut into global steps of batch_size * world positions, and a global step
// into one batch a rank, so that ranks together see the order of a single process with a batch of batch_size * world: a
// run can go on with another world size at the same (epoch, step) if batch_size * world stays the same.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "server/plan/permutation.h"
#include "stoker/v1/plan.pb.h"

namespace stoker::plan {

// The order of one epoch: position -> sample.
class EpochOrder {
 public:
  EpochOrder(uint64_t samples, const v1::Plan& plan, uint64_t epoch)
      : shuffle_(plan.shuffle()), permutation_(samples, plan.seed(), epoch) {}
  uint64_t operator()(uint64_t position) const { return shuffle_ ? permutation_(position) : position; }

 private:
  bool shuffle_;
  Permutation permutation_;
};

// Positions [begin, begin + count) of an epoch's order, taken modulo the number of samples (tail PAD).
struct BatchRange {
  uint64_t begin = 0;
  uint64_t count = 0;
};

class BatchPlan {
 public:
  // Fills in defaults. InvalidArgument names the field that is out of range. `samples` >= 1.
  static absl::StatusOr<BatchPlan> Create(const v1::Plan& plan, uint64_t samples);

  uint64_t samples() const { return samples_; }
  uint64_t batch_size() const { return plan_.batch_size(); }
  uint64_t steps_per_epoch() const { return steps_; }  // the same for every rank; 0 with DROP and too few samples
  const v1::Plan& proto() const { return plan_; }      // with defaults filled in

  BatchRange Range(uint64_t step) const;  // REQUIRES: step < steps_per_epoch()

  // The samples of a batch, or of `count` of them from `first` on.
  std::vector<uint64_t> Samples(uint64_t epoch, uint64_t step, uint64_t first, uint64_t count) const;

 private:
  BatchPlan(const v1::Plan& plan, uint64_t samples) : plan_(plan), samples_(samples) {}

  v1::Plan plan_;
  uint64_t samples_ = 0;
  uint64_t steps_ = 0;
};

}  // namespace stoker::plan
