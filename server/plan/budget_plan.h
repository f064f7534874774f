// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/call_once.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/plan/packing.h"
#include "server/plan/plan.h"

namespace stoker::plan {

// Packed epochs, for all ranks. Those used last are kept; and when the farthest epoch so far is asked for, the one
// after it is packed on a thread of its own before anybody waits for it. Any thread.
class PackedEpochs {
 public:
  static constexpr size_t kKept = 3;  // beside those that callers hold

  explicit PackedEpochs(Packer packer);
  PackedEpochs(const PackedEpochs&) = delete;
  PackedEpochs& operator=(const PackedEpochs&) = delete;
  ~PackedEpochs();  // REQUIRES: no Get is running. What is being packed ahead is given up

  // Blocks while it is packed (Packer::Pack has the rate), by this thread or by another that came first.
  std::shared_ptr<const PackedEpoch> Get(uint64_t epoch);

  const Packer& packer() const { return packer_; }

 private:
  struct Entry {
    explicit Entry(uint64_t e) : epoch(e) {}
    const uint64_t epoch;
    absl::once_flag once;
    std::optional<PackedEpoch> packed;
  };

  std::shared_ptr<Entry> Find(uint64_t epoch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);  // or make
  void Pack(Entry* entry, const std::atomic<bool>* stop) const;                       // once; others wait
  void PackAhead();                                                                   // until stop_

  const Packer packer_;
  std::atomic<bool> stop_{false};
  absl::Mutex mutex_;                                                    // not held while packing
  std::vector<std::shared_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);  // the least recently used first
  uint64_t ahead_ ABSL_GUARDED_BY(mutex_) = 0;         // the farthest epoch that was asked for, and one
  uint64_t packed_ahead_ ABSL_GUARDED_BY(mutex_) = 0;  // what ahead_ was when the thread last looked
  std::thread thread_;
};

// Batches by cost (packing.h says how). Steps differ from epoch to epoch, and are known before an epoch begins.
//
// Where batches are cut depends on the number of ranks: at the same position another world reads other samples,
// whatever the budgets. So a position is worth something only with the plan it is of, world included.
class BudgetPlan : public BatchPlan {
 public:
  // REQUIRES: as BatchPlan::Create, and a budget. InvalidArgument: see Packer::Create.
  static absl::StatusOr<std::shared_ptr<const BudgetPlan>> Create(const v1::Plan& plan, const CostTable& costs);
  // The same plan for another rank; both share what is packed. REQUIRES: rank < world.
  std::shared_ptr<const BudgetPlan> ForRank(uint32_t rank) const;

  // The first call for an epoch may block while it is packed.
  uint64_t Steps(uint64_t epoch) const override { return epochs_->Get(epoch)->steps(); }
  uint64_t SampleCount(uint64_t epoch, uint64_t step) const override;
  std::vector<uint64_t> Samples(uint64_t epoch, uint64_t step, uint64_t first, uint64_t count) const override;
  uint64_t oversize_samples() const override { return epochs_->packer().budgets().oversize(); }

 private:
  BudgetPlan(v1::Plan plan, std::shared_ptr<PackedEpochs> epochs)
      : BatchPlan(std::move(plan)), epochs_(std::move(epochs)) {}

  const std::shared_ptr<PackedEpochs> epochs_;
};

}  // namespace stoker::plan
