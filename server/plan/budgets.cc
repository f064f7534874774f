// SPDX-License-Identifier: Apache-2.0
#include "server/plan/budgets.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/base/status_macros.h"

namespace stoker::plan {
absl::string_view BudgetFieldName(BudgetField field) {
  constexpr absl::string_view kNames[kBudgetFields] = {"graphs", "nodes", "edges", "triplets", "bytes"};
  return kNames[field];
}

absl::StatusOr<Budgets> Budgets::Create(const v1::Budget& budget, const CostTable& table) {
  Budgets result(table);
  STOKER_RETURN_IF_ERROR(result.SetLimits(budget));
  result.Scan();
  return result;
}

absl::Status Budgets::SetLimits(const v1::Budget& budget) {
  limits_ = {budget.graphs(), budget.nodes(), budget.edges(), budget.triplets(), budget.bytes()};
  const std::pair<BudgetField, const CostColumn&> columns[] = {
      {kNodes, table_.nodes}, {kEdges, table_.edges}, {kTriplets, table_.triplets}};
  for (const auto& [field, column] : columns) {
    if (limits_[field] == 0 || !column.empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("plan.budget.", BudgetFieldName(field), ": the batches of this data set and recipe have none"));
  }
  if (budget.bytes() != 0 && budget.bytes() <= table_.fixed_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("plan.budget.bytes: ", budget.bytes(),
                                                   " leaves no room: a batch has ", table_.fixed_bytes,
                                                   " bytes before its first sample"));
  }
  if (budget.bytes() != 0) limits_[kBytes] -= table_.fixed_bytes;
  for (uint64_t& limit : limits_) limit = limit == 0 ? UINT64_MAX : limit;
  limits_[kGraphs] = std::min(limits_[kGraphs], kMaxGraphs);
  return absl::OkStatus();
}

Costs Budgets::CostsOf(uint64_t sample) const {
  const uint64_t nodes = table_.nodes[sample], edges = table_.edges[sample], triplets = table_.triplets[sample];
  return {1, nodes, edges, triplets,
          table_.sample_bytes + table_.node_bytes * nodes + table_.edge_bytes * edges +
              table_.triplet_bytes * triplets + table_.text_bytes[sample]};
}

bool Budgets::Fits(const Costs& costs) const {
  for (int f = 0; f < kBudgetFields; ++f) {
    if (costs[f] > limits_[f]) return false;
  }
  return true;
}

void Budgets::Scan() {
  for (uint64_t i = 0; i < table_.samples; ++i) {
    const Costs costs = CostsOf(i);
    if (Fits(costs)) {
      for (int f = 0; f < kBudgetFields; ++f) totals_[f] += costs[f];
      continue;
    }
    if (oversize_++ > 0) continue;
    int f = 0;
    while (costs[f] <= limits_[f]) ++f;
    first_oversize_ = Oversize{i, static_cast<BudgetField>(f), costs[f], limits_[f]};
  }
}

float Budgets::Work(absl::Span<const uint32_t> samples) const {
  uint64_t nodes = 0, edges = 0, triplets = 0;
  for (const uint32_t sample : samples) {
    nodes += table_.nodes[sample];
    edges += table_.edges[sample];
    triplets += table_.triplets[sample];
  }
  // Quotients are not fused with the additions, so that hosts of different processors cut the same batches.
  double work = 0;
  const std::pair<uint64_t, uint64_t> shares[] = {
      {nodes, totals_[kNodes]}, {edges, totals_[kEdges]}, {triplets, totals_[kTriplets]}};
  for (const auto& [cost, total] : shares) {
    if (total != 0)
      work += static_cast<double>(cost) / (static_cast<double>(total) / static_cast<double>(totals_[kGraphs]));
  }
  return static_cast<float>(work);
}

}  // namespace stoker::plan
