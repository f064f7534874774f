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
#include "server/plan/cost_table.h"
#include "stoker/v1/plan.pb.h"

namespace stoker::plan {

// In the order of the fields of v1::Budget.
enum BudgetField { kGraphs, kNodes, kEdges, kTriplets, kBytes, kBudgetFields };
absl::string_view BudgetFieldName(BudgetField field);
using Costs = std::array<uint64_t, kBudgetFields>;

// A sample that is over a budget by itself.
struct Oversize {
  uint64_t sample = 0;
  BudgetField field = kGraphs;  // the first budget that it is over
  uint64_t cost = 0;            // more than
  uint64_t limit = 0;
};

// A budget over a table of costs.
class Budgets {
 public:
  static constexpr uint64_t kMaxGraphs = 1 << 20;  // in a batch; also where the budget sets no limit

  // REQUIRES: a budget of CompletePlan, a table of samples, which outlives the result. InvalidArgument names the field
  // of the plan: a budget on what the samples do not have, or bytes of which a batch takes all before its first sample.
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
  void Scan();

  CostTable table_;
  Costs limits_{};
  Costs totals_{};
  uint64_t oversize_ = 0;
  std::optional<Oversize> first_oversize_;
};

}  // namespace stoker::plan
