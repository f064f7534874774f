// SPDX-License-Identifier: Apache-2.0
#include "server/plan/costs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/base/status_macros.h"

namespace stoker::plan {
namespace {

constexpr uint64_t kMaxUnitBytes = uint64_t{1} << 31;  // a sample's bytes then stay below 2^64

absl::Status CheckColumn(absl::string_view name, const CostColumn& column, uint64_t samples) {
  if (column.values.empty()) return absl::OkStatus();
  if (column.stride == 0 || (column.values.size() - 1) / column.stride < samples - 1) {
    return absl::InvalidArgumentError(absl::StrCat("costs: column ", name, " of ", column.values.size(),
                                                   " values with stride ", column.stride, " is too short for ", samples,
                                                   " samples"));
  }
  for (uint64_t i = 0; i < samples; ++i) {
    const int32_t cost = column.values[i * column.stride];
    if (cost >= 0) continue;
    return absl::InvalidArgumentError(absl::StrCat("costs: sample ", i, " has ", cost, " ", name));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view BudgetFieldName(BudgetField field) {
  constexpr absl::string_view kNames[kBudgetFields] = {"graphs", "nodes", "edges", "triplets", "bytes"};
  return kNames[field];
}

absl::StatusOr<Budgets> Budgets::Create(const v1::Budget& budget, const CostTable& table) {
  if (table.samples == 0) return absl::InvalidArgumentError("plan: the data set has no samples");
  Budgets result(table);
  STOKER_RETURN_IF_ERROR(result.SetLimits(budget));
  STOKER_RETURN_IF_ERROR(result.CheckTable());
  result.Scan();
  return result;
}

absl::Status Budgets::SetLimits(const v1::Budget& budget) {
  limits_ = {budget.graphs(), budget.nodes(), budget.edges(), budget.triplets(), budget.bytes()};
  if (limits_ == Costs{}) {
    return absl::InvalidArgumentError("plan.budget: graphs, nodes, edges, triplets or bytes has to be set");
  }
  if (budget.graphs() > kMaxGraphs) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan.budget.graphs: ", budget.graphs(), " is not in [1, ", kMaxGraphs, "]"));
  }
  if (budget.bytes() != 0 && budget.bytes() <= table_.fixed_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("plan.budget.bytes: ", budget.bytes(), " leaves no room: a batch has ",
                                                   table_.fixed_bytes, " bytes before its first sample"));
  }
  if (budget.bytes() != 0) limits_[kBytes] -= table_.fixed_bytes;
  for (uint64_t& limit : limits_) limit = limit == 0 ? UINT64_MAX : limit;
  limits_[kGraphs] = std::min(limits_[kGraphs], kMaxGraphs);
  return absl::OkStatus();
}

absl::Status Budgets::CheckTable() const {
  for (const uint64_t bytes : {table_.sample_bytes, table_.node_bytes, table_.edge_bytes, table_.triplet_bytes}) {
    if (bytes > kMaxUnitBytes) {
      return absl::InvalidArgumentError(absl::StrCat("costs: ", bytes, " bytes apiece are over ", kMaxUnitBytes));
    }
  }
  const std::pair<absl::string_view, const CostColumn&> columns[] = {{"nodes", table_.nodes},
                                                                     {"edges", table_.edges},
                                                                     {"triplets", table_.triplets},
                                                                     {"text bytes", table_.text_bytes}};
  for (const auto& [name, column] : columns) STOKER_RETURN_IF_ERROR(CheckColumn(name, column, table_.samples));
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
  double work = static_cast<double>(samples.size());
  const std::pair<uint64_t, uint64_t> shares[] = {
      {nodes, totals_[kNodes]}, {edges, totals_[kEdges]}, {triplets, totals_[kTriplets]}};
  for (const auto& [cost, total] : shares) {
    if (total != 0) work += static_cast<double>(cost) / (static_cast<double>(total) / static_cast<double>(totals_[kGraphs]));
  }
  return static_cast<float>(work);
}

}  // namespace stoker::plan
