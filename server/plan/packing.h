// SPDX-License-Identifier: Apache-2.0
// One epoch cut into batches by budget: a pure function of (plan without its rank, costs, epoch).
//
//   STOKER_ASSIGN_OR_RETURN(const Packer packer, Packer::Create(plan, table));
//   const PackedEpoch epoch = *packer.Pack(3);
//   epoch.steps();  epoch.Batch(step, rank);    // every rank has as many steps
//
// Batches are filled one after the other from a window of the next 512 samples of the epoch's order: first with the
// oldest ones; the last quarter (2 to 16 samples) is chosen, each the nearest to its part of what is left of all
// budgets at once. The oldest sample always begins a batch, so none waits longer than 512 batches. A batch is closed
// when none of the window fits any more. Then batches of about equal work are put together into steps, one a rank.
//
// Tails, with `world` ranks:
//   KEEP  every sample exactly once. The last (batches mod world) batches are cut into smaller ones until every rank
//         has one, and more before them if they have too few samples; a rank gets a batch of no samples only if all
//         others of the epoch have one sample each.
//   DROP  left out are the batch for which the samples ran out, and then the least full ones (by work), fewer than
//         `world`, until whole steps remain.
//   PAD   the batch for which the samples ran out is filled up from the start of the epoch's order, by what fits, and
//         the first batches are repeated, fewer than `world`, until all steps are whole.
// Oversize samples: FAIL refuses the plan, ALONE gives each a batch of its own, SKIP leaves them out.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/plan/budgets.h"
#include "server/plan/window.h"
#include "stoker/v1/plan.pb.h"

namespace stoker::plan {

// Immutable. Takes 4 bytes a sample and 8 a batch.
class PackedEpoch {
 public:
  uint64_t steps() const { return batches_.size() / world_; }
  absl::Span<const uint32_t> Batch(uint64_t step, uint32_t rank) const;  // REQUIRES: step < steps(), rank < world
  uint64_t bytes() const { return samples_.capacity() * sizeof(uint32_t) + batches_.capacity() * sizeof(Range); }

 private:
  friend class Packing;
  struct Range {
    uint32_t begin, count;  // of samples_
  };

  uint32_t world_ = 1;
  std::vector<uint32_t> samples_;  // batch by batch as they were filled
  std::vector<Range> batches_;     // step by step, in it rank by rank; with PAD two may be the same
};

// Const methods may be called by any thread.
class Packer {
 public:
  static constexpr uint64_t kMaxSamples = (uint64_t{1} << 32) - (uint64_t{1} << 21);

  // REQUIRES: a plan of CompletePlan with a budget; its rank is not looked at. What `table` refers to outlives the
  // result. InvalidArgument as Budgets::Create, and when there are more samples than kMaxSamples; with the policy FAIL
  // also when one is oversize: it names the first and its number.
  static absl::StatusOr<Packer> Create(const v1::Plan& plan, const CostTable& table);

  // Nothing when `stop` became true while it worked; it looks at it once a batch. Takes some 0.3 microseconds a sample.
  std::optional<PackedEpoch> Pack(uint64_t epoch, const std::atomic<bool>* stop = nullptr) const;

  const Budgets& budgets() const { return budgets_; }

 private:
  Packer(const v1::Plan& plan, const Budgets& budgets) : plan_(plan), budgets_(budgets), scales_(budgets) {}

  v1::Plan plan_;
  Budgets budgets_;
  Scales scales_;
};

}  // namespace stoker::plan
