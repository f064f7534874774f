// SPDX-License-Identifier: Apache-2.0
// The samples that come next in an epoch's order: from these a batch is filled.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "server/plan/budgets.h"
#include "server/plan/plan.h"

namespace stoker::plan {

// Costs as the window counts them: in units of a power of two, rounded up, so that a limit is less than 2^30. Budgets
// below 2^30 are exact; larger ones lose at most 2^-29 of the limit a sample.
using Room = std::array<int32_t, kBudgetFields>;

// How the budgets of a plan are counted and weighed; the same for all epochs. Not before Budgets.
class Scales {
 public:
  explicit Scales(const Budgets& budgets);

  // The budgets that are set, fields [0, count()) of a Room.
  int count() const { return count_; }
  const Room& limits() const { return limits_; }
  // At most the limit: a sample that a batch can hold by its exact cost can be held by these.
  int32_t Units(int k, const Costs& costs) const {
    const uint64_t units = (costs[fields_[k]] + (uint64_t{1} << shifts_[k]) - 1) >> shifts_[k];
    return static_cast<int32_t>(std::min(units, static_cast<uint64_t>(limits_[k])));
  }
  // What `units` are worth in the choice of a sample: the budget's weight times the part of the limit, in [0, 2^17].
  int32_t Worth(int k, int32_t units) const {
    return static_cast<int32_t>(static_cast<uint64_t>(units) * worth_[k] >> 32);
  }
  // How many average samples still come into `room`.
  int32_t SamplesIn(const Room& room) const;

 private:
  int count_ = 0;
  std::array<int, kBudgetFields> fields_{};  // BudgetField
  std::array<int, kBudgetFields> shifts_{};
  Room limits_{};
  std::array<uint64_t, kBudgetFields> worth_{};  // of a unit, times 2^32
  uint64_t graphs_weight_ = 0;
  std::array<uint64_t, kBudgetFields> mean_{};  // cost of a sample in units, times 2^8
};

// A bounded look-ahead over one epoch's order, oldest first. Oversize samples do not come into it.
class Window {
 public:
  static constexpr int kSamples = 512;  // looked at for one choice
  static constexpr int kNone = -1;

  // All must outlive it.
  Window(const Budgets& budgets, const Scales& scales, const EpochOrder& order);

  // Draws until it is full, the order has ended, or kSamples oversize ones were met.
  void Refill();
  // Draws go on, after the end, from the start of the order again: over all of it once, and so often that a batch of
  // any size can be filled by few samples. Oversize ones are passed by.
  void Repeat();
  bool repeats() const { return end_ != budgets_.table().samples; }

  bool empty() const { return live_ == 0; }
  std::vector<uint32_t>& oversize() { return oversize_; }  // met since it was emptied

  // The oldest sample if it fits into `room`, else kNone.
  int Oldest(const Room& room) const;
  // Of those that fit into `room`, the one nearest to a `parts`th of it: the oldest of equals. Nearest is the least sum
  // over the budgets of the difference's worth. kNone when none fits.
  int Nearest(const Room& room, int32_t parts);

  uint32_t sample(int slot) const { return samples_[slot]; }
  // Takes a sample out, and its cost off `room`.
  void Take(int slot, Room* room);

 private:
  static constexpr int kSlots = 4 * kSamples;  // 11 bits beside 20 of worth: see Nearest
  static constexpr int kBlock = 64;
  static constexpr int32_t kGone = INT32_MAX;

  void Compact();
  int Draw();  // a block of positions; how many
  void Add(uint32_t sample, const Costs& costs);

  const Budgets& budgets_;
  const Scales& scales_;
  const EpochOrder& order_;
  uint64_t position_ = 0, end_;         // of draws; beyond the number of samples the order repeats
  int head_ = 0, tail_ = 0, live_ = 0;  // slots [head, tail) have samples or are gone
  std::vector<uint32_t> oversize_;
  std::array<uint32_t, kSlots> samples_;
  std::array<std::array<int32_t, kSlots>, kBudgetFields> units_;  // kGone: taken
  std::array<std::array<int32_t, kSlots>, kBudgetFields> worth_;
  std::array<int32_t, kSlots> keys_;
};

}  // namespace stoker::plan
