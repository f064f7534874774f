// SPDX-License-Identifier: Apache-2.0
#include "server/plan/packing.h"

#include <algorithm>
#include <queue>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/base/status_macros.h"

namespace stoker::plan {
namespace {

constexpr int32_t kChosen = 16;  // samples at the end of a batch that are chosen, not just the next ones

}  // namespace

absl::Span<const uint32_t> PackedEpoch::Batch(uint64_t step, uint32_t rank) const {
  const Range& range = batches_[step * world_ + rank];
  return absl::MakeConstSpan(samples_).subspan(range.begin, range.count);
}

// The work of Packer::Pack.
class Packing {
 public:
  Packing(const v1::Plan& plan, const Budgets& budgets, const Scales& scales, uint64_t epoch)
      : plan_(plan),
        budgets_(budgets),
        scales_(scales),
        order_(budgets.table().samples, plan, epoch),
        window_(budgets, scales, order_) {}

  bool Fill(const std::atomic<bool>* stop);  // false: stopped
  void Even();                               // as many batches as make whole steps, by the tail's policy
  PackedEpoch Finish();                      // steps of batches of near work

 private:
  struct Bin {
    uint32_t begin, count;  // of samples_
    float work;
    uint32_t step;  // see Finish
  };

  void FillOne();
  void Close(uint64_t begin);
  void PlaceOversize();
  uint64_t Missing() const { return (plan_.world() - bins_.size() % plan_.world()) % plan_.world(); }
  void CutLast(uint64_t missing);
  void CutInTwo(uint64_t i);  // i keeps one part, the other is a new bin
  static bool MoreWork(const Bin& a, const Bin& b) { return std::tie(b.work, a.begin) < std::tie(a.work, b.begin); }
  absl::Span<uint32_t> Samples(const Bin& bin) { return absl::MakeSpan(samples_).subspan(bin.begin, bin.count); }

  const v1::Plan& plan_;
  const Budgets& budgets_;
  const Scales& scales_;
  const EpochOrder order_;
  Window window_;
  uint64_t last_ = 0;         // the bin that was filled last,
  bool last_is_full_ = true;  // or not: then the samples ran out
  std::vector<uint32_t> samples_;
  std::vector<Bin> bins_;
};

void Packing::Close(uint64_t begin) {
  const uint32_t count = static_cast<uint32_t>(samples_.size() - begin);
  Bin bin{static_cast<uint32_t>(begin), count, 0, 0};
  bin.work = budgets_.Work(Samples(bin));
  bins_.push_back(bin);
}

void Packing::PlaceOversize() {
  if (plan_.oversize() == v1::OVERSIZE_ALONE) {
    for (const uint32_t sample : window_.oversize()) {
      samples_.push_back(sample);
      Close(samples_.size() - 1);
    }
  }
  window_.oversize().clear();
}

void Packing::FillOne() {
  const uint64_t begin = samples_.size();
  Room room = scales_.limits();
  for (;;) {
    window_.Refill();
    const int32_t parts = scales_.SamplesIn(room);
    if (window_.empty() && parts > 0 && plan_.tail() == v1::PAD && !window_.repeats()) {
      window_.Repeat();
      continue;
    }
    int slot = samples_.size() == begin || parts > kChosen ? window_.Oldest(room) : Window::kNone;
    if (slot == Window::kNone) slot = window_.Nearest(room, std::max(parts, 1));
    if (slot == Window::kNone) break;
    samples_.push_back(window_.sample(slot));
    window_.Take(slot, &room);
  }
  Close(begin);
  last_ = bins_.size() - 1;
  last_is_full_ = !window_.empty() || scales_.SamplesIn(room) == 0;
}

bool Packing::Fill(const std::atomic<bool>* stop) {
  samples_.reserve(budgets_.table().samples);
  while (!window_.repeats()) {
    if (stop != nullptr && stop->load(std::memory_order_relaxed)) return false;
    window_.Refill();
    if (window_.empty() && window_.oversize().empty()) break;
    PlaceOversize();
    if (!window_.empty()) FillOne();
  }
  PlaceOversize();
  return true;
}

void Packing::Even() {
  if (plan_.tail() == v1::DROP) {
    if (!last_is_full_) bins_.erase(bins_.begin() + last_);
    const uint64_t left_out = bins_.size() % plan_.world();
    if (left_out > 0) std::sort(bins_.begin(), bins_.end(), MoreWork);
    bins_.resize(bins_.size() - left_out);
  } else if (plan_.tail() == v1::PAD) {
    const uint64_t missing = Missing(), bins = bins_.size();
    for (uint64_t i = 0; i < missing; ++i) bins_.push_back(Bin(bins_[i % bins]));
  } else {
    CutLast(Missing());
  }
}

void Packing::CutLast(uint64_t missing) {
  using Candidate = std::tuple<float, uint32_t, uint64_t>;  // the most work first; of equals the last
  std::priority_queue<Candidate> candidates;
  uint64_t next = bins_.size();  // bins before it are no candidates yet
  const auto add = [&](uint64_t i) {
    if (bins_[i].count > 1) candidates.push({bins_[i].work, bins_[i].begin, i});
  };
  while (missing > 0 && next % plan_.world() != 0) add(--next);
  for (; missing > 0; --missing) {
    while (candidates.empty() && next > 0) add(--next);
    if (candidates.empty()) {
      bins_.push_back({static_cast<uint32_t>(samples_.size()), 0, 0, 0});
      continue;
    }
    const uint64_t i = std::get<2>(candidates.top());
    candidates.pop();
    CutInTwo(i);
    add(i);
    add(bins_.size() - 1);
  }
}

// Each sample, the one with the most work first, goes to the half that has less.
void Packing::CutInTwo(uint64_t i) {
  const absl::Span<uint32_t> samples = Samples(bins_[i]);
  std::vector<std::pair<float, uint32_t>> by_work;
  for (const uint32_t& sample : samples) by_work.emplace_back(-budgets_.Work({&sample, 1}), sample);
  std::sort(by_work.begin(), by_work.end());
  uint32_t first = 0, second = 0;  // how many; the halves grow towards each other
  float first_work = 0, second_work = 0;
  for (const auto& [minus_work, sample] : by_work) {
    if (first_work <= second_work && first + 1 < samples.size()) {
      samples[first++] = sample;
      first_work -= minus_work;
    } else {
      samples[samples.size() - ++second] = sample;
      second_work -= minus_work;
    }
  }
  bins_.push_back({bins_[i].begin + first, second, second_work, 0});
  bins_[i] = {bins_[i].begin, first, first_work, 0};
}

PackedEpoch Packing::Finish() {
  const uint32_t world = plan_.world();
  if (world > 1) {
    std::sort(bins_.begin(), bins_.end(), MoreWork);
    // A step comes where the first of its batches was filled, and ranks have them in the order of filling: so neither
    // steps nor ranks are ordered by work.
    for (uint64_t i = 0; i < bins_.size(); ++i) {
      const auto step = bins_.begin() + (i - i % world);
      if (i % world == 0) std::sort(step, step + world, [](const Bin& a, const Bin& b) { return a.begin < b.begin; });
      bins_[i].step = step->begin;
    }
    std::sort(bins_.begin(), bins_.end(), [](const Bin& a, const Bin& b) {
      return std::tie(a.step, a.begin, a.count) < std::tie(b.step, b.begin, b.count);
    });
  }
  PackedEpoch result;
  result.world_ = world;
  result.samples_ = std::move(samples_);
  result.batches_.reserve(bins_.size());
  for (const Bin& bin : bins_) result.batches_.push_back({bin.begin, bin.count});
  return result;
}

absl::StatusOr<Packer> Packer::Create(const v1::Plan& plan, const CostTable& table) {
  if (table.samples > kMaxSamples) {
    return absl::InvalidArgumentError(absl::StrCat("plan.budget: the data set has ", table.samples,
                                                   " samples, over the ", kMaxSamples, " that are cut by budget"));
  }
  STOKER_ASSIGN_OR_RETURN(const Budgets budgets, Budgets::Create(plan.budget(), table));
  if (plan.oversize() == v1::OVERSIZE_FAIL && budgets.first_oversize().has_value()) {
    const Oversize& first = *budgets.first_oversize();
    const absl::string_view field = BudgetFieldName(first.field);
    return absl::InvalidArgumentError(
        absl::StrCat("plan.budget.", field, ": sample ", first.sample, " has ", first.cost, " ", field,
                     ", a batch may hold ", first.limit, " (", budgets.oversize(), " of ", table.samples,
                     " samples are over budget): raise it, or let plan.oversize be ALONE or SKIP"));
  }
  return Packer(plan, budgets);
}

std::optional<PackedEpoch> Packer::Pack(uint64_t epoch, const std::atomic<bool>* stop) const {
  Packing packing(plan_, budgets_, scales_, epoch);
  if (!packing.Fill(stop)) return std::nullopt;
  packing.Even();
  return packing.Finish();
}

}  // namespace stoker::plan
