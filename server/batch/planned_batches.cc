// SPDX-License-Identifier: Apache-2.0
#include "server/batch/planned_batches.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/plan/budgets.h"
#include "server/plan/largest_batch.h"
#include "shared/base/status_macros.h"

namespace stoker::batch {
namespace {

void Fill(const Counts& counts, v1::ToWorker::Counts* message) {
  message->set_samples(counts.samples);
  message->set_nodes(counts.nodes);
  message->set_edges(counts.edges);
  message->set_triplets(counts.triplets);
  message->set_text_bytes(counts.text_bytes);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const PlannedBatches>> PlannedBatches::Create(std::shared_ptr<const BatchMaker> maker,
                                                                             const v1::Plan& plan, uint64_t epoch) {
  plan::CostTable costs = maker->costs();
  STOKER_RETURN_IF_ERROR(maker->AddByteCosts(&costs));
  if (plan.has_budget() && plan.oversize() == v1::OVERSIZE_FAIL && !costs.uniform()) {
    STOKER_ASSIGN_OR_RETURN(const plan::Budgets budgets, plan::Budgets::Create(plan.budget(), costs));
    if (const auto& first = budgets.first_oversize(); first.has_value()) {
      const absl::string_view field = plan::BudgetFieldName(first->field);
      return absl::InvalidArgumentError(absl::StrCat("plan.budget.", field, ": ", maker->NameSample(first->sample),
                                                     " has ", first->cost, ", more than ", first->limit,
                                                     " (samples over budget: ", budgets.oversize(),
                                                     "); raise the budget, or choose --oversize alone or skip"));
    }
  }
  STOKER_ASSIGN_OR_RETURN(auto batches, plan::BatchPlan::Create(plan, costs));
  if (batches->Steps(epoch) == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "plan.tail: DROP leaves nothing: ", costs.samples, " samples do not fill one batch",
        plan.has_budget() ? "" : absl::StrCat(" of ", plan.batch_size()), " on each of ", plan.world(), " ranks"));
  }
  std::shared_ptr<PlannedBatches> result(new PlannedBatches(std::move(maker), std::move(batches)));
  STOKER_RETURN_IF_ERROR(result->MeasureBatches(epoch));
  // Epochs differ in how they are shuffled only.
  if (plan.shuffle() && !costs.uniform()) {
    STOKER_ASSIGN_OR_RETURN(result->largest_, plan::LargestBatch(plan, costs));
  }
  return result;
}

absl::Status PlannedBatches::MeasureBatches(uint64_t epoch) {
  const auto measure = [this](const Counts& counts) -> absl::Status {
    STOKER_ASSIGN_OR_RETURN(auto tensors, maker_->TensorsFor(counts));
    STOKER_ASSIGN_OR_RETURN(const tensor::Layout layout, tensor::Layout::Create(std::move(tensors)));
    full_batch_bytes_ = std::max(full_batch_bytes_, layout.extent_bytes());
    const plan::Costs costs = {counts.samples, counts.nodes, counts.edges, counts.triplets, layout.extent_bytes()};
    for (size_t f = 0; f < costs.size(); ++f) largest_[f] = std::max(largest_[f], costs[f]);
    return absl::OkStatus();
  };
  if (costs_.uniform()) return measure({.samples = plan_->proto().batch_size()});
  for (uint64_t step = 0; step < plan_->Steps(epoch); ++step) {
    STOKER_RETURN_IF_ERROR(measure(CountsAt({epoch, step})));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<tensor::TensorSpec>> PlannedBatches::Schema() const {
  const uint64_t samples = plan_->proto().batch_size();  // 0 with a budget
  STOKER_ASSIGN_OR_RETURN(std::vector<tensor::TensorSpec> schema, maker_->TensorsFor({.samples = samples}));
  const uint64_t other = samples + (plan_->proto().has_budget() ? 1 : 0);
  STOKER_ASSIGN_OR_RETURN(const auto differing, maker_->TensorsFor({other, 1, 1, 1, 1}));
  for (size_t t = 0; t < schema.size(); ++t) {
    for (size_t d = 0; d < schema[t].shape.size(); ++d) {
      if (schema[t].shape[d] != differing[t].shape[d]) schema[t].shape[d] = -1;
    }
  }
  return schema;
}

Counts PlannedBatches::CountsOf(absl::Span<const uint64_t> samples) const {
  Counts sum;
  for (const uint64_t sample : samples) {
    sum += {1, costs_.nodes[sample], costs_.edges[sample], costs_.triplets[sample], costs_.text_bytes[sample]};
  }
  return sum;
}

Counts PlannedBatches::CountsAt(const schedule::Position& at) const {
  const uint64_t count = SamplesAt(at);
  if (costs_.uniform()) return {.samples = count};
  return CountsOf(plan_->Samples(at.epoch, at.step, 0, count));
}

void PlannedBatches::DescribePart(const schedule::Part& part, v1::ToWorker::MakePart* message) const {
  const schedule::Position& at = part.at;
  if (costs_.uniform()) {
    const std::vector<uint64_t> samples = plan_->Samples(at.epoch, at.step, part.first, part.count);
    message->mutable_sample()->Assign(samples.begin(), samples.end());
    Fill({.samples = part.first}, message->mutable_before());
    Fill({.samples = SamplesAt(at)}, message->mutable_total());
    return;
  }
  const std::vector<uint64_t> batch = plan_->Samples(at.epoch, at.step, 0, SamplesAt(at));
  const auto before = absl::MakeConstSpan(batch).first(part.first);
  const auto samples = absl::MakeConstSpan(batch).subspan(part.first, part.count);
  const auto after = absl::MakeConstSpan(batch).subspan(part.first + part.count);
  message->mutable_sample()->Assign(samples.begin(), samples.end());
  Counts sum = CountsOf(before);
  Fill(sum, message->mutable_before());
  sum += CountsOf(samples);
  sum += CountsOf(after);
  Fill(sum, message->mutable_total());
}

absl::StatusOr<tensor::Layout> PlannedBatches::LayoutAt(const schedule::Position& at) const {
  STOKER_ASSIGN_OR_RETURN(auto tensors, maker_->TensorsFor(CountsAt(at)));
  return tensor::Layout::Create(std::move(tensors));
}

std::string PlannedBatches::DescribeSample(const schedule::Position& at, uint64_t i) const {
  return maker_->NameSample(plan_->Samples(at.epoch, at.step, i, 1)[0]);
}

}  // namespace stoker::batch
