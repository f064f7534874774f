// SPDX-License-Identifier: Apache-2.0
#include "server/plan/window.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

namespace stoker::plan {
namespace {

constexpr int kLimitBits = 30;
constexpr int kWorthBits = 17;
constexpr int kSlotBits = 11;

}  // namespace

Scales::Scales(const Budgets& budgets) {
  const Costs &limits = budgets.limits(), &totals = budgets.totals();
  std::array<double, kBudgetFields> load{};  // how many batches the budget asks for by itself
  double most = 0;
  for (int f = 0; f < kBudgetFields; ++f) {
    if (limits[f] == UINT64_MAX) continue;
    const int k = count_++;
    fields_[k] = f;
    shifts_[k] = std::max(0, static_cast<int>(std::bit_width(limits[f])) - kLimitBits);
    limits_[k] = static_cast<int32_t>(limits[f] >> shifts_[k]);
    mean_[k] = totals[kGraphs] == 0 ? 0
                                    : ((totals[f] / totals[kGraphs]) << 8 >> shifts_[k]) +
                                          ((totals[f] % totals[kGraphs] << 8) / totals[kGraphs] >> shifts_[k]);
    load[k] = static_cast<double>(totals[f]) / static_cast<double>(limits[f]);
    most = std::max(most, load[k]);
  }
  for (int k = 0; k < count_; ++k) {
    // A budget that is far from binding has no say; the fourth power is products only, so the same on any processor.
    const double part = most == 0 ? 1 : load[k] / most;
    const double weight = part * part * part * part;
    if (k == 0) graphs_weight_ = static_cast<uint64_t>(weight * 65536);
    worth_[k] = static_cast<uint64_t>(weight * static_cast<double>(uint64_t{1} << (32 + kWorthBits)) /
                                      static_cast<double>(limits_[k]));
  }
}

int32_t Scales::SamplesIn(const Room& room) const {
  const uint64_t graphs = room[0];
  uint64_t least = graphs;
  for (int k = 1; k < count_; ++k) {
    if (mean_[k] != 0) least = std::min(least, (static_cast<uint64_t>(room[k]) << 8) / mean_[k]);
  }
  if (least == 0) return 0;
  return static_cast<int32_t>(least + ((graphs - least) * graphs_weight_ >> 16));
}

Window::Window(const Budgets& budgets, const Scales& scales, const EpochOrder& order)
    : budgets_(budgets), scales_(scales), order_(order), end_(budgets.table().samples) {}

void Window::Repeat() {
  const uint64_t samples = budgets_.table().samples;
  end_ = samples + std::max(samples, Budgets::kMaxGraphs);
}

void Window::Refill() {
  while (live_ < kSamples && oversize_.size() < kSamples && Draw() > 0) {
  }
}

int Window::Draw() {
  const CostTable& table = budgets_.table();
  if (position_ >= end_) return 0;
  if (tail_ > kSlots - kBlock) Compact();
  std::array<uint64_t, kBlock> drawn;
  int count = 0;
  for (; count < kBlock && position_ < end_; ++count) {
    const uint64_t sample = drawn[count] = order_(position_++ % table.samples);
    for (const CostColumn* column : {&table.nodes, &table.edges, &table.triplets, &table.text_bytes}) {
      column->Prefetch(sample);  // the order is random: each of these is a miss
    }
  }
  for (int i = 0; i < count; ++i) {
    const Costs costs = budgets_.CostsOf(drawn[i]);
    if (budgets_.Fits(costs)) {
      Add(static_cast<uint32_t>(drawn[i]), costs);
    } else if (!repeats()) {
      oversize_.push_back(static_cast<uint32_t>(drawn[i]));
    }
  }
  return count;
}

void Window::Add(uint32_t sample, const Costs& costs) {
  samples_[tail_] = sample;
  for (int k = 0; k < scales_.count(); ++k) {
    units_[k][tail_] = scales_.Units(k, costs);
    worth_[k][tail_] = scales_.Worth(k, units_[k][tail_]);
  }
  ++tail_;
  ++live_;
}

void Window::Compact() {
  int to = 0;
  for (int slot = head_; slot < tail_; ++slot) {
    if (units_[0][slot] == kGone) continue;
    samples_[to] = samples_[slot];
    for (int k = 0; k < scales_.count(); ++k) {
      units_[k][to] = units_[k][slot];
      worth_[k][to] = worth_[k][slot];
    }
    ++to;
  }
  head_ = 0;
  tail_ = to;
}

int Window::Oldest(const Room& room) const {
  if (empty()) return kNone;
  for (int k = 0; k < scales_.count(); ++k) {
    if (units_[k][head_] > room[k]) return kNone;
  }
  return head_;
}

int Window::Nearest(const Room& room, int32_t parts) {
  const int count = tail_ - head_;
  int32_t* const keys = keys_.data();
  std::fill_n(keys, count, 0);
  // Loops without branches, for the compiler to turn into vector code. A sample that does not fit has a negative key.
  for (int k = 0; k < scales_.count(); ++k) {
    const int32_t* const units = units_[k].data() + head_;
    const int32_t* const worth = worth_[k].data() + head_;
    const int32_t left = room[k], wanted = scales_.Worth(k, left) / parts;
    for (int i = 0; i < count; ++i) {
      keys[i] = (keys[i] + std::abs(worth[i] - wanted)) | ((left - units[i]) & INT32_MIN);
    }
  }
  // Five differences of at most 2^17 take less than 20 bits; the slot takes 11, and makes the oldest of equals least.
  static_assert(kSlots <= 1 << kSlotBits && kBudgetFields << kWorthBits < 1 << (31 - kSlotBits));
  int32_t best = INT32_MAX;
  for (int i = 0; i < count; ++i) {
    const int32_t key = keys[i] < 0 ? INT32_MAX : keys[i] << kSlotBits | i;
    best = std::min(best, key);
  }
  return best == INT32_MAX ? kNone : head_ + (best & ((1 << kSlotBits) - 1));
}

void Window::Take(int slot, Room* room) {
  for (int k = 0; k < scales_.count(); ++k) (*room)[k] -= units_[k][slot];
  for (int k = 0; k < scales_.count(); ++k) units_[k][slot] = kGone;
  --live_;
  while (head_ < tail_ && units_[0][head_] == kGone) ++head_;
}

}  // namespace stoker::plan
