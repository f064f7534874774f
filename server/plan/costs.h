// SPDX-License-Identifier: Apache-2.0
// What samples cost, and what one batch may hold: the arithmetic of budgets.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "stoker/v1/plan.pb.h"

namespace stoker::plan {

// One number a sample, every `stride`th of `values`: a column of an I32[S, stride] matrix, whose first value is the
// span's. Empty: 0 for all.
struct CostColumn {
  absl::Span<const int32_t> values;
  uint64_t stride = 1;

  uint64_t operator[](uint64_t sample) const { return values.empty() ? 0 : uint64_t(values[sample * stride]); }
};

// Costs of all samples: columns of a store, not owned, never copied; they outlive whatever is made from the table.
struct CostTable {
  uint64_t samples = 0;
  CostColumn nodes, edges, triplets, text_bytes;
  // The extent of a batch has at most fixed_bytes + the sum over its samples of
  // (sample_bytes + node_bytes * nodes + edge_bytes * edges + triplet_bytes * triplets + text_bytes) bytes.
  uint64_t fixed_bytes = 0, sample_bytes = 0, node_bytes = 0, edge_bytes = 0, triplet_bytes = 0;
};

// In the order of the fields of v1::Budget.
enum BudgetField { kGraphs, kNodes, kEdges, kTriplets, kBytes, kBudgetFields };
absl::string_view BudgetFieldName(BudgetField field);
using Costs = std::array<uint64_t, kBudgetFields>;

// A sample that no batch can hold beside keeping its budget.
struct Oversize {
  uint64_t sample = 0;
  BudgetField field = kGraphs;  // the first budget that it is over
  uint64_t cost = 0;            // more than
  uint64_t limit = 0;
};

// A checked pair of budget and table.
class Budgets {
 public:
  static constexpr uint64_t kMaxGraphs = 1 << 20;  // in a batch; also where the budget sets no limit

  // InvalidArgument names the field of the plan: no budget is set, one is out of range, or the bytes that every batch
  // has leave no room; or it says what is wrong with the table: a column too short, a negative cost (with its sample).
  // Reads the whole table once.
  static absl::StatusOr<Budgets> Create(const v1::Budget& budget, const CostTable& table);

  const CostTable& table() const { return table_; }
  Costs CostsOf(uint64_t sample) const;
  // Most that the samples of one batch may cost together (fixed_bytes are taken off); UINT64_MAX without a limit.
  const Costs& limits() const { return limits_; }
  bool Fits(const Costs& costs) const;

  uint64_t oversize() const { return oversize_; }  // how many samples are over a budget by themselves
  const std::optional<Oversize>& first_oversize() const { return first_oversize_; }
  const Costs& totals() const { return totals_; }  // of the samples that are not oversize

  // How much work a batch is, of `samples`: its shares of all graphs, nodes, edges and triplets, added up, times the
  // number of samples. Of the same bits on every machine.
  float Work(absl::Span<const uint32_t> samples) const;

 private:
  explicit Budgets(const CostTable& table) : table_(table) {}
  absl::Status SetLimits(const v1::Budget& budget);
  absl::Status CheckTable() const;
  void Scan();

  CostTable table_;
  Costs limits_{};
  Costs totals_{};
  uint64_t oversize_ = 0;
  std::optional<Oversize> first_oversize_;
};

}  // namespace stoker::plan
