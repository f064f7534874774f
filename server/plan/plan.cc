// SPDX-License-Identifier: Apache-2.0
#include "server/plan/plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace stoker::plan {
namespace {

constexpr uint32_t kDefaultBatchSize = 64;
constexpr uint32_t kMaxBatchSize = 1 << 20;
constexpr uint32_t kMaxWorld = 1 << 16;

absl::Status CheckRange(absl::string_view field, uint64_t value, uint64_t low, uint64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("plan.", field, ": ", value, " is not in [", low, ", ", high, "]"));
}

}  // namespace

absl::StatusOr<BatchPlan> BatchPlan::Create(const v1::Plan& proto, uint64_t samples) {
  v1::Plan plan = proto;
  if (plan.batch_size() == 0) plan.set_batch_size(kDefaultBatchSize);
  if (plan.world() == 0) plan.set_world(1);
  if (plan.tail() == v1::TAIL_UNSPECIFIED) plan.set_tail(v1::KEEP);
  if (!plan.shuffle()) plan.set_seed(0);  // so that equal plans are equal bytes
  absl::Status status = CheckRange("batch_size", plan.batch_size(), 1, kMaxBatchSize);
  status.Update(CheckRange("world", plan.world(), 1, kMaxWorld));
  status.Update(CheckRange("rank", plan.rank(), 0, std::min(plan.world(), kMaxWorld) - 1));
  if (!v1::TailPolicy_IsValid(plan.tail())) {
    status.Update(absl::InvalidArgumentError(absl::StrCat("plan.tail: unknown value ", int{plan.tail()})));
  }
  if (plan.has_budget()) status.Update(absl::InvalidArgumentError("plan.budget: only for data sets of kind CRYSTALS"));
  if (samples == 0) status.Update(absl::InvalidArgumentError("plan: the data set has no samples"));
  if (!status.ok()) return status;
  BatchPlan result(plan, samples);
  const uint64_t global = uint64_t{plan.batch_size()} * plan.world();
  result.steps_ = plan.tail() == v1::DROP ? samples / global : (samples + global - 1) / global;
  return result;
}

BatchRange BatchPlan::Range(uint64_t step) const {
  const uint64_t size = plan_.batch_size();
  const uint64_t rank = plan_.rank();
  const uint64_t begin = step * size * plan_.world();
  const uint64_t left = samples_ - begin;
  if (plan_.tail() == v1::PAD || left >= size * plan_.world()) return {begin + rank * size, size};
  // KEEP, last step: what is left is shared out, the first ranks get one more.
  const uint64_t each = left / plan_.world();
  const uint64_t more = left % plan_.world();
  return {begin + rank * each + std::min(rank, more), each + (rank < more ? 1 : 0)};
}

std::vector<uint64_t> BatchPlan::Samples(uint64_t epoch, uint64_t step, uint64_t first, uint64_t count) const {
  const EpochOrder order(samples_, plan_, epoch);
  const BatchRange range = Range(step);
  std::vector<uint64_t> samples(count);
  for (uint64_t i = 0; i < count; ++i) samples[i] = order((range.begin + first + i) % samples_);
  return samples;
}

}  // namespace stoker::plan
