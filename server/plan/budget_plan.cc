// SPDX-License-Identifier: Apache-2.0
#include "server/plan/budget_plan.h"

#include <algorithm>

#include "absl/types/span.h"
#include "shared/base/status_macros.h"

namespace stoker::plan {

PackedEpochs::PackedEpochs(Packer packer) : packer_(std::move(packer)), thread_([this] { PackAhead(); }) {}

PackedEpochs::~PackedEpochs() {
  {
    absl::MutexLock lock(&mutex_);  // so that the thread looks at its condition again
    stop_.store(true, std::memory_order_relaxed);
  }
  thread_.join();
}

std::shared_ptr<PackedEpochs::Entry> PackedEpochs::Find(uint64_t epoch) {
  const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e->epoch == epoch; });
  if (at != entries_.end()) {
    std::rotate(at, at + 1, entries_.end());
  } else {
    if (entries_.size() == kKept) entries_.erase(entries_.begin());
    entries_.push_back(std::make_shared<Entry>(epoch));
  }
  return entries_.back();
}

void PackedEpochs::Pack(Entry* entry, const std::atomic<bool>* stop) const {
  absl::call_once(entry->once, [&] { entry->packed = packer_.Pack(entry->epoch, stop); });
}

std::shared_ptr<const PackedEpoch> PackedEpochs::Get(uint64_t epoch) {
  std::shared_ptr<Entry> entry;
  {
    absl::MutexLock lock(&mutex_);
    entry = Find(epoch);
    if (epoch < UINT64_MAX) ahead_ = std::max(ahead_, epoch + 1);
  }
  Pack(entry.get(), nullptr);
  const PackedEpoch* const packed = &*entry->packed;
  return {std::move(entry), packed};
}

void PackedEpochs::PackAhead() {
  for (;;) {
    std::shared_ptr<Entry> entry;
    {
      absl::MutexLock lock(&mutex_);
      const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || ahead_ > packed_ahead_; };
      mutex_.Await(absl::Condition(&wanted));
      if (stop_) return;
      packed_ahead_ = ahead_;
      entry = Find(ahead_);
    }
    Pack(entry.get(), &stop_);
  }
}

absl::StatusOr<std::shared_ptr<const BudgetPlan>> BudgetPlan::Create(const v1::Plan& plan, const CostTable& costs) {
  STOKER_ASSIGN_OR_RETURN(Packer packer, Packer::Create(plan, costs));
  return std::shared_ptr<const BudgetPlan>(new BudgetPlan(plan, std::make_shared<PackedEpochs>(std::move(packer))));
}

std::shared_ptr<const BudgetPlan> BudgetPlan::ForRank(uint32_t rank) const {
  v1::Plan plan = proto();
  plan.set_rank(rank);
  return std::shared_ptr<const BudgetPlan>(new BudgetPlan(std::move(plan), epochs_));
}

uint64_t BudgetPlan::SampleCount(uint64_t epoch, uint64_t step) const {
  return epochs_->Get(epoch)->Batch(step, proto().rank()).size();
}

std::vector<uint64_t> BudgetPlan::Samples(uint64_t epoch, uint64_t step, uint64_t first, uint64_t count) const {
  const auto packed = epochs_->Get(epoch);
  const absl::Span<const uint32_t> part = packed->Batch(step, proto().rank()).subspan(first, count);
  return {part.begin(), part.end()};
}

}  // namespace stoker::plan
