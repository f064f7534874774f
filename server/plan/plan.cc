// SPDX-License-Identifier: Apache-2.0
#include "server/plan/plan.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/plan/budget_plan.h"

namespace stoker::plan {
namespace {

constexpr uint32_t kDefaultBatchSize = 64;
constexpr uint32_t kMaxBatchSize = 1 << 20;
constexpr uint32_t kMaxWorld = 1 << 16;

absl::Status Invalid(absl::string_view field, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat("plan.", field, ": ", reason));
}

absl::Status CheckRange(absl::string_view field, uint64_t value, uint64_t low, uint64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Invalid(field, absl::StrCat(value, " is not in [", low, ", ", high, "]"));
}

absl::Status CompleteCuts(v1::Plan* plan) {
  if (!v1::OversizePolicy_IsValid(plan->oversize())) {
    return Invalid("oversize", absl::StrCat("unknown value ", int{plan->oversize()}));
  }
  if (!plan->has_budget()) {
    if (plan->oversize() != v1::OVERSIZE_UNSPECIFIED) return Invalid("oversize", "goes with a budget only");
    if (plan->batch_size() == 0) plan->set_batch_size(kDefaultBatchSize);
    return CheckRange("batch_size", plan->batch_size(), 1, kMaxBatchSize);
  }
  if (plan->batch_size() != 0) return Invalid("batch_size", "does not go with a budget; set budget.graphs");
  const v1::Budget& budget = plan->budget();
  if (budget.graphs() == 0 && budget.nodes() == 0 && budget.edges() == 0 && budget.triplets() == 0 &&
      budget.bytes() == 0) {
    return Invalid("budget", "nothing is limited; set graphs, nodes, edges, triplets or bytes");
  }
  if (plan->oversize() == v1::OVERSIZE_UNSPECIFIED) plan->set_oversize(v1::OVERSIZE_FAIL);
  return CheckRange("budget.graphs", budget.graphs(), 0, kMaxBatchSize);
}

}  // namespace

absl::StatusOr<v1::Plan> CompletePlan(const v1::Plan& proto) {
  v1::Plan plan = proto;
  if (plan.world() == 0) plan.set_world(1);
  if (plan.tail() == v1::TAIL_UNSPECIFIED) plan.set_tail(v1::KEEP);
  if (!plan.shuffle()) plan.set_seed(0);  // so that equal plans are equal bytes
  absl::Status status = CompleteCuts(&plan);
  status.Update(CheckRange("world", plan.world(), 1, kMaxWorld));
  status.Update(CheckRange("rank", plan.rank(), 0, std::min(plan.world(), kMaxWorld) - 1));
  if (!v1::TailPolicy_IsValid(plan.tail())) {
    status.Update(Invalid("tail", absl::StrCat("unknown value ", int{plan.tail()})));
  }
  if (!status.ok()) return status;
  return plan;
}

absl::StatusOr<std::shared_ptr<const BatchPlan>> BatchPlan::Create(const v1::Plan& plan, const CostTable& costs) {
  if (costs.samples == 0) return absl::InvalidArgumentError("plan: the data set has no samples");
  if (plan.has_budget()) {
    if (costs.uniform()) return Invalid("budget", "only for data sets of kind CRYSTALS");
    return BudgetPlan::Create(plan, costs);
  }
  return std::make_shared<CountPlan>(plan, costs.samples);
}

CountPlan::CountPlan(v1::Plan plan, uint64_t samples) : BatchPlan(std::move(plan)), samples_(samples) {
  const uint64_t global = uint64_t{proto().batch_size()} * proto().world();
  steps_ = proto().tail() == v1::DROP ? samples / global : (samples + global - 1) / global;
}

BatchRange CountPlan::Range(uint64_t step) const {
  const uint64_t size = proto().batch_size();
  const uint64_t rank = proto().rank();
  const uint64_t world = proto().world();
  const uint64_t begin = step * size * world;
  const uint64_t left = samples_ - begin;
  if (proto().tail() == v1::PAD || left >= size * world) return {begin + rank * size, size};
  // KEEP, last step: what is left is shared out, the first ranks get one more.
  const uint64_t each = left / world;
  const uint64_t more = left % world;
  return {begin + rank * each + std::min(rank, more), each + (rank < more ? 1 : 0)};
}

std::vector<uint64_t> CountPlan::Samples(uint64_t epoch, uint64_t step, uint64_t first, uint64_t count) const {
  const EpochOrder order(samples_, proto(), epoch);
  const BatchRange range = Range(step);
  std::vector<uint64_t> samples(count);
  for (uint64_t i = 0; i < count; ++i) samples[i] = (range.begin + first + i) % samples_;
  order.Apply(absl::MakeSpan(samples));
  return samples;
}

}  // namespace stoker::plan
