// SPDX-License-Identifier: Apache-2.0
#include "server/plan/largest_batch.h"

#include <algorithm>
#include <vector>

#include "absl/numeric/int128.h"
#include "shared/base/status_macros.h"

namespace stoker::plan {
namespace {

struct Item {
  uint64_t taken, added;
};

bool IsWorthMore(const Item& a, const Item& b) {
  return absl::uint128(a.added) * b.taken > absl::uint128(b.added) * a.taken;
}

// The most that items add which together take `limit`. `repeated`: each may be there any number of times.
class Knapsack {
 public:
  Knapsack(uint64_t limit, bool repeated) : limit_(limit), repeated_(repeated) {}

  void Add(const Item& item) {
    if (item.added == 0) return;
    if (item.taken == 0) {
      for_nothing_ += item.added;
      return;
    }
    if (taken_ >= limit_ && !IsWorthMore(item, heap_.front())) return;
    Push(item);
    while (heap_.size() > 1 && (repeated_ || taken_ - heap_.front().taken >= limit_)) Pop();
  }

  uint64_t Most() const {
    if (heap_.empty()) return repeated_ && for_nothing_ > 0 ? UINT64_MAX : for_nothing_;
    const Item& last = heap_.front();
    if (repeated_) return for_nothing_ > 0 ? UINT64_MAX : Part(last, limit_);
    const uint64_t whole = for_nothing_ + added_ - last.added;
    return whole + (taken_ <= limit_ ? last.added : Part(last, limit_ - (taken_ - last.taken)));
  }

 private:
  // What of `item` takes `room`.
  static uint64_t Part(const Item& item, uint64_t room) {
    const absl::uint128 part = absl::uint128(item.added) * room / item.taken;
    return part > UINT64_MAX ? UINT64_MAX : absl::Uint128Low64(part);
  }
  void Push(const Item& item) {
    heap_.push_back(item);
    std::push_heap(heap_.begin(), heap_.end(), IsWorthMore);
    taken_ += item.taken;
    added_ += item.added;
  }
  void Pop() {
    taken_ -= heap_.front().taken;
    added_ -= heap_.front().added;
    std::pop_heap(heap_.begin(), heap_.end(), IsWorthMore);
    heap_.pop_back();
  }

  const uint64_t limit_;
  const bool repeated_;
  uint64_t for_nothing_ = 0;
  uint64_t taken_ = 0, added_ = 0;  // by those of the heap
  std::vector<Item> heap_;          // the one worth least first; without it they take less than the limit
};

// By number, batches are of distinct samples unless there are too few of them.
bool MayRepeat(const v1::Plan& plan, uint64_t samples) {
  return plan.tail() == v1::PAD && (plan.has_budget() || plan.batch_size() > samples);
}

}  // namespace

absl::StatusOr<Costs> LargestBatch(const v1::Plan& plan, const CostTable& table) {
  v1::Budget budget = plan.budget();
  if (!plan.has_budget()) budget.set_graphs(plan.batch_size());
  STOKER_ASSIGN_OR_RETURN(const Budgets budgets, Budgets::Create(budget, table));
  const bool repeated = MayRepeat(plan, table.samples);

  struct Bound {
    BudgetField limited, cost;
    Knapsack knapsack;
  };
  std::vector<Bound> bounds;
  Costs most = budgets.limits();
  for (int limited = 0; limited < kBudgetFields; ++limited) {
    const uint64_t limit = budgets.limits()[limited];
    if (limit == UINT64_MAX) continue;
    // What does not bind, and graphs where only kMaxGraphs limits them: that many would have to be kept.
    if (!repeated && (budgets.totals()[limited] <= limit || (limited == kGraphs && budget.graphs() == 0))) continue;
    for (int cost = 0; cost < kBudgetFields; ++cost) {
      if (cost == limited) continue;
      bounds.push_back({static_cast<BudgetField>(limited), static_cast<BudgetField>(cost), Knapsack(limit, repeated)});
    }
  }
  Costs alone{};
  for (uint64_t sample = 0; sample < table.samples; ++sample) {
    const Costs costs = budgets.CostsOf(sample);
    if (budgets.Fits(costs)) {
      for (Bound& bound : bounds) bound.knapsack.Add({costs[bound.limited], costs[bound.cost]});
    } else if (plan.oversize() == v1::OVERSIZE_ALONE) {
      for (int f = 0; f < kBudgetFields; ++f) alone[f] = std::max(alone[f], costs[f]);
    }
  }
  for (const Bound& bound : bounds) most[bound.cost] = std::min(most[bound.cost], bound.knapsack.Most());
  for (int f = 0; f < kBudgetFields; ++f) {
    if (!repeated) most[f] = std::min(most[f], budgets.totals()[f]);
    most[f] = std::max(most[f], alone[f]);
  }
  most[kBytes] += table.fixed_bytes;
  return most;
}

}  // namespace stoker::plan
